"""The commands on rows, labels, names and flags that a terminal would obey: all of it is shown, none of it obeyed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from awkward import EVIL, NAME, SEEN, harmless, obeyed, words
from folders import encoder_folder, reviews, write_rows
from thresher.auditing.run import RunDirectory
from thresher.cli import main
from thresher.config import AuditConfig
from thresher.data.table import read_table
from thresher.errors import RunError
from thresher.lines import plain

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generator[Command]:
    """Calls the command: exit code, output and errors, all of them harmless."""

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["thresher", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, harmless(said.out), harmless(said.err)

    factory = logging.getLogRecordFactory()
    yield called
    logging.setLogRecordFactory(factory)
    logging.captureWarnings(False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit", "--model", "x", "--train", f"{NAME}.jsonl", "--validation", "x"], "there is no such file"),
        (["audit", "--model", NAME, "--train", "x", "--validation", "x", "--epochs", NAME], "--epochs: "),
        (["audit", f"{NAME}.yaml"], "cannot be read"),
        (["audit", f"--{NAME}", "x"], "No such option"),
        (["explain", NAME, "--row", NAME], "Invalid value for '--row'"),
        (["explain", NAME, "--row", "1"], "not a run directory"),
        (["explain", "x", "--row", "1", "--plot", NAME], "name a .svg"),
        (["clean", NAME, "--output", "x.jsonl"], "not a run directory"),
        (["clean", "x", "--output", NAME, "--guard-formulas"], "no .csv or .tsv file"),
        (["compare", NAME, NAME], "is named twice"),
        (["compare", "x", "--output", NAME], "name a .csv"),
        ([NAME], "No such command"),
        (["clean"], "Missing"),
    ],
)
def test_mistakes_are_one_plain_sentence(command: Command, arguments: list[str], said: str) -> None:
    code, output, errors = command(*arguments)
    assert code == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert said in errors
    assert output == "" or output.startswith("Reading rows")


def test_a_fault_is_one_sentence_and_a_report_that_only_its_finder_reads(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError(EVIL)

    monkeypatch.setattr("thresher.results.clean.clean_run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, _, errors = command("clean", tmp_path, "--output", "x.csv")
    assert code == 70
    assert errors.startswith(f"error: LookupError: {SEEN}. This is a fault") and errors.count("\n") == 1
    (report,) = tmp_path.glob("thresher-fault-*.txt")
    assert str(report) in errors and report.stat().st_mode & 0o077 == 0
    told = report.read_text(encoding="utf-8")
    assert "in fail" in told and f"LookupError: {SEEN}" in told
    assert all(f"\n{name} {version(name)}\n" in told for name in ("thresher", "torch", "transformers", "pydantic"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    code, _, errors = command("clean", tmp_path, "--output", "x.csv")
    assert code == 70 and "no report of it could be written (No such file or directory)" in errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "there is not enough memory for this"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "there is not enough memory for this"),
        (PermissionError(13, "Permission denied", "/a/\x1b"), "/a/\\x1b: Permission denied; mend that"),
        (OSError(28, "No space left on device", "x"), "make room there"),
    ],
)
def test_what_the_system_refuses_is_no_fault_of_ours(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, said: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("thresher.results.clean.clean_run", fail)
    code, _, errors = command("clean", tmp_path, "--output", "x.csv")
    assert code == 2 and errors.startswith("error: ") and said in errors


def test_help_shows_what_stands_in_brackets(command: Command) -> None:
    code, output, _ = command("audit", "--help")
    assert code == 0
    assert "[required]" in output and "NAME[:CONFIG[:SPLIT" in output


LABELS = ["bad[/b] :warning:\x1b[2J\nerror: forged", "good[bold]\u202e\x9b31m\x00"]
COLUMN = "la[/b]bel\x1b"
FOLDER = "[/b] :warning: [bold]x\x1b[31m\u202e\nerror: forged"


def awkward(count: int, seed: int) -> list[dict[str, Any]]:
    rows = reviews(count, seed, (LABELS[0], LABELS[1]))
    return [
        {"id": row["id"], "text": f"{row['text']} {EVIL}", COLUMN: row["label"], "note": ["=1+1", "-5"][row["id"] % 2]}
        for row in rows
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name, and whose files' names, rows, labels and columns are all that a terminal would obey."""
    folder = tmp_path_factory.mktemp("plain") / FOLDER
    encoder_folder(folder / f"encoder {FOLDER}")
    write_rows(folder / f"train {FOLDER}.jsonl", awkward(40, 1))
    write_rows(folder / f"clean {FOLDER}.jsonl", awkward(12, 2))
    return folder


