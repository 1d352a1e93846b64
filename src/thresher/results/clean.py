"""The decision: the user's own file, in its order, less the rows of lowest score, or with their labels mended."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from thresher.auditing.run import read_audited_rows, read_finished, warn_of_changes
from thresher.calibration.act import act_on
from thresher.calibration.repair import lost_classes
from thresher.data.examples import change_labels, find_columns
from thresher.data.formulas import for_spreadsheets, guard_cells
from thresher.data.table import write_table
from thresher.errors import ConfigError
from thresher.results.output import keep_backup, refuse_overwriting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cleaned:
    """What was written: rows kept (relabelled ones too), relabelled and dropped, and how many had a planted error.

    ``formulas`` counts the cells of a csv or tsv file that a spreadsheet would take, or without a guard before them
    would have taken, for formulas. ``backup`` is where the file went that was written over, if it was an input.
    """

    output: Path
    kept: int
    relabelled: int
    dropped: int
    planted: int
    formulas: int
    backup: Path | None = None


def clean_run(
    folder: Path,
    output: Path,
    drop: float | None = None,
    *,
    relabel: bool = False,
    guard_formulas: bool = False,
    overwrite: bool = False,
) -> Cleaned:
    """Write the training rows of an audit less the ``drop`` share of lowest score (default: what the audit says).

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
    share = summary.dropped_rows / len(scores) if drop is None else drop
    if not 0 <= share < 1:
        raise ConfigError(f"--drop {share}: write the share of rows to drop, from 0 up to but not including 1.")
    table = read_audited_rows(run, config, "train")
    if relabel and "suggested" not in scores:
        raise ConfigError(f"--relabel: {folder} suggests no labels; audit rows with classes by --detector auto.")
    action, changed = act_on(scores, share, relabel=relabel), table
    kept, changes = action.kept, action.relabelled
    if relabel:
        columns = find_columns(table, config.text_column, config.label_column)
        changed = change_labels(table, columns, {int(row): str(scores.loc[row, "suggested"]) for row in changes})
    lost = lost_classes(scores, kept, changes)
    if lost:
        log.warning("No row is left of class %s; look at these rows, or give --drop a smaller share.", ", ".join(lost))
    written = changed.take(kept.tolist())
    safe, formulas = guard_cells(written) if for_spreadsheets(output) else (written, 0)
    backup = keep_backup(output, inputs)
    write_table(safe if guard_formulas else written, output)
    planted = int(scores["planted"].to_numpy().sum()) if "planted" in scores else 0
    return Cleaned(output, len(kept), len(changes), len(action.dropped), planted, formulas, backup)
