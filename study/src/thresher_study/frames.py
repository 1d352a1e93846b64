"""Small steps on tidy tables, typed where pandas leaves types open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

Line = dict[str, Any]


def parts(frame: pd.DataFrame, *by: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The lines of each combination of values of ``by``, with the values (a tuple where several), as they appear."""
    groups: Any = frame.groupby(list(by), sort=False)
    for values, part in groups:
        yield (values if len(by) > 1 else values[0]), part


def only(frame: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """The lines whose columns have these values, or one of these where a list is given."""
    kept: Any = pd.Series(True, index=frame.index)
    for name, value in equal.items():
        column: Any = frame[name]
        kept &= column.isin(value) if isinstance(value, list) else column == value
    found: Any = frame[kept]
    return found


def lines(frame: pd.DataFrame) -> list[Line]:
    """One dictionary a line."""
    found: Any = frame.to_dict("records")
    return found


def seen(frame: pd.DataFrame, name: str) -> list[Any]:
    """The values of a column, each once, as they appear."""
    return frame[name].drop_duplicates().to_list()


def largest(frame: pd.DataFrame, value: str) -> Line:
    """The line with the largest ``value``, the first of several; NaN is none."""
    return lines(frame)[int(np.nanargmax(frame[value].to_numpy(dtype=np.float64)))]


def smallest(frame: pd.DataFrame, value: str) -> Line:
    """The line with the smallest ``value``, the first of several; NaN is none."""
    return lines(frame)[int(np.nanargmin(frame[value].to_numpy(dtype=np.float64)))]
