"""A first look: rows ranked by features of the model as it came, in minutes, before anything is trained.

Canaries cost nothing here, for only the probe learns from labels; so the look says how sure it is in the same way as a
whole audit does. A whole audit of the same rows takes up the features.
"""

from __future__ import annotations

import numpy as np
import torch

from thresher.arrays import Floats, Indices
from thresher.auditing.looks import write_candidates
from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.auditing.untrained import Untrained
from thresher.calibration.canaries import Round
from thresher.calibration.opinions import opinions_of
from thresher.calibration.stack import of_frozen_features
from thresher.detectors.evidence import Evidence
from thresher.detectors.registry import detect
from thresher.model.predict import Predictions, write_predictions
from thresher.scores.names import DetectorScore, ScoreName
from thresher.tensors import tensors_of, write_tensors


def look(job: Job, one: Round, run_dir: RunDirectory, untrained: Untrained) -> None:
    """What a round of training leaves in ``run_dir``, by what is known without any: the probe is the model."""
    if run_dir.candidates.exists():
        return
    evidence = untrained.added_to(_evidence(job, one), one.rows)
    scores: dict[ScoreName, Floats] = {DetectorScore(name): values for name, values in detect(evidence).items()}
    opinions = opinions_of(evidence, one.wrong)
    said = opinions["probe"]
    rows = len(one.train)
    labels = {"train": (said[:rows], evidence.labels), "query": (said[rows:], evidence.query_labels)}
    write_predictions(run_dir.predictions, {side: _predictions(*part) for side, part in labels.items()})
    write_tensors(run_dir.opinions, tensors_of(opinions))
    write_candidates(run_dir, one, {name: values for name, values in scores.items() if of_frozen_features(name)})


def _evidence(job: Job, one: Round) -> Evidence:
    """That of a model which says nothing yet."""
    rows, classes = len(one.train), len(job.subject.classes)
    return Evidence(
        labels=one.train.classes.numpy(),
        classes=classes,
        epoch_losses=np.zeros((0, rows), np.float32),
        epoch_outputs=np.zeros((0, rows, classes), np.float32),
        losses=np.zeros(rows, np.float32),
        outputs=np.zeros((rows, classes), np.float32),
        query_labels=job.encoded["query"].classes.numpy(),
        frozen=None,
        tuned=None,
        seed=one.seed,
        rows=one.rows,
    )


def _predictions(probabilities: Floats, labels: Indices) -> Predictions:
    logs = torch.from_numpy(np.log(probabilities)).float()
    return Predictions(-logs[torch.arange(len(labels)), torch.from_numpy(labels)], logs)
