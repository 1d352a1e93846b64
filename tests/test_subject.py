"""The model and the labels are the user's: what a folder lacks, what names say, and classes that would vanish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import BertConfig

from folders import encoder_folder
from thresher.calibrate.repair import lost_classes
from thresher.data.examples import Columns, find_classes
from thresher.data.table import Table
from thresher.errors import DataError, ModelError
from thresher.model.classes import class_numbers
from thresher.model.source import model_fingerprint, model_folder

COLUMNS = Columns(("text",), "label")


def labelled(*labels: Any) -> Table:
    return Table("rows", [{"text": "a", "label": label} for label in labels], ("text", "label"))


def test_numbers_in_names_are_in_their_order() -> None:
    names = [f"LABEL_{number}" for number in range(12)]
    assert find_classes(labelled(*names * 3), COLUMNS) == tuple(names)
    assert find_classes(labelled(*["b", "a10b", "a9", "a10", "B"] * 3), COLUMNS) == ("B", "a9", "a10", "a10b", "b")


@pytest.mark.parametrize("count", [2, 12])
def test_the_models_own_generic_names_are_its_numbers(count: int) -> None:
    names = [f"LABEL_{number}" for number in range(count)]
    numbers, assumed = class_numbers(BertConfig(num_labels=count), sorted(names), None)
    assert numbers == {name: number for number, name in enumerate(names)} and not assumed


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "<NA>", "null", " nan "])
def test_a_label_that_says_that_it_is_missing_is_missing(label: str) -> None:
    with pytest.raises(DataError, match="rows, row 2: column 'label' has no label"):
        find_classes(labelled("a", "b", label, "a"), COLUMNS)


def test_a_class_may_be_called_none() -> None:
    assert find_classes(labelled(*["favor", "none", "NONE"] * 2), COLUMNS) == ("NONE", "favor", "none")


def test_a_model_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path)
    assert model_folder(str(folder)) == str(folder)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    for file in folder.glob("special_tokens_map.json"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer in this folder"):
        model_folder(str(folder))


@pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.txt", "merges.txt", "spiece.model"])
def test_a_runs_fingerprint_hangs_on_words_and_templates(tmp_path: Path, name: str) -> None:
    folder = encoder_folder(tmp_path)
    before = model_fingerprint(str(folder))
    (folder / name).write_text("one")
    one = model_fingerprint(str(folder))
    (folder / name).write_text("two")
    assert len({before, one, model_fingerprint(str(folder))}) == 3


def test_classes_of_which_no_row_is_left_are_named() -> None:
    scores = pd.DataFrame({"label": ["a", "a", "so", "b", "b"], "suggested": ["b", "b", "a", "so", "a"]})
    none = np.empty(0, np.int64)
    assert lost_classes(scores, np.array([0, 1, 3, 4]), none) == ["'so' (1 of 1 rows)"]
    assert lost_classes(scores, np.array([0, 1, 2, 3, 4]), np.array([2])) == ["'so' (1 of 1 rows)"]
    assert lost_classes(scores, np.array([0, 1, 3, 4]), np.array([3])) == []  # the mended row is one of them
    assert lost_classes(scores, np.arange(5), none) == []
    assert lost_classes(scores.drop(columns="label"), np.array([0]), none) == []
