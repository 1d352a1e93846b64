"""What an audit knows of its rows beside what canaries tell: what near copies say, and who labelled them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from thresher.arrays import Indices
from thresher.auditing.copies import copies_of
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.calibration.annotators import AnnotatorRate
from thresher.calibration.beside import Beside, Votes
from thresher.detectors.duplicates import count_votes, find_contradictions
from thresher.summary import Annotator


def known_beside(job: Job, run_dir: RunDirectory) -> Beside | None:
    """What is known; None where nothing is."""
    votes = _votes(job, run_dir)
    if votes is None and job.annotators is None:
        return None
    return Beside(votes, None if job.annotators is None else _numbers(job.annotators)[1])


def _votes(job: Job, run_dir: RunDirectory) -> Votes | None:
    """Those of near copies among which labels differ; None where there are none, or rows have no classes."""
    if len(job.subject.classes) < 2:
        return None
    copies = copies_of(job, run_dir).copies
    train, query = (job.encoded[part].classes.numpy() for part in ("train", "query"))
    every = find_contradictions(np.concatenate([copies.train, copies.query]), np.concatenate([train, query]))
    told = every[: len(train)]
    agree, differ = count_votes(copies, train, query)
    return Votes(np.where(told, agree, 0.0), np.where(told, differ, 0.0)) if told.any() else None


def annotator_column(job: Job) -> dict[str, Any]:
    """The column of scores.parquet that says who labelled each row, where that is known."""
    return {} if job.annotators is None else {"annotator": pa.array(job.annotators, pa.string())}


def summarise_annotators(job: Job, rates: Sequence[AnnotatorRate]) -> tuple[Annotator, ...]:
    """How often each is wrong, whose interval begins highest first; nobody where none is known."""
    if job.annotators is None:
        return ()
    names, _ = _numbers(job.annotators)
    found = [
        Annotator(name=name, rows=one.rows, estimate=one.estimate, low=one.low, high=one.high)
        for name, one in zip(names, rates, strict=True)
    ]
    return tuple(sorted(found, key=lambda one: (-one.low, -one.estimate)))


def _numbers(annotators: tuple[str | None, ...]) -> tuple[list[str], Indices]:
    """The names in their order, and the number of each row's, -1 where nobody is named."""
    numbers, names = pd.factorize(np.array(annotators, dtype=object), sort=True)
    return list(names), numbers.astype(np.int64)
