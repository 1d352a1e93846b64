"""The command ``thresher-study``: a file of models, tasks and seeds in, tables and figures out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from thresher.flags import DryRun, flags, run_app
from thresher.options import make_config
from thresher.terminal import open_console
from thresher_study.flags import StudyFlags, WorkersConfig

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@flags(StudyFlags)
def study(
    *,
    config: Annotated[Path, typer.Argument(help="YAML file: models, tasks, seeds, options of the audits.")],
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Rerun the paper's experiment: audits with planted errors, retraining, tables and figures."""
    from thresher_study.config import read_study
    from thresher_study.console import show_end, show_jobs
    from thresher_study.gather import gather
    from thresher_study.report import check_figures, write_report
    from thresher_study.run import executor_of, run_study
    from thresher_study.timing import expected

    where = {name: options.pop(name) for name in WorkersConfig.model_fields if name in options}
    plan = read_study(config, options)
    executor = executor_of(plan, make_config(WorkersConfig, where))
    console = open_console()
    if dry_run:
        show_jobs(console, plan, expected(plan))
        return
    check_figures()
    failed = run_study(plan, executor, console)
    write_report(gather(plan), plan.output / "report")
    show_end(console, failed, plan.output / "report" / "report.md")
    if failed:
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the ``thresher-study`` command."""
    run_app(app)