def arguments(place: Path) -> list[str]:
    names = {"model": f"encoder {FOLDER}", "train": f"train {FOLDER}.jsonl", "validation": f"clean {FOLDER}.jsonl"}
    files = [part for name, file in names.items() for part in (f"--{name}", str(place / file))]
    numbers = {"plant": 0.2, "epochs": 2, "batch-size": 8, "learning-rate": 1e-2, "detector": "datainf/layers/vote"}
    recipe = [part for name, value in numbers.items() for part in (f"--{name}", str(value))]
    return ["audit", *files, "--label-column", COLUMN, "--output", str(place / "run"), *recipe]


def test_an_audit_of_awkward_rows_is_planned_made_and_gone_on_with(place: Path, command: Command) -> None:
    code, planned, _ = command(*arguments(place), "--dry-run")
    assert code == 0
    classes = ", ".join(f"{plain(label)} = {number}" for number, label in enumerate(LABELS))
    assert classes in words(planned)
    assert words(f"Reading rows and model ({plain(str(place))}/encoder {plain(FOLDER)}) ...") in words(planned)
    code, made, _ = command(*arguments(place))
    assert code == 0
    for shown in (*map(plain, LABELS), SEEN, f"results in {plain(str(place / 'run'))}."):
        assert words(shown) in words(made)
    ended = made[made.index("Ranked") :]
    again = subprocess.run(
        [sys.executable, "-m", "thresher", *arguments(place)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert again.returncode == 0, again.stderr
    assert ended in harmless(again.stdout)
    harmless(again.stderr)
    scores = pd.read_parquet(place / "run/scores.parquet")
    assert set(scores["label"]) == {label.strip() for label in LABELS}
    code, _, errors = command(*arguments(place), "--seed", "3")
    assert (code, errors.count("\n")) == (2, 1)
    assert plain(str(place / "run")) in errors


def test_explanations_and_plots_show_awkward_rows_as_they_are(place: Path, command: Command) -> None:
    command(*arguments(place))
    plot = place / f"{FOLDER}.svg"
    planted = pd.read_parquet(place / "run/scores.parquet").query("planted")["row"]
    rows = [part for row in (0, int(planted.iloc[0])) for part in ("--row", row)]
    code, shown, _ = command("explain", place / "run", *rows, "--plot", plot)
    assert code == 0
    for text in ("Row 0, label", *map(plain, LABELS), SEEN, "A planted error", plain(str(plot))):
        assert words(text) in words(shown)
    ET.parse(plot)  # which holds no character that XML forbids
    assert not obeyed(plot.read_text(encoding="utf-8"))


def test_cleaned_files_keep_every_byte_and_formulas_are_guarded_on_demand(
    place: Path, command: Command, tmp_path: Path
) -> None:
    command(*arguments(place))
    dropped = set(pd.read_parquet(place / "run/scores.parquet").nsmallest(12, "rank")["row"])
    kept = [row for row in awkward(40, 1) if row["id"] not in dropped]
    formulas = sum(row["note"] == "=1+1" for row in kept)
    target = tmp_path / FOLDER / f"{FOLDER}.jsonl"
    code, shown, _ = command("clean", place / "run", "--output", target)
    assert code == 0 and "formulas" not in shown
    assert words(f"{plain(str(target))}: 28 rows kept, 12 dropped.") in words(shown)
    assert [json.loads(line) for line in target.read_bytes().splitlines()] == kept
    as_text = [{name: str(value) for name, value in row.items()} for row in kept]
    for suffix in ("csv", "tsv.gz"):
        file = tmp_path / f"cleaned.{suffix}"
        _, shown, _ = command("clean", place / "run", "--output", file)
        assert read_table(str(file)).records == as_text
        assert f"{formulas} cells look like formulas to a spreadsheet; --guard-formulas puts ' before each." in shown
        _, shown, _ = command("clean", place / "run", "--output", file, "--guard-formulas")
        assert f"{formulas} cells look like formulas to a spreadsheet; they have ' before them now." in shown
        guards = {"=1+1": "'=1+1"}
        assert read_table(str(file)).records == [row | {"note": guards.get(row["note"], "-5")} for row in as_text]


def test_runs_in_awkward_folders_are_compared(place: Path, command: Command) -> None:
    command(*arguments(place))
    folders = [place / f"{FOLDER}{number}" for number in range(2)]
    for folder in folders:
        shutil.copytree(place / "run", folder, dirs_exist_ok=True)
    code, shown, errors = command("compare", *folders, "--top", 2, "--output", place / f"{FOLDER}.md")
    assert code == 0, errors
    assert words(f"The comparison is in {plain(str(place / FOLDER))}.md.") in words(shown)


@pytest.mark.parametrize("name", ["run\udcff", "run\x00"])
def test_an_output_that_weights_cannot_be_saved_in_is_refused_before_the_work(place: Path, name: str) -> None:
    inputs = {"train": "a", "query": "b"}
    config = AuditConfig(model="m", train="t", validation="v", output=place / name)
    with pytest.raises(RunError, match="name another --output"):
        RunDirectory(place / name).open(config, inputs)
    assert not [entry for entry in place.iterdir() if entry.name.startswith("run") and entry.name != "run"]
