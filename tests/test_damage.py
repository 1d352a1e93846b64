"""A run of which a file is damaged never gives other numbers without a word, and never a traceback."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import thresher
from audits import Audits
from thresher.checksums import keep_checksums
from thresher.errors import DamagedError, RunError, ThresherError
from thresher.files import files_in, read_json, remove, write_json
from thresher.locks import hold

AUDITS = Audits(
    rows={"train": 40, "validation": 10, "test": 8},
    asked={
        "methods": ("tracin", "datainf"),
        "modules": "lora_B|classifier",
        "epochs": 1,
        "learning_rate": 3e-3,
        "detector": "auto",
        "canaries": 0.1,
        "plant": 0.1,
        "keep_checkpoints": True,
    },
)


def flip(file: Path) -> None:
    """Turn one bit round, in the middle, where headers are not."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


WAYS: dict[str, Callable[[Path], None]] = {"flipped": flip, "halved": halve, "deleted": Path.unlink}


def explained(run: Path, row: int) -> Any:
    found = thresher.explain(run, row)
    return found.ranks.to_dict(), found.about, found.given, found.hurts, found.helps, found.rank


def cleaned(run: Path) -> bytes:
    target = run.parent / "cleaned.jsonl"
    thresher.clean_run(run, target)
    return target.read_bytes()


def audited(run: Path, options: dict[str, Any]) -> Any:
    thresher.audit(options | {"output": str(run)})
    return {name: (run / name).read_bytes() for name in ("scores.parquet", "all_scores.parquet", "drawn.json")}


def opened(run: Path) -> Any:
    result = thresher.open(run)
    tensor, cancellation = result.tensor.load().to_dict(), result.cancellation.to_dict()
    return repr((result.scores.to_dict(), result.all_scores.to_dict(), tensor, cancellation, result.summary.suspicious))


USES: dict[str, Callable[[Path, dict[str, Any]], Any]] = {
    "explain": lambda run, _: repr([explained(run, row) for row in (0, 7)]),
    "clean": lambda run, _: cleaned(run),
    "audit": audited,
    "open": lambda run, _: opened(run),
}


def outcome(use: str, run: Path, options: dict[str, Any]) -> Any:
    """What a use comes to, or the sentence by which it is refused; anything else that is raised is a fault."""
    try:
        return USES[use](run, options)
    except ThresherError as error:
        assert "\n" not in str(error) and str(run) in str(error)
        return error


@pytest.fixture(scope="module")
def expected(finished: thresher.AuditResult, place: Path) -> dict[str, Any]:
    """What the uses of the whole run come to."""
    return {use: outcome(use, finished.folder, AUDITS.options(place, finished.folder)) for use in USES}


# One file of each kind that a stage leaves, and of each the way that is hardest to notice there.
SAMPLE = [
    ("scores.parquet", "flipped"),
    ("features.safetensors", "flipped"),
    ("canaries.safetensors", "halved"),
    ("drawn.json", "deleted"),
    ("influence.zarr/correct/c/0", "deleted"),
    ("influence.zarr/datainf/c/3/0/0", "flipped"),
    ("rounds/1/influence.zarr/tracin/c/0/0/0", "deleted"),
    ("rounds/1/predictions.safetensors", "flipped"),
    ("training/said/0.safetensors", "deleted"),
    ("rounds/1/training/state.safetensors", "flipped"),
    ("inputs.json", "halved"),
    ("config.yaml", "flipped"),
    ("checksums.txt", "deleted"),
]
CANNOT_BE_MADE = ("inputs.json", "config.yaml", "checksums.txt")


@pytest.mark.parametrize(("name", "way"), SAMPLE)
def test_a_damaged_file_is_noticed_and_made_again(
    finished: thresher.AuditResult,
    expected: dict[str, Any],
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    way: str,
) -> None:
    use_damaged(finished.folder, tmp_path / "run", name, way, expected, AUDITS.options(place, tmp_path / "run"), caplog)


