"""The commands. Each is a few lines over one function; its flags are the fields of one configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import thresher
from thresher.config import AuditConfig, DemoConfig
from thresher.files import json_text
from thresher.flags import DryRun, ShortHelp, flags, run_app
from thresher.options import make_config
from thresher.terminal import open_console, show_errors_only, write_out

app = typer.Typer(
    help="Find the training rows that hurt a fine-tuned language model. Larger score = helpful, lower = detrimental.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        open_console().print(f"thresher {thresher.__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version and stop.", callback=_version, is_eager=True)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show errors, and where the results are; nothing else.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Write the result as JSON to standard output, all else to standard error.")
]


@app.callback()
def start(*, version: Version = False) -> None:  # its flag is all there is to it; the help is the application's
    pass


@app.command(cls=ShortHelp)
@flags(AuditConfig)
def audit(
    *,
    config: Annotated[Path | None, typer.Argument(help="YAML file of options; flags override it.")] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    **options: Any,
) -> None:
    """Rank the rows of a training set from most to least detrimental to a model fine-tuned on it."""
    _audit(lambda: make_config(AuditConfig, options, config), dry_run=dry_run, quiet=quiet, as_json=as_json)


@app.command()
@flags(DemoConfig)
def demo(*, dry_run: DryRun = False, quiet: Quiet = False, as_json: AsJson = False, **options: Any) -> None:
    """Audit critics' quotes with planted label errors, with a packaged model: no hub, a few minutes."""
    config = make_config(DemoConfig, options)

    def prepared() -> AuditConfig:
        from thresher.demo import demo_audit

        return demo_audit(config)

    _audit(prepared, dry_run=dry_run, quiet=quiet, as_json=as_json)


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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Allow --output to be a file that the audit read; a copy is kept.")
    ] = False,
    only_decided: Annotated[
        bool, typer.Option("--only-decided", help="Do what was decided in `thresher review`, and nothing else.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the training rows of an audit, as they were, less the ones that hurt most, or with their labels mended."""
    from thresher.results.clean import clean_run

    cleaned = clean_run(
        run,
        output,
        drop,
        relabel=relabel,
        guard_formulas=guard_formulas,
        overwrite=overwrite,
        only_decided=only_decided,
    )
    console = open_console(stderr=as_json)
    mended = f", {cleaned.relabelled:,} of them with another label" * bool(relabel or cleaned.relabelled)
    console.print(f"{cleaned.output}: {cleaned.kept:,} rows kept{mended}, {cleaned.dropped:,} dropped.")
    if cleaned.decided:
        console.print(f"{cleaned.decided:,} rows were decided about in a review; these decisions came first.")
    if cleaned.backup is not None:
        console.print(f"What {cleaned.output} was before is in {cleaned.backup}.")
    if cleaned.formulas:
        done = "they have ' before them now" if guard_formulas else "--guard-formulas puts ' before each"
        console.print(f"{cleaned.formulas:,} cells look like formulas to a spreadsheet; {done}.")
    if cleaned.planted:
        console.print("The errors that the audit planted are not in this file: it has the rows as they were given.")
    paths = {"output": str(output), "backup": cleaned.backup and str(cleaned.backup)}
    _write_json(asdict(cleaned) | paths, wanted=as_json)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished audit.")],
    row: Annotated[list[int], typer.Option(help="Training row, counted from 0; may be given several times.")],
    method: Annotated[list[str] | None, typer.Option(help="Influence function to show; by default all.")] = None,
    aggregation: Annotated[str | None, typer.Option(help="mean, rank or vote; by default the audit's own.")] = None,
    queries: Annotated[int, typer.Option(help="Queries to name that the row hurts, and that it helps.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Draw the layers into a .svg, .png or .pdf file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show where a training row stands at every layer, and which queries it hurts and helps most."""
    from thresher.progress import Shown
    from thresher.report.layer_plot import check_plot, save_plot
    from thresher.report.layers import explanation_json, show_explanation
    from thresher.results.explain import explain_rows
    from thresher.results.output import refuse_overwriting

    if plot is not None:
        check_plot(plot)
        refuse_overwriting("--plot", plot)
    console = open_console(stderr=as_json)
    found = explain_rows(run, row, method or (), aggregation, queries, Shown(console))
    for explanation in found:
        console.print()
        show_explanation(console, explanation)
    if plot is not None:
        save_plot(found, plot)
        console.print()
        console.print(f"The plot is in {plot}.")
    _write_json([explanation_json(explanation) for explanation in found], wanted=as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished audit.")],
    output: Annotated[
        Path | None, typer.Option(help="Where to: an .html file; by default report.html of the run.")
    ] = None,
) -> None:
    """Write what an audit found as one page with pictures: it opens offline, and prints."""
    target = thresher.open(run).report(output)
    open_console().print(f"The report is in {target}.")


@app.command()
def review(
    run: Annotated[Path, typer.Argument(help="Run directory of a finished audit.")],
    who: Annotated[str | None, typer.Option(help="Who decides; by default the user who is logged in.")] = None,
    port: Annotated[int, typer.Option(help="Port of this machine; by default any that is free.", min=0, max=65535)] = 0,
    blind: Annotated[
        bool, typer.Option("--blind", help="Show what the audit thinks of a row only when you have decided about it.")
    ] = False,
    open_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Look at suspicious rows in the browser, and decide: nothing leaves this machine, and each decision teaches."""
    from getpass import getuser

    from thresher.review.serve import serve

    console = open_console()
    console.print(f"Decisions go to {run / 'decisions.jsonl'}, each at once. Ctrl-C ends the review.")
    serve(
        run,
        who or getuser(),
        port,
        blind=blind,
        open_browser=open_browser,
        tell=lambda address: console.print(f"The review is at {address}"),
    )


@app.command()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories of audits with planted errors, or .csv, .parquet tables of outcomes."),
    ],
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
    as_json: AsJson = False,
) -> None:
    """Compare the scores of audits with planted errors: which is best, and which differ beyond chance."""
    from thresher.report.comparison import check_output, comparison_json, save_comparison, show_comparison
    from thresher.results.compare import compare_runs
    from thresher.results.output import refuse_overwriting

    if output is not None:
        check_output(output)
        refuse_overwriting("--output", output, runs)
    console = open_console(stderr=as_json)
    found = compare_runs(runs, metric, score or (), top, reference)
    show_comparison(console, found)
    if output is not None:
        save_comparison(found, output)
        console.print()
        console.print(f"The comparison is in {output}.")
    _write_json(comparison_json(found), wanted=as_json)


@app.command()
def methods() -> None:
    """List the influence functions and the detectors: formula, cost and source."""
    from thresher.report.methods import show_methods

    show_methods(open_console())


def _audit(configured: Callable[[], AuditConfig], *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Run an audit, or only plan it."""
    if quiet:
        show_errors_only()
    config, console = configured(), open_console(stderr=as_json, quiet=quiet)
    from thresher.data.parts import read_parts
    from thresher.model.source import refuse_no_model

    console.print(f"Reading rows and model ({config.model}) ...")
    tables = read_parts(config)  # before torch and transformers, which take seconds to import
    refuse_no_model(config.model)
    from thresher.auditing.pipeline import run
    from thresher.auditing.plan import make_plan
    from thresher.auditing.prepare import prepare
    from thresher.progress import Shown
    from thresher.report.console import show_end, show_plan, show_result
    from thresher.report.html import report_finished

    job = prepare(config, tables)
    if dry_run or not console.quiet:
        plan = make_plan(job)
        show_plan(console, plan)
        if dry_run:
            _write_json(asdict(plan) | {"scores": [one.name for one in plan.scores]}, wanted=as_json)
            return

    result = thresher.open(run(job, Shown(console), report_finished))
    if console.quiet:
        show_end(open_console(stderr=as_json), result.summary, str(result.folder))
    else:
        show_result(console, result.summary, str(result.folder))
    _write_json(result.summary.model_dump(mode="json"), wanted=as_json)


def _write_json(value: Any, *, wanted: bool) -> None:
    """To standard output."""
    if wanted:
        write_out(json_text(value, ascii_only=True))


def main() -> None:
    """Entry point of the ``thresher`` command."""
    run_app(app)
