"""A figure as a part of a page: it takes the page's colours and font, and asks for nothing from elsewhere."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE, WELL, PAPER = "#000001", "#000002", "#000003", "#000004", "#000005"
GOOD, BAD, THIRD, FOURTH, CELL = "#000006", "#000007", "#000008", "#000009", "#00000a"
"""What figures are drawn in: each stands for a colour of the page, which light and dark pages have of their own."""

CHOSEN: dict[Any, Any] = {
    "svg.hashsalt": "thresher",  # else the names of clips and markers are other ones each time
    "svg.fonttype": "none",  # texts as texts: in the page's font, for every script, and to be found
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.0,
}

_OF_PAGE = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    LINE: "var(--line)",
    WELL: "var(--well)",
    PAPER: "var(--paper)",
    GOOD: "var(--good)",
    BAD: "var(--bad)",
    THIRD: "var(--third)",
    FOURTH: "var(--fourth)",
    CELL: "var(--cell)",
    "#000000": "var(--ink)",  # what a figure drew without asking
}
_COLOUR = re.compile("|".join(_OF_PAGE))
_FONT = re.compile(r"font-family: [^;]*;? ?|(?<=px) '[^;]*(?=;|$)")
_DIGITS = re.compile(r"\d+\.\d{3,}")
_UNTOLD = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_NUMBERS = ("d", "x", "y", "transform", "width", "height", "style")


def inline_svg(draw: Callable[[], Figure], name: str, alt: str) -> str:
    """What ``draw`` draws, as an element of a page.

    Args:
        draw: Is called with matplotlib set to the page's colours.
        name: Tells its parts from those of other pictures on the page.
        alt: What it shows, for those who do not see it.
    """
    import matplotlib as mpl

    with mpl.rc_context(CHOSEN), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the page's font has what matplotlib's lacks
        picture = io.BytesIO()
        draw().savefig(picture, format="svg", metadata=_UNTOLD)
    root = ElementTree.fromstring(picture.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        element.attrib = _of_page(element.attrib, name)
        element.tail = None if not (element.tail or "").strip() else element.tail
        element.text = None if not (element.text or "").strip() else element.text
    width = root.attrib.pop("width").removesuffix("pt")
    root.attrib.pop("height")
    root.attrib |= {"role": "img", "aria-label": alt, "style": f"max-width: {float(width) * 1.5:.0f}px"}
    return ElementTree.tostring(root, encoding="unicode")


def _of_page(given: dict[str, str], name: str) -> dict[str, str]:
    keys = {attribute: attribute.rpartition("}")[2] for attribute in given}  # browsers know href without its namespace
    return {keys[attribute]: _value(keys[attribute], value, name) for attribute, value in given.items()}


def _value(key: str, value: str, name: str) -> str:
    if key in _NUMBERS:
        value = _DIGITS.sub(lambda number: f"{float(number[0]):.2f}", value)
    match key:
        case "style":
            return _COLOUR.sub(lambda colour: _OF_PAGE[colour[0]], _FONT.sub("", value))
        case "id":
            return f"{name}-{value}"
        case "href":
            return f"#{name}-{value.removeprefix('#')}"
        case "clip-path":
            return value.replace("url(#", f"url(#{name}-")
        case _:
            return value