@pytest.mark.slow
def test_every_file_that_is_damaged_is_noticed_and_made_again(
    finished: thresher.AuditResult,
    expected: dict[str, Any],
    place: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Few of the tensor's; with THRESHER_EVERY_FILE set, all of them, which takes a quarter of an hour."""
    names = [file.relative_to(finished.folder).as_posix() for file in files_in(finished.folder)]
    few = [name for name in names if "zarr" not in name or name.endswith(("datainf/c/9/0/0", "zarr/zarr.json"))]
    for name in names if "THRESHER_EVERY_FILE" in os.environ else few:
        for way in WAYS:
            options = AUDITS.options(place, tmp_path / "run")
            use_damaged(finished.folder, tmp_path / "run", name, way, expected, options, caplog)


def use_damaged(
    run: Path, copy: Path, name: str, way: str, expected: dict[str, Any], options: dict[str, Any], told: Any
) -> None:
    """Damage a file of a copy, and put it to every use: first those that read it, then the audit that goes on."""
    shutil.copytree(run, copy)
    WAYS[way](copy / name)
    for use in ("explain", "clean", "open"):
        came = outcome(use, copy, options)
        assert isinstance(came, ThresherError) or came == expected[use], f"{use} after {name} was {way}"
    told.clear()
    again = outcome("audit", copy, options)
    if isinstance(again, ThresherError):
        assert name in CANNOT_BE_MADE and "begin anew with another --output" in str(again), f"{name} {way}: {again}"
    else:
        assert again == expected["audit"], f"audit after {name} was {way}"
        assert name == "checksums.txt" or any(str(copy) in record.getMessage() for record in told.records)
        for use in ("explain", "clean", "open"):
            assert outcome(use, copy, options) == expected[use], f"{use} after {name} was {way}, and made again"
    shutil.rmtree(copy)


@pytest.mark.parametrize("change", [{}, {"quick": True}, {"adapter": "model"}])
def test_every_file_of_a_run_is_in_its_list_as_sha256sum_would_have_it(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    run = finished.folder
    if change:
        change = {name: str(run / value) if name == "adapter" else value for name, value in change.items()}
        run = thresher.audit(AUDITS.options(place, tmp_path / "run", **change)).folder
    listed: dict[str, set[str]] = {}
    for line in (run / "checksums.txt").read_text().splitlines():
        digest, name = line.split("  ", 1)
        listed.setdefault(name, set()).add(digest)
    files = [file for file in files_in(run) if file.name != "checksums.txt"]
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() in listed[file.relative_to(run).as_posix()], file


def test_a_run_says_that_it_goes_on_with_other_threads(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        audited(copy, AUDITS.options(place, copy))
    finally:
        torch.set_num_threads(before)
    assert f"was begun with {before} threads and goes on with {before + 1}" in caplog.text


HOLDER = """
import sys, time
from pathlib import Path
from thresher.locks import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_who_is_there_and_a_killed_one_is_not_in_the_way(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(finished.folder, tmp_path / "run")
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(copy)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RunError) as told:
            thresher.audit(AUDITS.options(place, copy))
        assert f"{copy}: process {holder.pid} on {socket.gethostname()} (since " in str(told.value)
        with pytest.raises(RunError, match=f"process {holder.pid}"), hold(copy, shared=True):
            pass
    finally:
        holder.kill()
        holder.wait()
    audited(copy, AUDITS.options(place, copy))
    assert not (copy / ".lock").exists()


def test_those_who_share_a_folder_keep_only_others_out(tmp_path: Path) -> None:
    refused_here = pytest.raises(RunError, match="works here")
    with hold(tmp_path, shared=True), hold(tmp_path, shared=True), refused_here, hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_line_cut_off_says_nothing_and_the_next_is_whole(tmp_path: Path) -> None:
    keep_checksums(tmp_path)
    write_json(tmp_path / "a.json", 1)
    with (tmp_path / "checksums.txt").open("a") as stream:
        stream.write("0123abc  b.js")
    write_json(tmp_path / "b.json", 2)
    assert read_json(tmp_path / "a.json") == 1 and read_json(tmp_path / "b.json") == 2
    (tmp_path / "b.json").write_text("3\n")
    with pytest.raises(DamagedError, match=r"b\.json: is damaged"):
        read_json(tmp_path / "b.json")
    remove(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("4\n")  # which nobody said anything of
    assert read_json(tmp_path / "b.json") == 4


def test_what_killed_processes_left_of_a_file_goes_when_it_is_written(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, foreign = tmp_path / f".a.json.{ended.pid}.part", tmp_path / f".b.json.{ended.pid}.part"
    living = tmp_path / f".a.json.{os.getppid()}.part"
    for file in (left, foreign, living):
        file.write_text("{")
    write_json(tmp_path / "a.json", {})
    assert files_in(tmp_path) == sorted([living, foreign, tmp_path / "a.json"])


def test_a_run_that_keeps_no_tensor_asks_only_what_is_sound_and_makes_its_queries_again(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = AUDITS.options(place, tmp_path / "first", keep="top", reference=16)
    run = thresher.audit(options).folder
    before = {name: (run / name).read_bytes() for name in ("queries.safetensors", "scores.parquet")}
    expected = repr(explained(run, 7))
    run = run.rename(tmp_path / "run")
    assert repr(explained(run, 7)) == expected  # wherever it lies
    kept = thresher.open(run).summary.training.chosen_epoch - 1  # pyright: ignore[reportOptionalMemberAccess]
    for name in (
        "training/state.safetensors",
        f"training/kept/{kept}.safetensors",
        "canaries.safetensors",
        "drawn.json",
    ):
        (run / name).rename(tmp_path / "aside")
        with pytest.raises(RunError, match="is gone"):
            thresher.explain(run, 7)
        (tmp_path / "aside").rename(run / name)
    flip(run / "queries.safetensors")
    thresher.audit(options | {"output": str(run)})
    assert "queries.safetensors: is damaged or gone, and is made again" in caplog.text
    assert not list(run.rglob("gradients"))
    assert {name: (run / name).read_bytes() for name in before} == before
