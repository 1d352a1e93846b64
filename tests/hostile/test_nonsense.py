"""No command accepts nonsense: a sentence and exit code 2, in no time, for every case of a generator."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from audits import Audits
from folders import classifier_folder
from hostile import options, places, rows
from hostile.calling import SLOW, Ended, call
from hostile.cases import NONSENSE, Bench, case
from thresher.__main__ import main
from thresher_study.__main__ import main as study

AUDITS = Audits(
    rows={"train": 48, "validation": 16, "test": 16},
    asked={"modules": "lora_B|classifier", "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "methods": "tracin"},
    finished={"detector": "tracin/layers/mean"},
)
CASES = int(os.environ.get("THRESHER_NONSENSE", "1000"))
"""How many cases the slow part has."""


@pytest.fixture
def bench(finished: object, place: Path, tmp_path: Path) -> Bench:
    if not (place / "classifier").exists():
        classifier_folder(place / "classifier", ["bad", "good"])
    parts = {part: place / f"{part}.jsonl" for part in AUDITS.rows}
    run = place / "finished"
    return Bench(random.Random(), tmp_path / "case", place / "encoder", place / "classifier", run / "model", run, parts)


def attempt(number: int, bench: Bench) -> tuple[str, list[str], Ended]:
    """A case, in a folder that is there for as long."""
    bench.folder.mkdir()
    name, arguments = case(number, lambda rng: replace(bench, rng=rng))
    command = study if arguments[0] == "study" else main
    try:
        return name, arguments, call(command, arguments[1:] if command is study else arguments)
    finally:
        shutil.rmtree(bench.folder)


def failures(numbers: range, bench: Bench) -> dict[str, list[str]]:
    """What was not refused, by how that ended."""
    found: dict[str, list[str]] = {"faults": [], "accepted": [], "hanging": []}
    for number in numbers:
        name, arguments, ended = attempt(number, bench)
        said = f"{number} {name}: {ended.code} {ended.raised or ''} {ended.errors[-300:]!r} {arguments!r:.300}"
        if ended.fault:
            found["faults"].append(said)
        elif not ended.refused:
            found["accepted"].append(said)
        if ended.seconds > SLOW:
            found["hanging"].append(f"{ended.seconds:.0f} s, {said}")
    return {how: cases for how, cases in found.items() if cases}


def test_a_case_of_every_kind_is_refused(bench: Bench) -> None:
    assert {kind.__module__ for kind in NONSENSE.values()} == {one.__name__ for one in (rows, options, places)}
    assert failures(range(len(NONSENSE)), bench) == {}


@pytest.mark.slow
def test_a_thousand_cases_are_refused(bench: Bench) -> None:
    found = failures(range(CASES), bench)
    assert found == {}, Counter({how: len(cases) for how, cases in found.items()})
