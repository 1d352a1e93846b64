"""A disk that is full at any write: one sentence, and what is tried again goes on to the same bytes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import thresher
from audits import Audits, flags
from thresher.auditing.cost import disk_bytes
from thresher.auditing.prepare import prepare
from thresher.errors import RunError
from thresher.files import files_in

AUDITS = Audits(
    rows={"train": 30, "validation": 8, "test": 8},
    asked={"modules": "classifier", "epochs": 2, "batch_size": 16, "detector": "auto", "canaries": 0.1},
    finished={"retrain": True, "plant": 0.2},
)
SAME = ("scores.parquet", "all_scores.parquet", "rounds/1/candidates.parquet", "model/adapter_model.safetensors")


class Filling:
    """Lets ``left`` files take their places, and then says at each that the disk is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.places = 0, list[str]()
        replace = Path.replace

        def filled(source: Path, target: Any) -> Path:
            self.left -= 1
            if self.left < 0:
                self.places.append(str(target))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return replace(source, target)

        monkeypatch.setattr(Path, "replace", filled)


@pytest.mark.parametrize(("first", "more"), [(2, 9), pytest.param(0, 1, marks=pytest.mark.slow)])
def test_a_disk_that_is_full_again_and_again_stops_an_audit_with_a_sentence_and_changes_nothing(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int, more: int
) -> None:
    """Every try writes a few files more than the one before, for some things take several to be done."""
    filling, tries = Filling(monkeypatch), 0
    options = AUDITS.options(place, tmp_path / "run", **AUDITS.finished)
    while not (tmp_path / "run/summary.json").exists():
        filling.left, tries = first + more * tries, tries + 1
        assert tries < 200
        try:
            thresher.audit(options)
        except RunError as error:
            assert str(error).endswith("(No space left on device); make room there and run the same command again.")
    assert tries > 5
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert len(set(filling.places)) > 5
    assert not [file for file in files_in(tmp_path) if file.suffix in (".part", ".partial")]


# No file may grow beyond the first argument: the system itself refuses, and every library says so in its own way.
LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


@pytest.mark.parametrize(
    "largest", ["features.safetensors", pytest.param("training/state.safetensors", marks=pytest.mark.slow)]
)
def test_what_the_system_refuses_is_one_sentence_and_goes_on(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, largest: str
) -> None:
    given = flags(AUDITS.options(place, tmp_path / "run", **AUDITS.finished))
    limit = str((finished.folder / largest).stat().st_size - 1)
    command = [sys.executable, "-c", LIMITED + "from thresher.cli import main; main()", limit, "audit", *given]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "500"})
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    [told] = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert "cannot be written" in told and told.endswith("make room there and run the same command again.")
    thresher.audit(AUDITS.options(place, tmp_path / "run", **AUDITS.finished))
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (finished.folder / name).read_bytes(), name


WRITERS = """
import os
from pathlib import Path
import numpy as np, torch
from thresher.data.table import Table, write_table
from thresher.errors import RunError
from thresher.files import write_json, written_folder
from thresher.influences.tensor import TensorFile, make_frame
from thresher.model.names import ModuleName
from thresher.scores.names import DetectorScore
from thresher.scores.stored import write_scores
from thresher.tensors import write_tensors

def folder(target):
    with written_folder(target) as temporary:
        (temporary / "a").write_bytes(noise.tobytes())

os.chdir(sys.argv[1])
noise = np.random.default_rng(0).normal(size=10_000)
words = Table("t", [{"text": str(value)} for value in noise], ("text",))
frame = make_frame([ModuleName(f"m{i}", "layer", i, "q", "w", "1", 4) for i in range(2)], np.ones(9, bool), 9)
large = make_frame([ModuleName("m", "layer", 0, "q", "w", "1", 4)], np.ones(50, bool), 50)
tensor = TensorFile(Path("a.zarr"))
tries = {
    "json": lambda: write_json(Path("a.json"), noise.tolist()),
    "tensors": lambda: write_tensors(Path("a.safetensors"), {"a": torch.from_numpy(noise)}),
    "scores": lambda: write_scores(Path("a.parquet"), {DetectorScore("loss"): noise}, {"row": np.arange(len(noise))}),
    **{form: lambda form=form: write_table(words, Path(f"b.{form}")) for form in ("jsonl", "csv.gz", "parquet")},
    "folder": lambda: folder(Path("folder")),
    "chunk": lambda: (tensor.create(large, ["tracin"]), tensor.write(0, {"tracin": noise[:2500].reshape(50, 50)})),
}
for name, attempt in tries.items():
    try:
        attempt()
        print(name, "was written")
    except RunError as error:
        if not str(error).endswith("make room there and run the same command again."):
            print(name, error)
print(sorted(path.name for path in Path().iterdir() if path.suffix != ".zarr"))
"""


def test_every_kind_of_file_is_refused_in_the_same_words_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED + WRITERS, "6000", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("[]\n", 0), ended.stderr


def test_the_plan_counts_no_less_than_what_is_written(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(finished.summary.config)
    large = ("*.safetensors", "influence.zarr/*/c/*/*/*")
    written = sum(file.stat().st_size for pattern in large for file in finished.folder.rglob(pattern))
    headers = 1000 * len(list(finished.folder.rglob("*.safetensors")))
    assert written - headers < disk_bytes(job) < 20 * written
    monkeypatch.setattr("shutil.disk_usage", lambda _: Nothing)
    with pytest.raises(RunError, match=r"the audit takes up to [\d.]+ (KiB|MiB) of disk and 0 bytes are free"):
        thresher.audit(AUDITS.options(place, tmp_path / "run", **AUDITS.finished))


class Nothing:
    """A disk without room."""

    free = 0
