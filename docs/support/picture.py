"""Text that a command printed, from standard input, as an SVG that fetches nothing: pictures for pages.

thresher audit a.yaml | sed -n '/most suspicious/,$p' | python docs/support/picture.py lowest.svg TITLE 120
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

# rich's own template names a font on a server.
FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main(target: Path, title: str, width: int) -> None:
    """Draw the lines that come in, ``width`` columns wide under ``title``: rows bold, labels red, queries dim."""
    console = Console(record=True, width=width, file=io.StringIO())
    for line in sys.stdin.read().rstrip().split("\n"):
        text = Text(line.rstrip())
        text.highlight_regex(r"^ *\d+\. row \d+|Next:", "bold")
        text.highlight_regex(r"(?<=, )label \w+", "bold red")
        text.highlight_regex(r"^ +hurts query.*", "dim")
        console.print(text)
    picture = FONTS.sub("", console.export_svg(title=title, theme=MONOKAI)).replace("Fira Code, ", "")
    target.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
