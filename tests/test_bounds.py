"""What grows without bounds is refused before the memory is full, and what is large and sound is read as it is."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thresher.data.table import read_table
from thresher.errors import DataError, ThresherError
from thresher.locks import Scratch


def test_a_large_parquet_file_is_read_row_for_row(tmp_path: Path) -> None:
    """Rows come in several batches, with their types and in their order; many may be the same."""
    frame = pd.DataFrame({"text": [f"row {i % 7}" for i in range(5000)], "when": pd.to_datetime(["2020-01-02"] * 5000)})
    frame["place"] = range(5000)
    frame.to_parquet(tmp_path / "rows.parquet", row_group_size=700)
    read = read_table(str(tmp_path / "rows.parquet"))
    assert read.records == frame.to_dict("records")
    assert read.schema == pq.read_schema(tmp_path / "rows.parquet")


def test_a_value_that_cannot_be_read_is_named_by_its_row(tmp_path: Path) -> None:
    texts = [b"good"] * 3000 + [b"\xff"] + [b"bad"] * 10
    odd = pa.array(texts, pa.binary())
    column = pa.StringArray.from_buffers(len(texts), odd.buffers()[1], odd.buffers()[2])
    pq.write_table(pa.table({"text": column}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet, row 3000: a value cannot be read"):
        read_table(str(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("form", ["jsonl.gz", "parquet"])
def test_a_small_file_of_endless_rows_is_refused(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"rows.{form}"
    count = 1_500_000
    if form == "parquet":
        pq.write_table(pa.table({"text": pa.nulls(count, pa.string())}), file)
    else:
        file.write_bytes(gzip.compress(b"\n" * count))
    with pytest.raises(DataError, match=r"has more rows than its .* bytes"):
        read_table(str(file))


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine has free is all that counts: the same file is read where there is more."""
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a", "label": 1}\n' * 1000)
    assert len(read_table(str(file))) == 1000
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    with pytest.raises(DataError, match=r"takes over 0\.0 GiB of memory to read"):
        read_table(str(file))
    file.write_text(f'{{"text": "{"x" * Little.available}", "label": 1}}\n')
    with pytest.raises(DataError, match=r"line 1: is over .* bytes long"):
        read_table(str(file))


class Little:
    """The memory of a small machine."""

    available = 20_000


def test_a_message_that_quotes_without_end_is_cut() -> None:
    said = str(DataError(f"rows.csv: there is no such column; there are {', '.join(map(str, range(10**6)))}; mend it."))
    assert said.startswith("rows.csv: there is no such column") and said.endswith("mend it.") and len(said) < 5000
    assert str(ThresherError("x" * 3000)) == "x" * 3000


KILLED = """
import os, signal
from thresher.locks import Scratch
scratch = Scratch()
(scratch.path / "gradients").write_bytes(b"x")
print(scratch.path, flush=True)
if {kill}:
    os.kill(os.getpid(), signal.SIGKILL)
input()
"""


def test_a_temporary_folder_goes_with_its_process_however_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {"TMPDIR": str(tmp_path)}

    def begin(kill: bool) -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", KILLED.format(kill=kill)]
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | here,
        )
        assert started.stdout is not None
        return started, Path(started.stdout.readline().strip())

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, left = begin(kill=True)
    assert killed.wait() == -signal.SIGKILL and (left / "gradients").exists()
    living, held = begin(kill=False)
    assert not left.exists()
    with Scratch() as scratch:
        assert scratch.path.is_dir() and (held / "gradients").exists()
    assert not scratch.path.exists()
    living.communicate("\n")
    assert list(tmp_path.iterdir()) == []
