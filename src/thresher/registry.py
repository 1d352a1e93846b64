"""What can be added from outside: a name, and the record of what it does.

A registry is a mapping. What Thresher brings is in it from the start; more is added by :meth:`Registry.register`, or by
an installed package that names a record of its own among its entry points::

    [project.entry-points."thresher.detectors"]
    my_detector = "my_package.detectors:my_detector"

Entry points are read when the registry is, in the order of their names. An import that costs something is written as
``"module:attribute"``, and made when its record is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from thresher.errors import ConfigError, first_line

T = TypeVar("T")

NAME = r"[A-Za-z][A-Za-z0-9_-]*"
"""What names look like: they are typed as flags, and name files and variables of the tensor."""


class Registry(Mapping[str, T], Generic[T]):
    """Records by name, in the order in which they were added.

    Args:
        noun: What a record is called in messages, such as "detector".
        group: The group of entry points that adds to it, such as "thresher.detectors".
        known: What is there from the start: records, or "module:attribute" of one.
        kind: What a record must be an instance or, ``subclass`` given, a subclass of; None takes any callable.
        pattern: A regular expression that names match.

    Example:
        >>> colours = Registry[str]("colour", "example.colours", {}, kind=str)
        >>> colours.register("sky", "blue")
        'blue'
        >>> dict(colours)
        {'sky': 'blue'}
    """

    def __init__(
        self,
        noun: str,
        group: str,
        known: Mapping[str, T | str],
        *,
        kind: type | None = None,
        subclass: bool = False,
        pattern: str = NAME,
    ) -> None:
        self.noun, self.group = noun, group
        self._kind, self._subclass, self._pattern = kind, subclass, re.compile(pattern)
        self._records: dict[str, T | str] = dict(known)
        self._later = {name for name, record in known.items() if isinstance(record, str) and kind is not str}
        self._read = False

    def register(self, name: str, record: T, *, replace: bool = False) -> T:
        """Add a record, or ``replace`` the one of that name, as one does in a notebook.

        Returns:
            The record.

        Raises:
            ConfigError: For a name that is taken or that no name may be, and for what is no such record.
        """
        if not self._pattern.fullmatch(name):
            raise ConfigError(f"A {self.noun} cannot be called '{name}'; use letters, digits and _.")
        if name in self and not replace:
            raise ConfigError(f"There is a {self.noun} '{name}' already; choose another name, or say replace=True.")
        self._check(name, record)
        self._records[name] = record
        self._later.discard(name)
        return record

    def choose(self, name: str) -> T:
        """The record of a name. Raises :class:`ConfigError` naming what there is for a name that is unknown."""
        if name not in self:
            raise ConfigError(f"There is no {self.noun} '{name}'; choose from {', '.join(self)}.")
        return self[name]

    def __getitem__(self, name: str) -> T:
        self._read_entry_points()
        record = self._records[name]
        if name in self._later:
            module, attribute = str(record).split(":")
            record = self._records[name] = getattr(import_module(module), attribute)
            self._later.discard(name)
        return cast(T, record)

    def __contains__(self, name: object) -> bool:
        self._read_entry_points()
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        self._read_entry_points()
        return iter(tuple(self._records))

    def __len__(self) -> int:
        self._read_entry_points()
        return len(self._records)

    def _check(self, name: str, record: Any) -> None:
        if self._kind is None:
            fits, wanted = callable(record), "something to call"
        elif self._subclass:
            fits, wanted = isinstance(record, type) and issubclass(record, self._kind), f"a {self._kind.__name__} class"
        else:
            fits, wanted = isinstance(record, self._kind), f"a {self._kind.__name__}"
        if not fits:
            raise ConfigError(f"The {self.noun} '{name}' must be {wanted}, and is a {type(record).__name__}.")

    def _read_entry_points(self) -> None:
        if self._read:
            return
        self._read = True  # what is loaded here may read, or add to, this registry
        before = dict(self._records)
        try:
            for point in _order(entry_points(group=self.group)):
                self._load(point)
        except BaseException:
            self._read, self._records = False, before  # whoever reads it next is told the same
            raise

    def _load(self, point: EntryPoint) -> None:
        package = point.dist.name if point.dist is not None else point.module
        try:
            record = point.load()
            if self._records.get(point.name) is not record:  # a module may have registered it while it was loaded
                self.register(point.name, record)
        except Exception as error:  # a package may raise anything
            raise ConfigError(
                f"The package '{package}' adds the {self.noun} '{point.name}', which cannot be used "
                f"({first_line(error)}); mend or uninstall the package."
            ) from error


def choices(names: Iterable[str]) -> str:
    """``'a', 'b' or 'c'``: what an option can be, in the words in which pydantic says it."""
    *most, last = (f"'{name}'" for name in names)
    return f"{', '.join(most)} or {last}" if most else last


def _order(points: Iterable[EntryPoint]) -> list[EntryPoint]:
    return sorted(points, key=lambda point: point.name)
