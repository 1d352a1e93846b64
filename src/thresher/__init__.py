"""Thresher finds the training rows that hurt a fine-tuned language model.

One sign everywhere: larger = helpful, lower = detrimental.
"""

from thresher.evaluate.detection import noise_detection_auc, noise_detection_rate
from thresher.influence.compute import influence
from thresher.scores.aggregate import aggregate

__all__ = ["aggregate", "influence", "noise_detection_auc", "noise_detection_rate"]
