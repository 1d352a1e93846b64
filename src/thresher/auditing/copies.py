"""Near copies among an audit's rows: found once, kept in the run directory, and told of every row.

What stands opposite a text is its label, or, of rows to generate from, its answer: answers that are near copies of each
other are the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thresher.arrays import Floats, Indices
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.data.parts import Part
from thresher.detectors.duplicates import find_contradictions, find_copies
from thresher.detectors.evidence import Copies
from thresher.summary import ContradictedRow, Contradiction, NearCopies, Query
from thresher.tensors import read_tensors, write_tensors

SHOWN, SHOWN_ROWS, SHOWN_QUERIES = 5, 4, 2
PARTS: tuple[Part, ...] = ("train", "query")


@dataclass(frozen=True)
class FoundCopies:
    """``copies`` of n rows and Q queries, numbered by the first row of each group; ``said`` [n + Q] are the labels, or
    answers, as numbers."""

    copies: Copies
    said: Indices

    @property
    def groups(self) -> Indices:
        """Of rows and after them of queries, [n + Q]."""
        return np.concatenate([self.copies.train, self.copies.query])

    @property
    def contradicted(self) -> npt.NDArray[np.object_]:
        """By what each row's text is given something else, [n]: "query", "row", or "" where it is not."""
        rows = len(self.copies.train)
        found = np.full(rows, "", dtype=object)
        found[find_contradictions(self.copies.train, self.said[:rows])] = "row"
        of_queries = {(group, said) for group, said in zip(self.copies.query, self.said[rows:], strict=True)}
        for row in np.flatnonzero(np.isin(self.copies.train, self.copies.query)):
            if (self.copies.train[row], self.said[row]) not in of_queries:
                found[row] = "query"
        return found


def copies_of(job: Job, run_dir: RunDirectory) -> FoundCopies:
    """Those of the job's rows and queries, which are looked for where ``run_dir`` does not have them."""
    if not run_dir.copies.exists():
        asked = [texts for part in PARTS for texts in job.task.asked(part)]
        # In prompts, and between the texts of a pair, what differs may be what is asked for.
        groups = find_copies(asked, near=len(job.subject.classes) > 1 and len(asked[0]) == 1)
        answers = [text for part in PARTS for text in job.task.answers(part)]
        write_tensors(
            run_dir.copies, {"groups": torch.from_numpy(groups), "answers": torch.from_numpy(find_copies(answers))}
        )
    kept, _ = read_tensors(run_dir.copies)
    count = len(job.encoded["train"])
    groups, said = kept["groups"].numpy(), kept["answers"].numpy()
    if not len(said):
        said = np.concatenate([job.encoded[part].classes.numpy() for part in PARTS])
    return FoundCopies(Copies(groups[:count], groups[count:]), said)


def copy_columns(job: Job, run_dir: RunDirectory) -> dict[str, Any]:
    """Columns of scores.parquet: ``copy_of``, the first row of the group of near copies that a row is in, its own
    number where it has none; and ``contradicted``, by what its text is given something else."""
    found = copies_of(job, run_dir)
    return {"copy_of": found.copies.train, "contradicted": found.contradicted}


def summarise_copies(job: Job, run_dir: RunDirectory, rank: Floats | Indices) -> NearCopies:
    """Near copies for summary.json; of contradictions those with the most detrimental rows, by ``rank`` [n]."""
    found = copies_of(job, run_dir)
    train, query, contradicted = found.copies.train, found.copies.query, found.contradicted
    size = np.bincount(train, minlength=len(train) + len(query))
    wrong = np.flatnonzero(contradicted != "")
    worst = list(dict.fromkeys(train[wrong[np.argsort(rank[wrong], kind="stable")]].tolist()))
    return NearCopies(
        rows=int((size[train] > 1).sum()),
        groups=int((size > 1).sum()),
        contradicted=len(wrong),
        contradicted_groups=len(worst),
        contradicted_by_queries=int((contradicted == "query").sum()),
        queries=int(np.isin(query, train).sum()),
        shown=tuple(_contradiction(job, found, group) for group in worst[:SHOWN]),
    )


def _contradiction(job: Job, found: FoundCopies, group: int) -> Contradiction:
    """Of each label, or answer, the first row; and then more of them."""
    train, query = (np.flatnonzero(side == group).tolist() for side in (found.copies.train, found.copies.query))
    firsts = np.sort(np.unique(found.said[train], return_index=True)[1])
    rows = sorted([*np.array(train)[firsts].tolist(), *np.delete(train, firsts).tolist()][:SHOWN_ROWS])
    return Contradiction(
        copies=len(train),
        rows=tuple(ContradictedRow(row=row, **job.task.describe("train", row)) for row in rows),
        queries=tuple(Query(query=one, **job.task.describe("query", one)) for one in query[:SHOWN_QUERIES]),
    )
