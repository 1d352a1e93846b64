"""What is known of rows and queries before anything is trained: features of the model as it came, near copies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from thresher.arrays import Indices
from thresher.auditing.copies import copies_of
from thresher.auditing.encoder import Encoder
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.auditing.witnesses import read_features
from thresher.data.encode import EncodedRows
from thresher.data.parts import Part
from thresher.detectors.evidence import Copies, Evidence, Features, Singles
from thresher.errors import ModelError
from thresher.model.features import pooled_features
from thresher.model.load import LoadedModel
from thresher.progress import Advance, Progress
from thresher.tensors import read_tensors, write_tensors

SIDES: tuple[Part, ...] = ("train", "query")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Untrained:
    """Of all rows [n] and queries: ``frozen`` features by the model as it came and those of a ``second`` encoder, where
    there are any, and ``copies``."""

    frozen: Features | None
    second: Features | None
    copies: Copies

    def added_to(self, evidence: Evidence, rows: Indices) -> Evidence:
        """The evidence with what is known of the ``rows`` that its lines are, [N]."""
        frozen, second = (found and Features(found.train[rows], found.query) for found in (self.frozen, self.second))
        return replace(
            evidence, frozen=frozen, second=second, copies=Copies(self.copies.train[rows], self.copies.query)
        )


def look_before_training(job: Job, run_dir: RunDirectory, progress: Progress) -> Untrained:
    """What ``run_dir`` has of it, and what it has not."""
    second = job.encoder and _features(job, run_dir.features("second"), job.encoder, progress)
    return Untrained(frozen_features(job, run_dir, progress), second, copies_of(job, run_dir).copies)


def frozen_features(job: Job, run_dir: RunDirectory, progress: Progress) -> Features | None:
    """Features of training and query rows by the model as it came; None where it was trained elsewhere, or no classes.

    Where a row is a pair of texts u, v these are read apart, and its features are cos(u, v), |u - v| and u v. A model
    without features is refused where rows are ranked by them; else it only is not put beside a probe.
    """
    if not job.probed:
        return None
    try:
        tokens = max(int(job.encoded[side].lengths.max()) for side in SIDES)
        job.reset_weights()
        return _features(job, run_dir.features("frozen"), Encoder(job.subject, tokens), progress)
    except ModelError as error:
        if job.needs_features("frozen"):
            raise
        log.warning("%s What the model knows is not put beside a probe.", error)
        return None


def _features(job: Job, file: Path, encoder: Encoder, progress: Progress) -> Features:
    """Those of ``file``, which is written where it is not there or is of rows that were cut elsewhere."""
    if not file.exists() or read_tensors(file, ())[1] != encoder.tokens:
        apart = {side: job.task.encode_separately(encoder.subject, side, encoder.tokens) for side in SIDES}
        with progress.stage("features", sum(len(rows) for texts in apart.values() for rows in texts)) as advance:
            found = {
                side: torch.from_numpy(_joined_features(encoder.subject, texts, job.config.rows_a_pass, advance))
                for side, texts in apart.items()
            }
        write_tensors(file, found, encoder.tokens)
    return read_features(file)


def _joined_features(subject: LoadedModel, texts: Sequence[EncodedRows], batch_size: int, advance: Advance) -> Singles:
    pooled = [pooled_features(subject, rows, batch_size, advance) for rows in texts]
    if len(pooled) == 1:
        return pooled[0]
    first, second = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in pooled)
    alike = (first * second).sum(axis=1, keepdims=True)
    return np.concatenate([alike, np.abs(first - second), first * second], axis=1)
