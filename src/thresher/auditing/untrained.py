"""What is known of rows and queries before anything is trained: features of the model as it came, near copies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from thresher.arrays import Indices
from thresher.auditing.copies import copies_of
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.data.encode import EncodedRows
from thresher.data.parts import Part
from thresher.detectors.evidence import Copies, Evidence, Features, Singles
from thresher.errors import ModelError
from thresher.model.features import pooled_features
from thresher.progress import Advance, Progress
from thresher.tensors import read_tensors, write_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Untrained:
    """Of all rows [n] and queries: ``frozen`` features by the model as it came, where there are any, and ``copies``."""

    frozen: Features | None
    copies: Copies

    def added_to(self, evidence: Evidence, rows: Indices) -> Evidence:
        """The evidence with what is known of the ``rows`` that its lines are, [N]."""
        frozen = self.frozen and Features(self.frozen.train[rows], self.frozen.query)
        return replace(evidence, frozen=frozen, copies=Copies(self.copies.train[rows], self.copies.query))


def look_before_training(job: Job, run_dir: RunDirectory, progress: Progress) -> Untrained:
    """What ``run_dir`` has of it, and what it has not."""
    return Untrained(frozen_features(job, run_dir, progress), copies_of(job, run_dir).copies)


def frozen_features(job: Job, run_dir: RunDirectory, progress: Progress) -> Features | None:
    """Features of training and query rows by the model as it came; None where it was trained elsewhere, or no classes.

    Where a row is a pair of texts u, v these are read apart, and its features are cos(u, v), |u - v| and u v. A model
    without features is refused where rows are ranked by them; else it only is not put beside a probe.
    """
    if not job.probed:
        return None
    try:
        return _features(job, run_dir, progress)
    except ModelError as error:
        if job.needs_features("frozen"):
            raise
        log.warning("%s What the model knows is not put beside a probe.", error)
        return None


def _features(job: Job, run_dir: RunDirectory, progress: Progress) -> Features:
    sides: tuple[Part, ...] = ("train", "query")
    tokens = max(int(job.encoded[side].lengths.max()) for side in sides)
    if not run_dir.features.exists() or read_tensors(run_dir.features, ())[1] != tokens:
        job.reset_weights()
        apart = {side: job.task.encode_separately(job.subject, side, job.longest) for side in sides}
        with progress.stage("features", sum(len(rows) for texts in apart.values() for rows in texts)) as advance:
            found = {side: torch.from_numpy(_joined_features(job, texts, advance)) for side, texts in apart.items()}
        write_tensors(run_dir.features, found, tokens)
    tensors, _ = read_tensors(run_dir.features)
    return Features(tensors["train"].numpy(), tensors["query"].numpy())


def _joined_features(job: Job, texts: Sequence[EncodedRows], advance: Advance) -> Singles:
    pooled = [pooled_features(job.subject, rows, job.config.rows_a_pass, advance) for rows in texts]
    if len(pooled) == 1:
        return pooled[0]
    first, second = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in pooled)
    alike = (first * second).sum(axis=1, keepdims=True)
    return np.concatenate([alike, np.abs(first - second), first * second], axis=1)
