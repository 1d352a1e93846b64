"""The model and the labels are the user's: what a folder lacks, what names say, and classes that would vanish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import BertConfig

from folders import classifier_folder, encoder_folder
from thresher.calibration.repair import lost_classes
from thresher.config import AuditConfig, ModelConfig
from thresher.data.examples import Columns, find_classes
from thresher.data.table import Table
from thresher.errors import DataError, ModelError
from thresher.evaluate.knowledge import other_numbering
from thresher.model.classes import class_numbers
from thresher.model.load import load_classifier
from thresher.model.source import model_fingerprint, model_folder
from thresher.tasks.classify import Classify

COLUMNS = Columns(("text",), "label")


def labelled(*labels: Any) -> Table:
    return Table("rows", [{"text": "a", "label": label} for label in labels], ("text", "label"))


def test_numbers_in_names_are_in_their_order() -> None:
    names = [f"LABEL_{number}" for number in range(12)]
    assert find_classes(labelled(*names * 3), COLUMNS) == tuple(names)
    assert find_classes(labelled(*["b", "a10b", "a9", "a10", "B"] * 3), COLUMNS) == ("B", "a9", "a10", "a10b", "b")


def numbered(count: int) -> BertConfig:
    """Settings of a model whose classes have no names."""
    settings: dict[str, Any] = {"num_labels": count}
    return BertConfig(**settings)


@pytest.mark.parametrize("count", [2, 12])
def test_the_models_own_generic_names_are_its_numbers(count: int) -> None:
    names = [f"LABEL_{number}" for number in range(count)]
    found = class_numbers(numbered(count), sorted(names), None)
    assert found.numbers == {name: number for number, name in enumerate(names)} and not found.assumed


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
    scores = pd.DataFrame({"label": ["a", "a", "so", "b", "b"]})
    assert lost_classes(scores, np.array([0, 1, 3, 4]), {}) == ["'so' (1 of 1 rows)"]
    assert lost_classes(scores, np.array([0, 1, 2, 3, 4]), {2: "a"}) == ["'so' (1 of 1 rows)"]
    assert lost_classes(scores, np.array([0, 1, 3, 4]), {3: "so"}) == []  # the mended row is one of them
    assert lost_classes(scores, np.arange(5), {}) == []
    assert lost_classes(scores.drop(columns="label"), np.array([0]), {}) == []


SETTINGS = BertConfig(id2label={0: "Negative", 1: "Neutral", 2: "Positive"})


def test_names_are_matched_whatever_their_case(caplog: pytest.LogCaptureFixture) -> None:
    found = class_numbers(SETTINGS, ("negative", "positive"), None)
    assert found.numbers == {"negative": 0, "Neutral": 1, "positive": 2} and not found.assumed
    assert "'negative' for 'Negative'" in caplog.text
    with pytest.raises(DataError, match="Label 'bad' of the training rows"):
        class_numbers(SETTINGS, ("bad", "positive"), None)
    with pytest.raises(DataError, match="Label 'NEGATIVE'"):  # which of the two is Negative?
        class_numbers(SETTINGS, ("NEGATIVE", "negative"), None)


def test_the_order_of_the_data_set_numbers_a_model_without_names() -> None:
    declared = ("positive", "neutral", "negative")
    found = class_numbers(numbered(3), ("positive", "negative"), None, declared)
    assert found.numbers == {"positive": 0, "neutral": 1, "negative": 2}
    assert "as the data set numbers them" in found.assumed
    named = class_numbers(SETTINGS, declared, None, declared)
    assert named.numbers == {"negative": 0, "neutral": 1, "positive": 2} and not named.assumed


def test_labels_taken_for_numbers_are_said() -> None:
    found = class_numbers(numbered(5), ("1", "2", "3", "4"), None)
    assert found.numbers["1"] == 1 and "numbers that the model counts by" in found.assumed


def test_exchanged_numbers_show_in_the_clean_queries() -> None:
    labels = np.repeat(np.arange(1, 5), 20)
    found = other_numbering(labels - 1, labels, 5)
    assert found is not None
    assert (found.right, found.right_then) == (0, 80)
    assert found.numbers == {1: 0, 2: 1, 3: 2, 4: 3}
    swapped = np.where(labels == 1, 2, np.where(labels == 2, 1, labels))
    found = other_numbering(swapped, labels, 5)
    assert found is not None and (found.right, found.right_then) == (40, 80)


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_only_errs_is_not_suspected(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, 120)
    guesses = rng.integers(0, 4, 120)
    assert other_numbering(guesses, labels, 4) is None
    assert other_numbering(np.zeros(120, np.int64), labels, 4) is None
    assert other_numbering(np.where(rng.random(120) < 0.7, labels, guesses), labels, 4) is None


def test_spellings_of_one_class_are_said(caplog: pytest.LogCaptureFixture) -> None:
    rows = labelled(*["Ham", "ham", "spam"] * 4)
    config = AuditConfig(model="m", train="t", validation="v")
    Classify.read({"train": rows, "query": rows}, config)
    assert "'Ham' and 'ham' are classes of their own" in caplog.text
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert find_classes(labelled(composed, apart, "tea"), COLUMNS) == (composed, "tea")


def test_the_parts_of_a_data_set_share_its_names() -> None:
    def numbered(names: tuple[str, ...]) -> Table:
        rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
        return Table("rows", rows, ("text", "label"), class_names={"label": names} if names else {})

    config = AuditConfig(model="m", train="t", validation="v")
    task = Classify.read({"train": numbered(("no", "yes")), "query": numbered(("yes", "no"))}, config)
    assert task.classes == ("no", "yes")
    assert task.examples["query"].labels.tolist() == [1, 0]
    borrowed = Classify.read({"train": numbered(("no", "yes")), "query": numbered(())}, config)
    assert borrowed.examples["query"].labels.tolist() == [0, 1]


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", None])
def test_another_kind_of_model_says_what_loss_is_used(
    tmp_path: Path, problem: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = classifier_folder(tmp_path / "model", ["bad", "good"])
    settings = json.loads((folder / "config.json").read_text()) | {"problem_type": problem}
    (folder / "config.json").write_text(json.dumps(settings))
    load_classifier(ModelConfig(model=str(folder), device="cpu"), ("bad", "good"), 0)
    assert ("is audited here by the cross-entropy of one class a row" in caplog.text) == (problem is not None)
