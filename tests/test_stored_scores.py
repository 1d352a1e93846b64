"""Scores apart from verdicts: records and names, the file they are kept in, and the table they are handed out as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.errors import ConfigError
from thresher.extend import AGGREGATIONS, DETECTORS, INFLUENCE
from thresher.model.names import GROUPS
from thresher.scores.names import Configuration, DetectorScore, ScoreName, of_parts, parts, resolve, score_called
from thresher.scores.stored import labelled_scores, read_scores, scores_in, write_scores

K = 0.3
EVERY: list[ScoreName] = [
    *(
        Configuration(influence, group, how, K if function.votes else None)
        for influence in INFLUENCE
        for group in GROUPS
        for how, function in AGGREGATIONS.items()
    ),
    *map(DetectorScore, DETECTORS),
]


def made_by(pairing: Any) -> None:
    """A function from outside."""


made_by.__name__ = "wéighted/all @0.3 [x]\n\u202e"  # which none of ours may be called
ODD: list[ScoreName] = [
    Configuration(made_by.__name__, "all", "mean"),
    Configuration(made_by.__name__, "layers", "vote", 1 / 3),
    Configuration("detector", "all", "rank"),
    DetectorScore("all/mean"),
    DetectorScore("datainf/layers/vote@0.3"),
    DetectorScore(""),
]


def drawn(names: list[ScoreName], rows: int = 7) -> dict[ScoreName, Any]:
    values = np.random.default_rng(0).normal(size=(len(names), rows))
    return dict(zip(names, values, strict=True))


def test_every_registered_score_is_found_by_its_name() -> None:
    assert len({one.name for one in EVERY}) == len(EVERY) > 300
    for one in EVERY:
        assert score_called(one.name) == one
        assert of_parts(parts(one)) == one
    for one in EVERY[:: len(EVERY) // 40]:
        assert resolve(one.name, EVERY, 0.1) is one


def test_a_score_of_any_name_is_kept_and_found_where_it_is_there(tmp_path: Path) -> None:
    scores = drawn([*EVERY, *ODD])
    write_scores(tmp_path / "scores.parquet", scores, {"row": np.arange(7)})
    assert scores_in(tmp_path / "scores.parquet") == list(scores)
    found = read_scores(tmp_path / "scores.parquet")
    assert list(found) == list(scores)
    for one, values in scores.items():
        np.testing.assert_array_equal(found[one], values)
    for one in ODD:
        assert resolve(one.name, list(found), 0.1) == one


@given(
    influence=st.text(),
    group=st.text(),
    how=st.text(),
    k=st.one_of(st.none(), st.floats(1e-9, 1.0)),
    detector=st.text(),
)
@settings(deadline=None, max_examples=50)
def test_a_record_is_what_it_was_whatever_it_is_called(
    influence: str, group: str, how: str, k: float | None, detector: str
) -> None:
    for one in (Configuration(influence, group, how, k), DetectorScore(detector)):
        assert of_parts(parts(one)) == one


def test_what_else_is_said_of_rows_is_no_score(tmp_path: Path) -> None:
    """Also where a column of it is called as a score might be."""
    file, scores = tmp_path / "scores.parquet", drawn([DetectorScore("loss"), Configuration("tracin", "WE", "mean")])
    about = {"row": np.arange(7), "canary": np.arange(7) == 2, "a/b": np.zeros(7)}
    write_scores(file, scores, about)
    assert list(read_scores(file)) == list(scores)
    plain = pd.read_parquet(file)  # as other programs see it
    assert list(plain) == ["row", "canary", "a/b", "detector/loss", "tracin/WE/mean"]
    np.testing.assert_array_equal(plain["detector/loss"], scores[DetectorScore("loss")])


def test_two_scores_that_people_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    alike = drawn([Configuration("a", "b/c", "mean"), Configuration("a/b", "c", "mean")])
    with pytest.raises(ConfigError, match="There are 2 scores called 'a/b/c/mean'"):
        write_scores(tmp_path / "scores.parquet", alike, {})
    assert not list(tmp_path.iterdir())


def test_the_table_is_chosen_from_by_what_scores_are_made_of() -> None:
    scores = drawn(EVERY)
    table = labelled_scores(scores)
    assert table.dims == ("row", "score") and table.shape == (7, len(EVERY))
    of_datainf = table[:, ((table.influence == "datainf") & (table.group == "layers")).values]
    wanted = [one for one in EVERY if isinstance(one, Configuration) and one.influence == "datainf"]
    wanted = [one for one in wanted if one.group == "layers"]
    assert list(of_datainf["score"].values) == [one.name for one in wanted]
    np.testing.assert_array_equal(of_datainf.values.T, [scores[one] for one in wanted])
    voted = table[:, (table.k == K).values]
    assert set(voted["aggregation"].values) == {"vote"} and set(voted["kind"].values) == {"influence"}
    others = table[:, (table.kind == "detector").values].to_pandas()
    assert list(others) == [DetectorScore(name).name for name in DETECTORS]
    assert set(table["detector"].values) - {""} == set(DETECTORS)
