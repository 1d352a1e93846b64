"""The one way to the terminal: consoles on which text is text, and warnings that go there.

Rich reads ``[/b]`` as markup and ``:warning:`` as an emoji wherever a text is printed or put into a table, and passes
on what a terminal obeys. Every such text goes through :meth:`PlainConsole.render_str`, so it is made plain there and
nowhere else. Whoever shows something hands over strings, and styles them by :class:`rich.styled.Styled` or
:func:`apply_style`, never by markup.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from thresher.lines import plain, plain_lines

LIBRARIES = ("accelerate", "bitsandbytes", "datasets", "peft", "sklearn", "torch", "transformers", "xarray", "zarr")
"""Those whose deprecations are not shown on the command line."""

PAGE = 120
"""Columns where there is no terminal: wide enough for the tables."""


class PlainConsole(Console):
    """A console that shows every string as it is, on its line, by :func:`thresher.lines.plain`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any) -> Text:
        """What rich makes of any string that it is given, in tables and groups too; whoever asks for markup gets none.

        Args:
            text: The string.
            style: Style of all of it.
            justify: As of :class:`rich.text.Text`.
            overflow: As of :class:`rich.text.Text`.

        Returns:
            The plain text.
        """
        return Text(plain(text), style=style, justify=justify, overflow=overflow)


def open_console(*, stderr: bool = False, quiet: bool = False) -> PlainConsole:
    """The console of standard output, or of standard error; a page wide where that is no terminal.

    Args:
        stderr: Whether it is that of standard error.
        quiet: Whether nothing is shown for now; see ``quiet`` of :class:`rich.console.Console`.

    Returns:
        The console.
    """
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(stderr=stderr, quiet=quiet, width=None if stream.isatty() else PAGE)


def write_out(text: str) -> None:
    """Write a text for other programs to standard output as it is. JSON that is all ASCII has nothing to obey in it."""
    sys.stdout.write(text)


def as_html(*shown: RenderableType) -> str:
    """What a console would show, for a notebook."""
    console = PlainConsole(record=True, file=io.StringIO(), width=PAGE, force_jupyter=False)
    console.print(*shown, sep="\n")
    return console.export_html(inline_styles=True, code_format="<pre style='line-height:1.2'>{code}</pre>")


def apply_style(*parts: tuple[str, str]) -> Text:
    """Texts with a style each, one after the other in a line."""
    return Text.assemble(*((plain(text), style) for text, style in parts))


def indent(text: str, style: str = "") -> RenderableType:
    """A text from the user's rows, set off from our own lines: no line that it is broken into begins as one of ours."""
    return Padding(Styled(text, style), (0, 0, 0, 4), expand=False)


def show_warnings(console: PlainConsole) -> None:
    """Show on ``console`` what this and other libraries log or warn of from now on, in this process.

    Messages are made plain before any handler sees them, for some libraries print theirs themselves.
    """
    logging.setLogRecordFactory(_PlainRecord)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_Handler(console)])
    logging.captureWarnings(True)
    # PEFT imports it where it is installed, and it then warns of kernels that it would fetch.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself
    for library in LIBRARIES:  # what they will change, and tell one another: no user can mend it
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{library}(\.|$)")


def show_errors_only() -> None:
    """From now on, in this process, warnings are not shown, ours no more than other libraries'."""
    logging.disable(logging.WARNING)


class _PlainRecord(logging.LogRecord):
    """A message that can be printed by anybody. Ours are one sentence; other libraries lay theirs out in lines."""

    def getMessage(self) -> str:  # noqa: N802
        message = super().getMessage()
        return plain(message) if self.name.startswith("thresher") else plain_lines(message)


class _Handler(logging.Handler):
    """The level, and beside it the message: no line of it begins where one of ours would."""

    def __init__(self, console: PlainConsole) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname
        style = self._console.get_style(f"logging.level.{level.lower()}", default="")
        grid = Table.grid(padding=(0, 1))
        for number, line in enumerate(self.format(record).splitlines() or [""]):
            grid.add_row(Styled("" if number else level.ljust(8), style), line)
        self._console.print(grid)
