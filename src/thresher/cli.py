"""The commands. Each is a few lines over one function; its flags are the fields of one configuration."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.markup import escape
from thresher_study.flags import StudyFlags, WorkersConfig

from thresher.config import AuditConfig, DemoConfig, Section, make_config
from thresher.errors import ThresherError, trace
from thresher.terminal import open_console, show_warnings

app = typer.Typer(
    help="Find the training rows that hurt a fine-tuned language model. Larger score = helpful, lower = detrimental.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]


def flags(config: type[Section]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag a field of ``config``, after its own parameters.

    The command receives the flags that were given as keyword arguments. What they hold is checked by ``config``, so
    that a flag, a YAML key and a Python argument are refused in the same words.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        fields = [_flag(name, field) for name, field in config.model_fields.items()]

        def called(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if value not in (None, [])})

        called.__signature__ = inspect.Signature([*own, *fields])  # pyright: ignore[reportFunctionMemberAccess]
        called.__annotations__ = {p.name: p.annotation for p in [*own, *fields]}
        called.__doc__, called.__name__ = command.__doc__, command.__name__
        return called

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    words = name.replace("_", "-")
    about: Any = field.annotation
    switch, several = about in (bool, bool | None), about == tuple[str, ...]
    default = field.default
    shown = "" if field.is_required() or default in (None, ()) else default
    option = typer.Option(
        f"--{words}/--no-{words}" if switch else f"--{words}",
        help=escape((field.description or "") + (" [required]" if field.is_required() else "")),  # typer reads markup
        show_default=" ".join(shown) if isinstance(shown, tuple) else str(shown) or False,
        metavar=None if switch else "TEXT" if several else "VALUE",
    )
    kind: Any = bool | None if switch else list[str] | None if several else str | None
    # No default of its own: what is not given must not override a YAML file.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option])


@app.command()
@flags(AuditConfig)
def audit(
    *,
    config: Annotated[Path | None, typer.Argument(help="YAML file of options; flags override it.")] = None,
    dry_run: DryRun = False,
    **options: Any,
) -> None:
    """Rank the rows of a training set from most to least detrimental to a model fine-tuned on it."""
    _audit(make_config(AuditConfig, options, config), dry_run=dry_run)


@app.command()
@flags(DemoConfig)
def demo(*, dry_run: DryRun = False, **options: Any) -> None:
    """Audit critics' quotes with planted label errors, with a packaged model: no hub, a few minutes."""
    from thresher.demo import demo_audit

    _audit(demo_audit(make_config(DemoConfig, options)), dry_run=dry_run)


