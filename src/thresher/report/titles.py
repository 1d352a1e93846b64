"""What groups of layers, training sets and metrics are called in front of people."""

from __future__ import annotations

GROUP_TITLES = {
    "WE": "WE",
    "1": "1st quarter",
    "2": "2nd",
    "3": "3rd",
    "4": "4th",
    "CL": "CL",
    "layers": "all layers",
    "all": "everything",
}
TRAINED_ON_TITLES = {
    "all_rows": "all rows",
    "with_canaries": "all rows, the canaries wrong",
    "dropped": "after dropping by Thresher",
    "relabelled": "after relabelling by Thresher",
    "dropped_at_random": "after dropping as many at random",
    "errors_removed": "with the planted errors really gone",
}
VERDICT_TITLES = {"keep": "kept", "relabel": "relabelled", "drop": "dropped", "unsure": "unsure"}
METRIC_TITLES = {
    "ndr30": "NDR@30",
    "auc_ndr": "AUC-NDR",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "precision50": "precision at 50",
    "accuracy": "accuracy after retraining",
}
FAMILIES = {
    "influence": "influence on the clean rows",
    "training": "how hard it was to learn",
    "probe": "a probe on features of the model as it came",
    "frozen neighbours": "labels of its neighbours, before fine-tuning",
    "tuned neighbours": "labels of its neighbours, after fine-tuning",
    "frozen law": "what clean rows tell of such labels, before fine-tuning",
    "tuned law": "what clean rows tell of such labels, after fine-tuning",
}
"""Families of scores in the words of people."""
