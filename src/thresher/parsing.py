"""JSON and YAML as people write them, taken at their word: nothing said twice, nothing without end."""

from __future__ import annotations

import json
from typing import Any

import yaml

LONGEST_YAML, MOST_VALUES = 2**20, 100_000
"""Characters of a YAML text, and values in it with every alias written out: a thousand times what people write."""


class UnclearError(ValueError):
    """A text that is not what it is taken for: why, and on which line."""

    def __init__(self, why: str, line: int = 1) -> None:
        super().__init__(why)
        self.line = line


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises :class:`UnclearError`, also for a key that is there twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise UnclearError(error.msg, error.lineno) from None
    except RecursionError:
        raise UnclearError(_DEEP) from None
    except UnclearError:
        raise
    except ValueError:  # Python's own limit to what it turns into a number
        raise UnclearError("a number has thousands of digits") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text.

    Raises :class:`UnclearError`, also for a key that is there twice and for aliases that grow beyond all bounds.
    """
    if len(text) > LONGEST_YAML:
        raise UnclearError(f"it has {len(text):,} characters, and at most {LONGEST_YAML:,} are read")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark, problem = (getattr(error, name, None) for name in ("problem_mark", "problem"))
        raise UnclearError(problem or " ".join(str(error).split()), mark.line + 1 if mark else 1) from None
    except RecursionError:
        raise UnclearError(_DEEP) from None
    except UnclearError:
        raise
    except Exception as error:  # of a day or a number that there is none of, the library raises many kinds
        raise UnclearError(f"a value is none ({str(error).split(';')[0]})") from None
    finally:
        if loader is not None:
            loader.dispose()


_DEEP = "it is nested too deeply"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise UnclearError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return found


class _Loader(yaml.SafeLoader):
    """Refuses what the library takes: keys that are there twice, and values within themselves or without number."""

    def get_single_node(self) -> yaml.Node | None:
        """The whole text as nodes, counted before a value is made of them."""
        node = super().get_single_node()
        if node is not None:
            _count(node, {})
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping, each of whose keys is there once; what ``<<`` merges into it may be overridden."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise UnclearError(f"the key '{twice}' is there twice", node.start_mark.line + 1)
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node is, all aliases written out."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # for whoever meets it within itself
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        flat = [one for part in parts for one in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_count(one, known) for one in flat)
        if known[id(node)] > MOST_VALUES:
            raise UnclearError(f"its aliases stand for more than {MOST_VALUES:,} values")
    return known[id(node)]
