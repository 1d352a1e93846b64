"""Where commands may write, what of a model a run hangs on, and files that are the same in every process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import thresher
from audits import Audits, refused
from folders import encoder_folder, reviews, write_rows
from thresher.cli import app
from thresher.errors import ConfigError
from thresher.model.source import model_fingerprint

AUDITS = Audits(
    rows={"train": 24, "validation": 8},
    asked={"modules": "classifier", "epochs": 1, "learning_rate": 1e-3, "detector": "loss", "methods": ("tracin",)},
)


def test_nothing_that_a_command_reads_is_written_over(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    run = finished.folder
    (tmp_path / "link.jsonl").symlink_to(place / "validation.jsonl")
    os.link(place / "train.jsonl", tmp_path / "hard.jsonl")
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    clean = ["clean", str(run), "--output"]
    for target in (
        place / "train.jsonl",
        tmp_path / "link.jsonl",
        tmp_path / "hard.jsonl",
        place / "encoder/config.json",
    ):
        told = refused([*clean, str(target)])
        assert told == (
            f"--output {target}: is read for what would be written over it; name another file, or say --overwrite, "
            "which keeps a copy."
        )
    for command in (
        [*clean, str(run / "scores.parquet")],
        [*clean, str(run / "new.jsonl"), "--overwrite"],
        ["explain", str(run), "--row", "0", "--plot", str(run / "plot.svg")],
        ["compare", str(run), str(place / "other"), "--output", str(run / "summary.json")],
    ):
        assert f"lies in the run in {run}, which is left as it is; name another." in refused(command)
    table = tmp_path / "outcomes.csv"
    table.write_text("task,score,ndr30\na,x,0.1\nb,x,0.2\na,y,0.3\nb,y,0.1\n")
    assert "is read for what would be written over it" in refused(["compare", str(table), "--output", str(table)])
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


def test_an_input_is_written_over_when_asked_for_and_every_copy_is_kept(place: Path, tmp_path: Path) -> None:
    train = Path(write_rows(tmp_path / "train.jsonl", reviews(24, 1)))
    run = thresher.audit(AUDITS.options(place, tmp_path / "run", train=str(train))).folder
    given = train.read_bytes()
    result = CliRunner().invoke(app, ["clean", str(run), "--output", str(train), "--overwrite"])
    assert result.exit_code == 0 and "train.jsonl.1.bak" in "".join(result.output.split())
    assert (tmp_path / "train.jsonl.1.bak").read_bytes() == given
    assert 0 < len(train.read_bytes().splitlines()) < 24
    assert "the rows have changed since the audit" in refused(["clean", str(run), "--output", "x.jsonl"])
    train.write_bytes(given)
    cleaned = thresher.clean_run(run, train, overwrite=True)
    assert cleaned.backup == tmp_path / "train.jsonl.2.bak"
    with pytest.raises(ConfigError, match="--overwrite"):
        train.write_bytes(given)
        thresher.clean_run(run, train)


@pytest.mark.parametrize(
    "name",
    [
        *("model.safetensors", "config.json", "chat_template.jinja", "additional_chat_templates/tool.jinja"),
        *("vocab.txt", "merges.txt", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "spiece.model"),
        *("bpe.codes", "source.spm", "qwen.tiktoken", "tekken.json"),
    ],
)
def test_every_file_that_decides_what_a_model_reads_is_in_its_fingerprint(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("about")
    (tmp_path / name).write_text("a")
    before = model_fingerprint(str(tmp_path))
    (tmp_path / "README.md").write_text("more about")
    assert model_fingerprint(str(tmp_path)) == before
    (tmp_path / name).write_text("b")
    assert model_fingerprint(str(tmp_path)) != before


def _other_queries(place: Path) -> None:
    write_rows(place / "validation.jsonl", reviews(8, 9))


def _other_model(place: Path) -> None:
    settings = json.loads((place / "encoder/tokenizer_config.json").read_text())
    (place / "encoder/tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 32}))


@pytest.mark.parametrize(("change", "told"), [(_other_queries, "the queries in"), (_other_model, "the model in")])
def test_clean_says_where_the_audit_saw_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[Path], None], told: str
) -> None:
    place = AUDITS.make(tmp_path)
    run = thresher.audit(AUDITS.options(place, tmp_path / "run")).folder
    thresher.clean_run(run, tmp_path / "cleaned.jsonl")
    assert "Changed since" not in caplog.text
    cleaned = (tmp_path / "cleaned.jsonl").read_bytes()
    change(place)
    thresher.clean_run(run, tmp_path / "cleaned.jsonl")
    assert f"Changed since the audit in {run}: {told}" in caplog.text
    assert (tmp_path / "cleaned.jsonl").read_bytes() == cleaned


SAVED = """
import sys
from pathlib import Path
from thresher.config import AuditConfig
from thresher.model.load import load_classifier
from thresher.model.lora import save_lora, with_lora
config = AuditConfig(model=sys.argv[1], train="-", validation="-")
save_lora(with_lora(load_classifier(config, ["a", "b"], 0), config, 0), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_an_adapter_is_saved_as_the_same_bytes_whatever_the_order_of_sets(tmp_path: Path) -> None:
    model = encoder_folder(tmp_path / "encoder")
    found: list[dict[str, bytes]] = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        command = [sys.executable, "-c", SAVED, str(model), str(folder)]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed})
        found.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert found[0] == found[1]
    assert "adapter_config.json" in found[0]


# Ctrl-C as soon as the named library is asked for.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, as it is behind a shell's "&"
def watch(event, about):
    if event == "import" and about[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(watch)
from {package}.__main__ import main
main()
"""


# Ctrl-C within a library that makes an error of its own of it.
TAKEN_FOR_ITS_OWN = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
import typer
from thresher.flags import run_app
app = typer.Typer()

@app.command()
def only():
    try:
        os.kill(os.getpid(), {signal})
        while True:
            pass
    except KeyboardInterrupt:
        raise ValueError("could not determine the shape") from None

run_app(app)
"""


def test_ctrl_c_that_a_library_takes_for_an_error_of_its_own_is_ctrl_c() -> None:
    command = [sys.executable, "-c", TAKEN_FOR_ITS_OWN.format(signal=int(signal.SIGINT))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "Stopped. The same command goes on from where it stopped.\n"
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, said)


@pytest.mark.parametrize("package", ["thresher", "thresher_study"])
def test_ctrl_c_while_libraries_are_imported_is_no_traceback(package: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED.format(package=package), "methods"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "Stopped. The same command goes on from where it stopped.\n"
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGINT, said)
