"""Every write of a whole audit may fail: a sentence, nothing half written, and in the end the same bytes."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

import thresher
from audits import Audits
from thresher.errors import RunError
from thresher.files import files_in

AUDITS = Audits(
    rows={"train": 30, "validation": 8, "test": 8},
    asked={"modules": "classifier", "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "detector": "auto"},
    finished={"retrain": True, "plant": 0.2, "canaries": 0.1},
)
SAME = ("scores.parquet", "all_scores.parquet", "drawn.json", "rounds/1/candidates.parquet")
WRITES = ("open", "os.mkdir", "os.rename", "os.truncate")


class Failing:
    """Lets ``left`` writes below a folder happen, and then says at each that the disk has a fault.

    Python asks a hook before it opens, makes or renames anything, for whichever library; a hook stays for good, so this
    one looks at ``folder``, which is None where nothing is to fail.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.left = self.seen = 0
        sys.addaudithook(self._ask)

    def _ask(self, event: str, about: tuple[object, ...]) -> None:
        if self.folder is None or event not in WRITES or not isinstance(about[0], (str, bytes, os.PathLike)):
            return
        reads = event == "open" and not int(str(about[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if reads or not Path(os.fsdecode(about[0])).is_relative_to(self.folder):
            return
        self.seen, self.left = self.seen + 1, self.left - 1
        if self.left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), os.fsdecode(about[0]))


FAILING = Failing()


@pytest.mark.parametrize(("first", "more"), [(3, 70), pytest.param(0, 2, marks=pytest.mark.slow)])
def test_a_write_that_fails_is_a_sentence_and_changes_nothing(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, first: int, more: int
) -> None:
    """Every try gets a few writes further than the one before, until the audit is done."""
    run, tries = tmp_path / "run", 0
    options = AUDITS.options(place, run, **AUDITS.finished)
    while not (run / "summary.json").exists():
        FAILING.folder, FAILING.left = run, first + more * tries
        tries += 1
        assert tries < 500
        try:
            thresher.audit(options)
        except RunError as error:
            assert "cannot be written (Input/output error); mend that" in str(error)
        finally:
            FAILING.folder = None
    assert tries > 2 and FAILING.seen > 50
    for name in SAME:
        assert (run / name).read_bytes() == (finished.folder / name).read_bytes(), name
    assert not [file for file in files_in(tmp_path) if file.suffix in (".part", ".partial")]
