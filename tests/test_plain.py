"""Text is shown as text: no markup, no command to a terminal, no forged line; by one function on one console."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Group
from rich.styled import Styled
from rich.table import Table

import thresher
from awkward import EVIL, SEEN, harmless, obeyed
from thresher.errors import ConfigError, first_line, trace
from thresher.lines import one_line, plain, plain_lines
from thresher.progress import Shown
from thresher.terminal import PlainConsole, apply_style, indent, show_warnings

SOURCE = Path(thresher.__file__).parent


@given(st.text(st.characters()))
def test_nothing_is_left_that_is_no_text_and_what_is_plain_stays(text: str) -> None:
    found = plain(text)
    assert not obeyed(found) and "\n" not in found
    assert plain(found) == found
    assert len(found) >= len(text)
    found.encode()


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp"))))
def test_printable_text_is_not_touched(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    "ordinary", [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0xD800)]
)
def test_each_command_is_shown_as_python_writes_it(ordinary: str) -> None:
    assert ast.literal_eval(f"'{plain(ordinary)}'") == ordinary


@pytest.mark.parametrize(
    "text",
    [
        "שלום עולם, مرحبا بالعالم",
        "می\u200cخواهم",  # noqa: RUF001 Persian needs its non-joiner
        "क्\u200dष नमस्ते",
        "e\u0301 a\u030a Z\u0351a\u0310lgo",
        "日本語、中文、한국어",
        "👩\u200d👩\u200d👧\u200d👦 ❤\ufe0f 👍🏽 🇳🇴",
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # the flag of Scotland
        "back\\slash [/b] :smile: $x_{1}$ | <b>&amp;",
    ],
)
def test_text_of_any_script_stays_readable(text: str) -> None:
    assert plain(text) == text
    assert one_line(text) == text


def test_letters_that_nobody_sees_are_shown() -> None:
    hidden = "".join(chr(0xE0000 + ord(letter)) for letter in "obey")
    assert plain(f"nice{hidden}") == "nice" + "".join(f"\\U{0xE0000 + ord(letter):08x}" for letter in "obey")
    assert plain("\ufeffa") == "\\ufeffa"


def test_lines_are_kept_only_where_they_are_meant() -> None:
    assert plain("a\r\nb\u2028c") == "a\\r\\nb\\u2028c"
    assert plain_lines("a\nb\x1b") == "a\nb\\x1b"
    assert one_line(["a \n\t b\x1b", "c"]) == "a b\\x1b | c"
    assert one_line("x" * 20, 10) == "xxxxxxx..."
    assert one_line("x" * 20, 10, end=True) == "...xxxxxxx"


def page(**options: Any) -> tuple[PlainConsole, io.StringIO]:
    return PlainConsole(file=(stream := io.StringIO()), width=400, **options), stream


def test_whatever_way_a_string_is_shown_it_is_shown_as_it_is() -> None:
    console, stream = page()
    table = Table("head " + EVIL, title="title " + EVIL, caption="caption " + EVIL)
    table.add_column("more " + EVIL)
    table.add_row("cell " + EVIL, Styled("styled " + EVIL, "bold"))
    console.print("print " + EVIL, "and " + EVIL)
    console.print("asked " + EVIL, markup=True, emoji=True, highlight=True)
    console.print("style " + EVIL, style="red", soft_wrap=True)
    console.print(table)
    console.print(Group("group " + EVIL, indent("indent " + EVIL), apply_style(("part " + EVIL, "red"))))
    shown = harmless(stream.getvalue())
    assert shown.count(SEEN + "\\nerror: forged") == shown.count(":warning:") == 13


def test_cells_are_as_wide_as_what_is_shown() -> None:
    console, stream = page()
    table = Table("a", "b")
    table.add_row("\x1b[31m日本", "x")
    table.add_row("y\n", "x")
    console.print(table)
    top, *_, first, second, bottom = stream.getvalue().splitlines()
    assert first.index("│ x │") + len("日本") == second.index("│ x │") == top.rindex("┳") == bottom.rindex("┴")


def test_a_broken_line_of_a_row_does_not_begin_as_ours() -> None:
    console = PlainConsole(file=(stream := io.StringIO()), width=20)
    console.print(indent("a long enough text error: forged"))
    assert all(line.startswith("    ") for line in stream.getvalue().splitlines())


@pytest.mark.parametrize("terminal", [False, True])
def test_stages_are_called_what_they_are_called(terminal: bool) -> None:
    console, stream = page(force_terminal=terminal, color_system=None)
    with Shown(console).stage(f"stage {EVIL}", 2) as advance:
        advance(2)
    shown = stream.getvalue()
    assert SEEN in shown
    for command in ("\x1b[31m", "\x1b]8;", "\x9b", "\u202e", "\x00", "\nerror"):
        assert command not in shown


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Generator[io.StringIO]:
    """What is written where warnings are shown, as the command shows them."""
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    monkeypatch.setattr(root, "handlers", [])
    console, stream = page()
    try:
        show_warnings(console)
        yield stream
    finally:
        logging.captureWarnings(False)
        logging.setLogRecordFactory(factory)


def test_warnings_of_ours_and_of_libraries_are_text(listening: io.StringIO) -> None:
    logging.getLogger("thresher.somewhere").warning("%s: ours", EVIL)
    logging.getLogger("library").error("first\nerror: forged %s", "\x1b[31m[/b]", extra={"markup": True})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"python's {EVIL}", stacklevel=1)
    try:
        raise ValueError(EVIL)
    except ValueError:
        logging.getLogger("library").exception("it failed")
    shown = harmless(listening.getvalue())
    assert f"WARNING  {SEEN}\\nerror: forged: ours" in shown
    assert "         error: forged \\x1b[31m[/b]" in shown
    assert f"python's {SEEN}" in shown
    assert all(line.startswith(("WARNING  ", "ERROR    ", " " * 9)) for line in shown.splitlines())


def test_a_record_is_plain_before_any_handler_sees_it(listening: io.StringIO) -> None:
    """Some libraries write their records to the terminal themselves."""
    stream = io.StringIO()
    logger = logging.Logger("library")
    logger.addHandler(logging.StreamHandler(stream))
    logger.warning("a %s\nb", "\x1b]0;title\x07")
    assert stream.getvalue() == "a \\x1b]0;title\\x07\nb\n"


def test_errors_are_a_plain_line_also_from_python() -> None:
    assert str(ConfigError(EVIL)) == plain(EVIL)
    assert first_line(OSError(f"\x1b[31mgone\n{EVIL}")) == "\\x1b[31mgone"
    try:
        raise KeyError("x") from ValueError(EVIL)
    except KeyError as error:
        told = harmless(trace(error))
    assert f"ValueError: {SEEN}\\nerror: forged" in told
    assert "direct cause" in told and "raise KeyError" in told


ALLOWED = {
    "rich.console": {"Group", "RenderableType"},
    "rich.markup": {"escape"},  # for typer, which reads help as markup
    "rich.styled": {"Styled"},
    "rich.table": {"Table"},
}


def test_nothing_but_the_terminals_room_makes_consoles_or_texts_of_rich() -> None:
    """So that no text can be shown but through the function that makes it plain."""
    for file in SOURCE.rglob("*.py"):
        if file.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not [one.name for one in node.names if one.name.split(".")[0] == "rich"], file
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
                allowed = ALLOWED.get(str(node.module), set())
                if file.name == "progress.py" and node.module == "rich.progress":
                    continue  # its stages are looked at above
                assert {one.name for one in node.names} <= allowed, f"{file}: {ast.unparse(node)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                assert node.func.attr not in ("secho", "echo", "from_markup", "showwarning"), f"{file}: {node.lineno}"
