"""An aggregation of your own: a row is as bad as the share of columns in which it is among the k most harmful.

    python examples/extend/aggregation.py

Vote-k weighs a column's vote by how low the row lies in it; this one only counts. Scores add up over columns, and so
over modules: ``compute`` gives a sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

import thresher
from thresher.extend import AGGREGATIONS, AggregationFunction


def approval(influences: Any, ranks: Any, k: int) -> Any:
    """-number of columns in which the row is below k others, [N]; larger = helpful, as everywhere."""
    return -(ranks < k).sum(axis=0, dtype=np.float64)


APPROVAL = AggregationFunction(approval, "-mean [r < k]", votes=True, averaged=True)


if __name__ == "__main__":
    tensor = xr.DataArray(np.random.default_rng(0).normal(size=(4, 5, 10)), dims=("module", "query", "train"))
    print(thresher.aggregate(tensor, APPROVAL, k=3).values)  # noqa: T201
    # Registered, it is one more score of every influence function and group of layers in an audit.
    AGGREGATIONS.register("approval", APPROVAL)
    print(thresher.aggregate(tensor, "approval", k=3).values)  # noqa: T201
