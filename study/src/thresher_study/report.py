"""The study's report: every table and figure of method.md 7 in a folder, and report.md that shows them in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from thresher import SIGN
from thresher.errors import ConfigError
from thresher.files import atomic_write
from thresher_study.figures.agreement import agreement_figure
from thresher_study.figures.curves import curve_figure, curves, decile_figure
from thresher_study.figures.differences import difference_figure
from thresher_study.figures.modules import layer_figure, share_figure
from thresher_study.figures.moves import move_figure
from thresher_study.figures.outcomes import outcome_figure
from thresher_study.figures.style import save
from thresher_study.grid import RUN, grid
from thresher_study.intervals import HOW
from thresher_study.outcomes import OUTCOMES, outcomes
from thresher_study.pieces import Absent, Drawing, Table, markdown
from thresher_study.results import Results
from thresher_study.tables import all_tables

SIGN_LINE = f"Scores: {SIGN}."


def check_figures() -> None:
    """Raise :class:`ConfigError` where matplotlib is missing, without which a study would end in nothing."""
    if find_spec("matplotlib") is None:
        raise ConfigError("The study's figures need matplotlib; pip install thresher-study.")


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write the tables (T1.csv, T1.md, ...), the figures (F1-MODEL.svg, .png, their numbers as F1.csv) and report.md.

    Beside them ``outcomes.csv``, which ``thresher compare`` takes.

    A CSV file begins with a line ``# Scores: ...`` on the sign: ``pandas.read_csv(file, comment="#")``. What these
    runs do not give is named in report.md with the reason. Returns every file written, report.md first. Raises
    :class:`ConfigError` where matplotlib is missing.
    """
    check_figures()
    lines, files = _opening(results), list[Path]()
    for piece in _pieces(results):
        lines += ["", f"## {piece.name} {piece.title}", ""]
        if isinstance(piece, Absent):
            lines.append(f"Not made: {piece.reason}.")
            continue
        new = _write_table(piece, folder) if isinstance(piece, Table) else _write_figures(piece, folder)
        links = ", ".join(f"[{file.name}]({file.name})" for file in new)
        lines += [*_body(piece), "", f"Files: {links}."]
        files += new
    report, table = folder / "report.md", folder / OUTCOMES
    lines += ["", f"What every score came to in every run: [{OUTCOMES}]({OUTCOMES})."]
    _write(report, lines)
    _write(table, [f"# {SIGN_LINE}", outcomes(results).to_csv(index=False).rstrip("\n")])  # with every digit
    return [report, table, *files]


def _pieces(results: Results) -> Iterator[Table | Drawing | Absent]:
    """T1 to T4 and F1 to F8, one after the other, so that only one figure's pictures are in memory."""
    configurations = grid(results)
    yield from all_tables(results, configurations)
    for build in (outcome_figure, difference_figure, layer_figure, share_figure):
        yield build(results, configurations)
    found = curves(results, configurations)
    yield decile_figure(found)
    yield curve_figure(found)
    yield agreement_figure(results, configurations)
    yield move_figure(results, configurations)


def _opening(results: Results) -> list[str]:
    runs = len(results.detection[RUN].drop_duplicates())
    about = f"{runs} runs (model, task, seed) of {', '.join(results.model_names)} on {', '.join(results.task_names)}."
    return ["# Tables and figures of the study", "", f"{about} {SIGN_LINE} {HOW}"]


def _body(piece: Table | Drawing) -> list[str]:
    notes = [f"- {note}" for note in (*piece.notes, SIGN_LINE)]
    if isinstance(piece, Table):
        shown = markdown(piece.shown)
    else:
        alt = f"{piece.name} {piece.title}"
        shown = [f"![{f'{alt}, {of}' if of else alt}]({_stem(piece.name, of)}.png)" for of in piece.figures]
    return [piece.sentence, "", *notes, "", *shown]


def _write_table(table: Table, folder: Path) -> list[Path]:
    shown = folder / f"{table.name}.md"
    _write(shown, [f"# {table.name} {table.title}", "", *_body(table)])
    return [_write_numbers(table, folder), shown]


def _write_figures(drawing: Drawing, folder: Path) -> list[Path]:
    files = [_write_numbers(drawing, folder)]
    for of, figure in drawing.figures.items():
        files += save(figure, folder, _stem(drawing.name, of))
    return files


def _write_numbers(piece: Table | Drawing, folder: Path) -> Path:
    target = folder / f"{piece.name}.csv"
    _write(target, [f"# {SIGN_LINE}", piece.numbers.to_csv(index=False, float_format="%.6g").rstrip("\n")])
    return target


def _write(target: Path, lines: Sequence[str]) -> None:
    with atomic_write(target) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _stem(name: str, of: str) -> str:
    letters = re.sub(r"[^A-Za-z0-9._]+", "-", of).strip("-")
    return f"{name}-{letters}" if letters else name
