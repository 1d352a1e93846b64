"""The decision: the user's own file, in its order, less the rows of lowest score, or with their labels mended."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thresher.auditing.run import read_audited_rows, read_finished, warn_of_changes
from thresher.calibration.act import Action, act_on
from thresher.calibration.repair import lost_classes
from thresher.data.examples import change_labels, find_columns
from thresher.data.formulas import for_spreadsheets, guard_cells
from thresher.data.table import write_table
from thresher.errors import ConfigError
from thresher.results.decided import DecidedRun, rank_by
from thresher.results.output import keep_backup, refuse_overwriting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaned:
    """What was written: rows kept (relabelled ones too), relabelled and dropped, and how many had a planted error.

    ``formulas`` counts the cells of a csv or tsv file that a spreadsheet would take, or without a guard before them
    would have taken, for formulas. ``backup`` is where the file went that was written over, if it was an input.
    ``decided`` is how many rows people decided about.
    """

    output: Path
    kept: int
    relabelled: int
    dropped: int
    planted: int
    formulas: int
    backup: Path | None = None
    decided: int = 0


def clean_run(
    folder: Path,
    output: Path,
    drop: float | None = None,
    *,
    relabel: bool = False,
    guard_formulas: bool = False,
    overwrite: bool = False,
    only_decided: bool = False,
) -> Cleaned:
    """Write the training rows of an audit less the ``drop`` share of lowest score (default: what the audit says).

    What people decided about rows (decisions.jsonl in the run's folder) comes first: rows that they keep are kept, rows
    that they drop are dropped, and labels that they mend are mended. What that teaches of the other rows is heard, or
    with ``only_decided`` nothing is done to them.

    With ``relabel``, those of them whose suggested label is more likely right than not get it instead. Rows and columns
    are otherwise the original ones, in their order; only with ``guard_formulas`` do cells of a csv or tsv file that
    look like formulas get a ``'`` before them. What the audit read is written over only with ``overwrite``, and is then
    kept under another name. Raises :class:`RunError` if the training file has changed since the audit or a file of the
    run is damaged, :class:`ConfigError` for a share that is not between 0 and 1, where the audit suggests no labels,
    where formulas are to be guarded in a file of another format, or for an ``output`` that may not be written.
    """
    if guard_formulas and not for_spreadsheets(output):
        raise ConfigError(f"--guard-formulas: {output} is no .csv or .tsv file; only these have cells to guard.")
    run, config, scores, summary = read_finished(folder)
    inputs = (config.train, config.validation, config.test, config.model, config.adapter, config.checkpoints)
    refuse_overwriting("--output", output, () if overwrite else inputs, ", or say --overwrite, which keeps a copy")
    warn_of_changes(run, config)
    if summary.knowledge is not None and summary.knowledge.doubt:
        log.warning(summary.knowledge.doubt)
    if drop is not None and (not 0 <= drop < 1 or only_decided):
        what = "leave it out, or --only-decided" if only_decided else "write a share from 0 up to but not including 1"
        raise ConfigError(f"--drop {drop}: {what}.")
    table = read_audited_rows(run, config, "train")
    if relabel and "suggested" not in scores:
        raise ConfigError(f"--relabel: {folder} suggests no labels; audit rows with classes by --detector auto.")
    decided, action, labels = _act(DecidedRun(run, scores, summary), drop, relabel=relabel, only_decided=only_decided)
    kept, changes, changed = action.kept, action.relabelled, table
    if labels:
        changed = change_labels(table, find_columns(table, config.text_column, config.label_column), labels)
    lost = lost_classes(scores, kept, labels)
    if lost:
        log.warning("No row is left of class %s; look at these rows, or give --drop a smaller share.", ", ".join(lost))
    written = changed.take(kept.tolist())
    safe, formulas = guard_cells(written) if for_spreadsheets(output) else (written, 0)
    backup = keep_backup(output, inputs)
    write_table(safe if guard_formulas else written, output)
    planted = int(scores["planted"].to_numpy().sum()) if "planted" in scores else 0
    return Cleaned(output, len(kept), len(changes), len(action.dropped), planted, formulas, backup, decided)


def _act(
    run: DecidedRun, drop: float | None, *, relabel: bool, only_decided: bool
) -> tuple[int, Action, dict[int, str]]:
    """How many rows somebody decided about, what is done with all rows, and the labels that some get."""
    stands, scores = run.standing(run.log.read()), run.scores
    if only_decided and not stands:
        raise ConfigError(f"--only-decided: nobody has decided about rows of {run.run_dir.path}; review it first.")
    share = run.summary.dropped_rows / len(scores) if drop is None else drop
    if any(one.wrong is not None for one in stands.values()) and not only_decided:
        scores = rank_by(scores, run.lesson(stands))
        share = (scores["probability_wrong"].to_numpy() > 0.5).mean().item() if drop is None else drop
    action = act_on(scores, 0 if only_decided else share, relabel=relabel)
    labels = {int(row): str(scores.loc[row, "suggested"]) for row in action.relabelled if int(row) not in stands}
    labels |= {row: one.label for row, one in stands.items() if one.verdict == "relabel" and one.label is not None}
    dropped = {int(row) for row in action.dropped if int(row) not in stands or stands[int(row)].wrong is None}
    dropped |= {row for row, one in stands.items() if one.verdict == "drop"}
    kept = np.setdiff1d(np.arange(len(scores)), np.array(sorted(dropped), dtype=np.int64))
    return len(stands), Action(kept, np.array(sorted(labels), dtype=np.int64), np.array(sorted(dropped))), labels
