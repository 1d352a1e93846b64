"""What every command of ours shares: one flag a field of a configuration, and mistakes told in one sentence."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape

from thresher.config import Section
from thresher.errors import ThresherError, trace
from thresher.terminal import open_console, show_warnings

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]


def flags(config: type[Section]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag a field of ``config``, after its own parameters.

    The command receives the flags that were given as keyword arguments. What they hold is checked by ``config``, so
    that a flag, a YAML key and a Python argument are refused in the same words.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [_flag(name, field) for name, field in config.model_fields.items()]

        def called(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if value not in (None, [])})

        called.__signature__ = inspect.Signature([*own, *fields])  # pyright: ignore[reportFunctionMemberAccess]
        called.__annotations__ = {p.name: p.annotation for p in [*own, *fields]}
        called.__doc__, called.__name__ = command.__doc__, command.__name__
        return called

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    words = name.replace("_", "-")
    about: Any = field.annotation
    switch, several = about in (bool, bool | None), about == tuple[str, ...]
    default = field.default
    shown = "" if field.is_required() or default in (None, ()) else default
    option = typer.Option(
        f"--{words}/--no-{words}" if switch else f"--{words}",
        help=escape((field.description or "") + (" [required]" if field.is_required() else "")),  # typer reads markup
        show_default=" ".join(shown) if isinstance(shown, tuple) else str(shown) or False,
        metavar=None if switch else "TEXT" if several else "VALUE",
    )
    kind: Any = bool | None if switch else list[str] | None if several else str | None
    # No default of its own: what is not given must not override a YAML file.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command and leave Python: user mistakes are one sentence and exit code 2, and warnings go to stderr."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    errors = open_console(stderr=True)
    show_warnings(errors)
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Exception as error:
        said = _mistake(error)
        if said is None:  # a fault of ours: told as Python would, less what a terminal obeys
            for line in trace(error).splitlines():
                errors.print(line, soft_wrap=True)
            sys.exit(1)
        if said:
            errors.print(f"error: {said}", style="red", soft_wrap=True)
        sys.exit(2)


def _mistake(error: Exception) -> str | None:
    """What the user did wrong, "" where typer has shown its help instead; None for a fault that is none of theirs."""
    if isinstance(error, ThresherError):
        return str(error)
    told: Callable[[], str] | None = getattr(error, "format_message", None)  # of typer, about flags
    if told is None:
        return None
    message, context = told().strip(), getattr(error, "ctx", None)
    help_of = f" See '{context.command_path} --help'." if context is not None else ""
    return message and f"{message.rstrip('.')}.{help_of}"