@app.command()
def clean(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished audit.")],
    output: Annotated[
        Path, typer.Option(help="Where to: a .jsonl, .json, .csv, .tsv (or these with .gz) or .parquet file.")
    ],
    drop: Annotated[
        float | None, typer.Option(help="Share of the rows to drop, lowest scores first; by default as the audit says.")
    ] = None,
    relabel: Annotated[
        bool, typer.Option("--relabel", help="Mend labels instead, where the suggested one is more likely right.")
    ] = False,
    guard_formulas: Annotated[
        bool,
        typer.Option("--guard-formulas", help="Put ' before cells that a spreadsheet would take for formulas."),
    ] = False,
) -> None:
    """Write the training rows of an audit, as they were, less the ones that hurt most, or with their labels mended."""
    from thresher.results.clean import clean_run as clean_rows

    cleaned = clean_rows(run, output, drop, relabel=relabel, guard_formulas=guard_formulas)
    console = open_console()
    mended = f", {cleaned.relabelled:,} of them with another label" * relabel
    console.print(f"{cleaned.output}: {cleaned.kept:,} rows kept{mended}, {cleaned.dropped:,} dropped.")
    if cleaned.formulas:
        done = "they have ' before them now" if guard_formulas else "--guard-formulas puts ' before each"
        console.print(f"{cleaned.formulas:,} cells look like formulas to a spreadsheet; {done}.")
    if cleaned.planted:
        console.print("The errors that the audit planted are not in this file: it has the rows as they were given.")


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished audit.")],
    row: Annotated[list[int], typer.Option(help="Training row, counted from 0; may be given several times.")],
    method: Annotated[list[str] | None, typer.Option(help="Influence function to show; by default all.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="mean, rank or vote; by default the audit's own.")] = None,
    queries: Annotated[int, typer.Option(help="Queries to name that the row hurts, and that it helps.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Draw the layers into a .svg, .png or .pdf file.")] = None,
) -> None:
    """Show where a training row stands at every layer, and which queries it hurts and helps most."""
    from thresher.progress import Shown
    from thresher.report.layer_plot import check_plot, save_plot
    from thresher.report.layers import show_explanation
    from thresher.results.layer_view import explain_rows

    if plot is not None:
        check_plot(plot)
    console = open_console()
    found = explain_rows(run, row, method or (), aggregation, queries, Shown(console))
    for explanation in found:
        console.print()
        show_explanation(console, explanation)
    if plot is not None:
        save_plot(found, plot)
        console.print()
        console.print(f"The plot is in {plot}.")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run directories of audits with planted errors, or studies.")],
    metric: Annotated[
        str, typer.Option(help="ndr30, auc_ndr, auroc, average_precision, precision50; or accuracy, after retraining.")
    ] = "ndr30",
    score: Annotated[
        list[str] | None, typer.Option(help="Score to compare; by default all that the runs share.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="How many to show and test, best mean first; by default 10, or all named.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Score that the others are tested against; by default the best.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the comparison into a .csv, .md or .json file.")] = None,
) -> None:
    """Compare the scores of audits with planted errors, or of studies: which is best, which differ beyond chance."""
    from thresher.report.comparison import check_output, save_comparison, show_comparison
    from thresher.results.compare import compare_runs

    if output is not None:
        check_output(output)
    console = open_console()
    found = compare_runs(runs, metric, score or (), top, reference)
    show_comparison(console, found)
    if output is not None:
        save_comparison(found, output)
        console.print()
        console.print(f"The comparison is in {output}.")


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
    from thresher_study.console import show_jobs
    from thresher_study.report import write_report
    from thresher_study.run import executor_of, run_study
    from thresher_study.timing import expected

    from thresher.report.study import show_end
    from thresher.study.gather import gather

    where = {name: options.pop(name) for name in WorkersConfig.model_fields if name in options}
    plan = read_study(config, options)
    executor = executor_of(plan, make_config(WorkersConfig, where))
    console = open_console()
    if dry_run:
        show_jobs(console, plan, expected(plan))
        return
    failed = run_study(plan, executor, console)
    write_report(gather(plan), plan.output / "report")
    show_end(console, failed, plan.output / "report" / "report.md")
    if failed:
        raise typer.Exit(1)


@app.command()
def methods() -> None:
    """List the influence functions and the detectors: formula, cost and source."""
    from thresher.report.methods import show_methods

    show_methods(open_console())


def _audit(config: AuditConfig, *, dry_run: bool) -> None:
    from thresher.data.parts import read_parts
    from thresher.model.source import refuse_no_model

    console = open_console()
    console.print(f"Reading rows and model ({config.model}) ...")
    tables = read_parts(config)  # before torch and transformers, which take seconds to import
    refuse_no_model(config.model)
    from thresher.auditing.pipeline import run
    from thresher.auditing.plan import make_plan
    from thresher.auditing.prepare import prepare
    from thresher.progress import Shown
    from thresher.report.console import show_plan, show_result

    job = prepare(config, tables)
    show_plan(console, make_plan(job))
    if not dry_run:
        result = run(job, Shown(console))
        show_result(console, result.summary, str(result.folder))


def main() -> None:
    """Entry point of the ``thresher`` command: user mistakes are one sentence and exit code 2."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    errors = open_console(stderr=True)
    show_warnings(errors)
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except Exception as error:
        said = _mistake(error)
        if said is None:  # a fault of ours: told as Python would, less what a terminal obeys
            for line in trace(error).splitlines():
                errors.print(line, soft_wrap=True)
            sys.exit(1)
        if said:
            errors.print(f"error: {said}", style="red", soft_wrap=True)
        sys.exit(2)


def _mistake(error: Exception) -> str | None:
    """What the user did wrong, "" where typer has shown its help instead; None for a fault that is none of theirs."""
    if isinstance(error, ThresherError):
        return str(error)
    told: Callable[[], str] | None = getattr(error, "format_message", None)  # of typer, about flags
    if told is None:
        return None
    message, context = told().strip(), getattr(error, "ctx", None)
    help_of = f" See '{context.command_path} --help'." if context is not None else ""
    return message and f"{message.rstrip('.')}.{help_of}"
