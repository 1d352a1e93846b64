"""The rows of an audit by part, read before anything heavy is imported: a missing file is known at once."""

from __future__ import annotations

from typing import Literal

from thresher.config import DataConfig
from thresher.data.table import Table, fingerprint, read_table
from thresher.errors import DataError

Part = Literal["train", "query", "test"]


def read_parts(config: DataConfig) -> dict[Part, Table]:
    """Training rows, queries and, if named, test rows. Raises :class:`DataError` for what cannot be read.

    And where test rows and queries are the same.
    """
    sources: dict[Part, str] = {"train": config.train, "query": config.validation}
    if config.test is not None:
        sources["test"] = config.test
    tables: dict[Part, Table] = {
        part: read_table(source, "validation" if part == "query" else part) for part, source in sources.items()
    }
    if "test" in tables and fingerprint(tables["test"]) == fingerprint(tables["query"]):
        raise DataError(f"{config.test}: --test and --validation are the same rows; no choice may be made on the test.")
    return tables
