"""What every command of ours shares: a flag a field of a configuration, a short help, mistakes in one sentence."""

from __future__ import annotations

import errno
import inspect
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape
from typer.core import TyperCommand

from thresher.errors import ThresherError, first_line
from thresher.faults import FAULT, write_report
from thresher.files import is_full
from thresher.lines import plain
from thresher.options import OneOf, Section
from thresher.start import STOPPED, stop
from thresher.terminal import open_console, show_warnings

_REFUSED = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EIO)
"""What the system says of a name or place that a user gave it; that a file is missing would be ours to have told."""

_NO_MEMORY = ("can't allocate memory", "CUDA out of memory")
"""What torch says, in errors of more than one kind."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]


def flags(config: type[Section]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag a field of ``config``, after its own parameters.

    The command receives the flags that were given as keyword arguments. What they hold is checked by ``config``, so
    that a flag, a YAML key and a Python argument are refused in the same words.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [_flag(config, name) for name in config.model_fields]
        if any(_section_of(config, name).panel for name in config.model_fields):
            own.append(_HELP_ALL)

        def called(**values: Any) -> None:
            values.pop(_HELP_ALL.name, None)
            command(**{name: value for name, value in values.items() if value not in (None, [])})

        called.__signature__ = inspect.Signature([*own, *fields])  # pyright: ignore[reportFunctionMemberAccess]
        called.__annotations__ = {p.name: p.annotation for p in [*own, *fields]}
        called.__doc__, called.__name__ = command.__doc__, command.__name__
        return called

    return decorate


class ShortHelp(TyperCommand):
    """A command whose ``--help`` leaves out the rare options, and whose ``--help-all`` and completion do not."""

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What may follow, rare options too."""
        with self.every_option_shown():
            return super().shell_complete(ctx, incomplete)

    @contextmanager
    def every_option_shown(self) -> Generator[None]:
        """Within, no option is hidden."""
        hidden: list[Any] = [option for option in self.params if getattr(option, "hidden", False)]
        for option in hidden:
            option.hidden = False
        yield
        for option in hidden:
            option.hidden = True


def _show_every_option(ctx: typer.Context, asked: bool) -> None:
    if asked:
        command: Any = ctx.command
        with command.every_option_shown():
            ctx.get_help()  # rich prints it at once
        raise typer.Exit


_HELP_ALL = inspect.Parameter(
    "help_all",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option("--help-all", is_eager=True, callback=_show_every_option, help="Show every option and exit."),
    ],
)


def _section_of(config: type[Section], name: str) -> type[Section]:
    """The section of ``config`` that declares the field."""
    sections = (section for section in config.__mro__ if issubclass(section, Section))
    return next(section for section in sections if name in inspect.get_annotations(section))


def _flag(config: type[Section], name: str) -> inspect.Parameter:
    field, section = config.model_fields[name], _section_of(config, name)
    words = name.replace("_", "-")
    about: Any = field.annotation
    switch, several = about in (bool, bool | None), about == tuple[str, ...]
    choices = _choices(field)
    option = typer.Option(
        f"--{words}/--no-{words}" if switch else f"--{words}",
        help=escape((field.description or "") + _note(field)),  # typer reads markup
        show_default=False,
        metavar=None if switch else "TEXT" if several else "VALUE",
        rich_help_panel=section.panel,
        hidden=section.panel is not None and name not in section.common,
        autocompletion=(lambda incomplete: [one for one in choices() if one.startswith(incomplete)])
        if choices
        else None,
    )
    kind: Any = bool | None if switch else list[str] | None if several else str | None
    # No default of its own: what is not given must not override a YAML file.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


def _note(field: FieldInfo) -> str:
    """What stands behind a description: that the option is required, or its default."""
    if field.is_required():
        return " [required]"
    if field.default in (None, (), False):
        return ""
    default = "yes" if field.default is True else field.default
    return f" [default: {' '.join(default) if isinstance(default, tuple) else default}]"


def _choices(field: FieldInfo) -> Callable[[], list[str]] | None:
    """The values that a field may have, where its type lists them or names a registry of them; else None."""
    types = (field.annotation, *get_args(field.annotation))
    registries = [one for about in (field.metadata, *map(get_args, types)) for one in about if isinstance(one, OneOf)]
    if registries:
        return registries[0].names
    values = [str(value) for about in types if get_origin(about) is Literal for value in get_args(about)]
    return (lambda: values) if values else None


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command and leave Python: user mistakes are one sentence and exit code 2, warnings go to stderr, and a
    fault of ours is a sentence with the file that tells of it.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    errors = open_console(stderr=True)
    show_warnings(errors)
    interrupted = _remember_ctrl_c()
    try:
        code = app(standalone_mode=False) or 0
        if code == STOPPED:  # what typer makes of Ctrl-C
            stop()
        sys.exit(code)
    except Exception as error:
        if interrupted:  # in the midst of a library that takes it for an error of its own, as torch's C++ does
            stop()
        said = _mistake(error)
        ours = said is None
        if ours:
            said = f"{type(error).__name__}: {first_line(error).rstrip('.')}. {write_report(error)}"
        if said:
            errors.print(f"error: {said}", style="red", soft_wrap=True)
        sys.exit(FAULT if ours else 2)


def _remember_ctrl_c() -> list[int]:
    """A list that Ctrl-C puts its signal into, besides raising :class:`KeyboardInterrupt` as ever; a shell's "&" has it
    ignored, and so it stays.
    """
    seen: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    return seen


def _mistake(error: Exception) -> str | None:
    """What the user did wrong, "" where typer has shown its help instead; None for a fault that is none of theirs."""
    if isinstance(error, ThresherError):
        return str(error)
    if is_full(error):
        return plain(f"{error}; make room there and run the same command again")
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename is not None:
        return plain(f"{os.fsdecode(error.filename):.300}: {error.strerror}; mend that or name another place")
    if isinstance(error, MemoryError) or any(said in str(error) for said in _NO_MEMORY):
        return "there is not enough memory for this; give fewer rows or ask for less"
    told: Callable[[], str] | None = getattr(error, "format_message", None)  # of typer, about flags
    if told is None:
        return None
    message, context = told().strip(), getattr(error, "ctx", None)
    help_of = f" See '{context.command_path} --help'." if context is not None else ""
    return message and f"{message.rstrip('.')}.{help_of}"
