"""An audit from Python: run one, or open a finished one, with its rows and their text, its tensor and its plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.auditing.run import RunDirectory, read_finished
from thresher.checksums import verified
from thresher.config import AuditConfig
from thresher.lines import plain
from thresher.locks import hold
from thresher.options import make_config
from thresher.progress import Progress, Shown, Silent, console_of_call
from thresher.summary import Summary
from thresher.terminal import open_console

# The table is there at once; what takes torch, and that seconds to import, is imported when it is asked for.
if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from thresher.results.explain import Explanation

SHOWN = ("rank", "text", "label", "predicted", "suggested", "probability_wrong", "text_problem", "planted", "score")
"""The columns of :meth:`AuditResult.lowest`, of those that a run has."""


@dataclass(frozen=True, repr=False)
class AuditResult:
    """A finished audit, read from its run directory.

    ``scores`` has the verdicts, one line a training row, in the file's order: ``score`` (larger = helpful), ``rank``
    (1 = most detrimental), what the model says, and the row's ``text``. ``summary`` is summary.json:
    ``result.summary.knowledge``, ``result.summary.dropped_rows`` and so on.
    """

    folder: Path
    scores: pd.DataFrame
    summary: Summary

    @cached_property
    def all_scores(self) -> xr.DataArray:
        """Every score of every row: float64 over ("row", "score"), larger = helpful.

        Scores go by their names, such as ``datainf/layers/vote@0.3`` and ``detector/loss``, and have the coordinates
        ``kind`` ("influence" or "detector"), ``influence``, ``detector``, ``group``, ``aggregation`` and ``k``.
        """
        from thresher.scores.stored import labelled_scores, read_scores

        return labelled_scores(read_scores(RunDirectory(self.folder).all_scores))

    @property
    def tensor(self) -> xr.Dataset:
        """The influence tensor, read from disk as it is used. Raises :class:`RunError` where the run kept none."""
        from thresher.errors import RunError
        from thresher.influences.tensor import TensorFile
        from thresher.results.explain import refuse_look

        refuse_look(self.folder, self.summary.config)
        file = TensorFile(RunDirectory(self.folder).tensor)
        if not file.path.is_dir():
            raise RunError(f"{file.path}: the run kept no influence tensor; audit the rows again with --keep tensor.")
        return file.open()

    @property
    def cancellation(self) -> pd.DataFrame:
        """How much gradients cancel, one line a module (``kind`` "module") and layer group ("group"), by ``name``."""
        import pandas as pd

        return pd.read_parquet(verified(RunDirectory(self.folder).cancellation))

    def lowest(self, count: int = 10) -> pd.DataFrame:
        """The ``count`` most detrimental rows with their text, the most detrimental first; the index is the row."""
        ranked = self.scores.set_index("row").nsmallest(count, "rank")
        return ranked.loc[:, [name for name in SHOWN if name in ranked]]

    def explain(self, row: int, **how: Any) -> Explanation:
        """Where a row stands at every layer, and whom it hurts; ``how`` are the options of :func:`thresher.explain`."""
        from thresher.results.explain import explain

        return explain(self.folder, row, **how)

    def plot_layers(self, rows: Sequence[int] | None = None) -> Figure:
        """How the rank of rows moves over the layers, a panel each; by default of the two most detrimental.

        Raises :class:`ConfigError` where matplotlib is missing, and what :func:`thresher.explain` raises.
        """
        from thresher.report.figures import check_matplotlib
        from thresher.report.layer_plot import layer_figure
        from thresher.results.explain import explain_rows

        check_matplotlib("plot_layers")
        chosen = self.lowest(2).index.tolist() if rows is None else list(rows)
        return layer_figure(explain_rows(self.folder, chosen, (), None, 0, Silent()))

    def plot_ranking(self) -> Figure:
        """How likely each row is wrong, or its score where that was not estimated, by rank; and what is dropped.

        Raises :class:`ConfigError` where matplotlib is missing.
        """
        from thresher.report.figures import check_matplotlib
        from thresher.report.ranking_plot import ranking_figure

        check_matplotlib("plot_ranking")
        return ranking_figure(self.scores, self.summary)

    def report(self, output: str | Path | None = None) -> Path:
        """Write the report anew, with what people have decided since: one page, to look at offline and to print.

        Args:
            output: An .html file; by default the run's own ``report.html``.

        Returns:
            The file.

        Raises:
            ConfigError: Where ``output`` is no .html file, or lies in a run.
            RunError: Where another process works in the run, the disk refuses, or a file is damaged.
        """
        from thresher.report.html import check_report, write_report
        from thresher.results.output import refuse_overwriting

        run_dir = RunDirectory(self.folder)
        if output is None:
            with hold(self.folder):
                write_report(run_dir, self.scores, self.summary, run_dir.report)
            return run_dir.report
        target = Path(output)
        check_report(target)
        refuse_overwriting("--output", target)
        write_report(run_dir, self.scores, self.summary, target)
        return target

    def show(self) -> None:
        """Show what the command shows in the end: on standard output, or in the notebook."""
        from thresher.report.console import show_result

        show_result(open_console(), self.summary, str(self.folder))

    def __repr__(self) -> str:
        return f"AuditResult({self._headline()})"

    def _headline(self) -> str:
        ranked = f"{len(self.scores):,} rows ranked by {self.summary.score}"
        return f"{self.folder}: {ranked}, {self.summary.dropped_rows:,} to drop"

    def _repr_html_(self) -> str:
        shown = self.lowest().map(lambda value: plain(value) if isinstance(value, str) else value)
        return f"<p>{escape(repr(self))}</p>{shown.to_html()}"  # which escapes texts


def audit(
    config: AuditConfig | Mapping[str, Any] | str | Path, *, progress: Progress | bool | None = None
) -> AuditResult:
    """Audit a training set: fine-tune (or take what is fine-tuned), compute influence, rank every row.

    Args:
        config: An :class:`AuditConfig`, a mapping of its fields, or a YAML file of them.
        progress: Whether to show the plan and how far it is, on standard error. None does so where somebody looks: in
            a notebook and on a terminal. A :class:`Progress` is told instead.

    Returns:
        The finished audit, as :func:`thresher.open` opens it again.

    Raises:
        ThresherError: In one sentence, for anything that the user can mend.
    """
    from thresher.auditing.pipeline import run
    from thresher.auditing.plan import make_plan
    from thresher.auditing.prepare import prepare
    from thresher.report.console import show_plan
    from thresher.report.html import report_finished

    if isinstance(config, (str, Path)):
        config = make_config(AuditConfig, {}, Path(config))
    elif not isinstance(config, AuditConfig):
        config = make_config(AuditConfig, dict(config))
    job = prepare(config)
    if progress is None or isinstance(progress, bool):
        console = console_of_call(progress)
        if console is not None:
            show_plan(console, make_plan(job))
        progress = Silent() if console is None else Shown(console)
    return open(run(job, progress, report_finished))


def open(folder: str | Path) -> AuditResult:
    """Open a finished audit again.

    Args:
        folder: Its run directory, the ``output`` that it was given.

    Returns:
        What :func:`thresher.audit` returned.

    Raises:
        RunError: If the folder is no run directory, or the audit is not finished.
    """
    _, _, scores, summary = read_finished(Path(folder))
    return AuditResult(Path(folder), scores, summary)
