"""summary.json: its schema, what is refused, and that reading gives back what was written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from summaries import made_up
from thresher.auditing.summary import results
from thresher.errors import RunError
from thresher.evaluate.detection import METRICS
from thresher.files import read_json, write_json
from thresher.summary import FORMAT, Detected, Summary, read_summary, write_summary


def as_json(summary: Summary) -> Any:
    return json.loads(json.dumps(summary.model_dump(mode="json"), allow_nan=False))


def problems(value: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(Summary.model_json_schema()).iter_errors(value)]


def test_the_schema_takes_an_example_and_nothing_else() -> None:
    value = as_json(made_up())
    assert problems(value) == []
    assert problems(value | {"format": FORMAT + 1}) and problems(value | {"rows": "many"})
    assert problems(value | {"drop": 3}) and problems({name: one for name, one in value.items() if name != "score"})


def test_the_schema_says_what_every_key_is_and_which_sign_a_score_has() -> None:
    schema = Summary.model_json_schema()
    assert [name for name, one in schema["properties"].items() if not one.get("description")] == []
    assert all(one["description"] for one in schema["$defs"].values() if one["title"] != "AuditConfig")
    assert "larger = helpful" in schema["$defs"]["SuspiciousRow"]["properties"]["score"]["description"]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = made_up(suspicious=[], measures={})
    write_summary(tmp_path / "summary.json", found)
    assert read_summary(tmp_path / "summary.json") == found
    assert read_json(tmp_path / "summary.json") == as_json(found)
    assert set(as_json(found)) == set(Summary.model_fields)


def test_another_format_or_no_summary_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file, value = tmp_path / "summary.json", as_json(made_up())
    for found, told in ((FORMAT + 1, f"has format {FORMAT + 1}"), (None, "has no format")):
        write_json(file, {**value, "format": found, "rows": "many"})
        with pytest.raises(RunError, match=f"{told}, and this version of thresher reads format {FORMAT}; begin anew"):
            read_summary(file)
    write_json(file, value | {"rows": "many"})
    with pytest.raises(RunError, match=r"is no summary of an audit \(rows: Input should be a valid integer") as refused:
        read_summary(file)
    assert "\n" not in str(refused.value)


def test_a_row_has_what_its_task_says_of_it() -> None:
    (row,) = made_up().suspicious
    assert row.about["predicted"] == "b" and row.about["text"] == ["one", "other"]
    assert row.hurts[0].about == {"query": 3, "text": ["a query"], "label": "b"}


def test_its_measures_of_detection_are_those_that_are_measured() -> None:
    assert set(Detected.model_fields) == {"score", *METRICS}


def test_results_are_named_by_their_place() -> None:
    found = results(made_up(score="detector/loss"))
    assert {name for name in found if name.startswith("detection/")} == {f"detection/{name}" for name in METRICS}
    assert (found["accuracy/all_rows"], found["accuracy/dropped"]) == (0.8, 0.9)
    assert (found["error_rate/low"], found["seconds/fine-tuning"]) == (0.1, 12.5)
    assert set(results(made_up(auto=None, detection=[], measures={}))) == {"seconds/fine-tuning"}


def test_it_is_short_to_look_at_and_says_what_it_has() -> None:
    assert repr(made_up()) == str(made_up()) and len(repr(made_up())) < 250
    assert "48 rows ranked by auto, 9 to drop, 16 queries" in repr(made_up())
    assert "auto" in repr(made_up()).split("has ")[1] and "auto" not in repr(made_up(auto=None)).split("has ")[1]


def test_importing_it_takes_no_torch() -> None:
    code = (
        "import sys, thresher.summary; sys.exit(bool({'torch', 'pandas', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
