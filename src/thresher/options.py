"""What every configuration shares: kinds of values, refusals in a sentence, and how one is made of flags and a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core.core_schema import no_info_after_validator_function

from thresher.errors import ConfigError
from thresher.parsing import UnclearError, parse_yaml
from thresher.registry import choices


@dataclass(frozen=True)
class OneOf:
    """A name that is in a registry, "module:attribute", which is imported when there is a name to check."""

    registry: str

    def names(self) -> list[str]:
        """Those that there are."""
        module, attribute = self.registry.split(":")
        return list(getattr(import_module(module), attribute))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """What pydantic checks a field of this type by."""
        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        if name not in self.names():
            raise ValueError(f"Input should be {choices(self.names())}")
        return name


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGT]?)(i?B)?\s*", re.IGNORECASE)


def _size(value: Any) -> Any:
    if _SIZE.fullmatch(str(value)) is None:
        raise ValueError("write a number of bytes, such as 512M or 4G")
    return str(value)


def size_of(text: str) -> int:
    """The number of bytes that a :data:`Size` says."""
    found = _SIZE.fullmatch(text)
    assert found is not None
    number, unit, _ = found.groups()
    return int(float(number) * _UNITS[unit.upper()])


def _names(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, (list, tuple)):
        names = tuple(name.strip() for part in value for name in str(part).split(","))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"'{twice}' is named twice")
        if not all(names):
            raise ValueError("a name is empty")
        return names
    return value


def _path(value: Any) -> Any:
    # A saved configuration must hold wherever it is read from.
    try:
        return str(Path(value).absolute()) if isinstance(value, (str, Path)) and Path(value).exists() else value
    except OSError as error:  # of a name that is too long, or where we may not look
        raise ValueError(f"cannot be looked at ({error.strerror})") from None


Source = Annotated[str, BeforeValidator(_path)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Size = Annotated[str, BeforeValidator(_size)]
Share = Annotated[float, Field(ge=0, lt=1)]


MOST, MOST_SEED = 2**31 - 1, 2**63 - 1
"""What a whole number can be, for nobody has more rows, tokens or bytes; and a seed, which counts nothing."""


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types that a field's value may have."""
    return (annotation, *get_args(annotation))


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys.

    ``panel`` is the heading of its own fields in a command's help. Where there is one, ``--help`` shows the ``common``
    of them, which most people use, and ``--help-all`` every one.
    """

    panel: ClassVar[str | None] = None
    common: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_nothing(cls, value: Any, about: ValidationInfo) -> Any:
        """No option is blank, and none but a switch is a yes or no."""
        if isinstance(value, str) and not value.strip():
            raise ValueError("is empty; give a value, or leave the option out")
        if isinstance(value, bool) and bool not in _kinds(cls.model_fields[about.field_name or ""].annotation):
            raise ValueError("is no yes or no; give a value")
        return value

    @field_validator("*")
    @classmethod
    def _refuse_endless(cls, value: Any, about: ValidationInfo) -> Any:
        most = MOST_SEED if about.field_name == "seed" else MOST
        if isinstance(value, int) and value > most:
            raise ValueError(f"Input should be at most {most:,}")
        return value


S = TypeVar("S", bound=Section)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Which options of ``now`` were others ``before``, both as JSON."""
    return [f"{name} was {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]


def make_config(kind: type[S], options: dict[str, Any], file: Path | None = None) -> S:
    """A configuration from a YAML file and options that override it.

    Raises :class:`ConfigError` in one sentence: the file, the option, what is wrong with it.
    """
    given = {} if file is None else _read_yaml(file)
    try:
        return kind(**(given | options))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(problem) for problem in error.errors())) from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        value = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); name an existing YAML file.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text; save the file as UTF-8.") from None
    except UnclearError as error:
        raise ConfigError(f"{file}, line {error.line}: not valid YAML ({error}); mend the file.") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: write one 'option: value' a line.")
    return {str(key): entry for key, entry in value.items()}


def _sentence(problem: Any) -> str:
    name = str(problem["loc"][0]).replace("_", "-") if problem["loc"] else "options"
    if problem["type"] == "missing":
        return f"--{name} is missing"
    if problem["type"] == "extra_forbidden":
        return f"there is no option '{name}'"
    return f"--{name}: {problem['msg'].removeprefix('Value error, ')} (given: {problem['input']!r:.60})"
