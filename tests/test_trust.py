"""What SECURITY.md says of models that somebody else made: no pickle is opened, and no code of theirs runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from folders import encoder_folder
from thresher.config import ModelConfig
from thresher.errors import ModelError
from thresher.model.load import load_classifier

WEIGHTS = "model.safetensors"


class Shout:
    """Unpickled without restraint, it leaves a file."""

    def __init__(self, at: Path) -> None:
        self.at = at

    def __reduce__(self) -> Any:
        return Path.touch, (self.at,)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return encoder_folder(tmp_path / "encoder")


def load(folder: Path) -> None:
    load_classifier(ModelConfig(model=str(folder)), ("a", "b"), 0)


def settings(folder: Path, **more: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def pickled(folder: Path, name: str) -> Path:
    """The weights as a pickle that shouts, in place of the others; and the file that it would leave."""
    tensors = load_file(folder / WEIGHTS)
    torch.save({**tensors, "shout": Shout(folder / "shouted")}, folder / name)
    return folder / "shouted"


@pytest.fixture(autouse=True)
def no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        pytest.fail("a pickle was opened")

    monkeypatch.setattr(torch, "load", load)


def test_the_same_folder_is_taken_without_any_of_it(folder: Path) -> None:
    load(folder)


def test_weights_that_are_a_pickle_are_refused(folder: Path) -> None:
    shouted = pickled(folder, "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"without weights \(no \.safetensors file\)"):
        load(folder)
    assert not shouted.exists()


def test_a_pickle_beside_the_weights_is_not_opened(folder: Path) -> None:
    shouted = pickled(folder, "pytorch_model.bin")
    load(folder)
    (folder / WEIGHTS).rename(folder / "other.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    assert not shouted.exists()


def test_an_index_of_shards_that_names_a_pickle_is_refused(folder: Path) -> None:
    shouted = pickled(folder, "shard.bin")
    *most, last = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).rename(folder / "first.safetensors")
    places = dict.fromkeys(most, "first.safetensors")
    file = folder / "model.safetensors.index.json"
    file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places | {last: "first.safetensors"}}))
    load(folder)
    file.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places | {last: "shard.bin"}}))
    with pytest.raises(ModelError, match=r"has weights in 'shard\.bin'"):
        load(folder)
    assert not shouted.exists()


def test_settings_that_name_a_pickle_are_refused(folder: Path) -> None:
    shouted = pickled(folder, "weights.bin")
    settings(folder, transformers_weights="weights.bin")
    with pytest.raises(ModelError, match=r"weights\.bin"):
        load(folder)
    assert not shouted.exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_beside_a_model_is_not_run(folder: Path, known: bool) -> None:
    code = f"from pathlib import Path\nPath({str(folder / 'shouted')!r}).touch()\n"
    (folder / "modeling_own.py").write_text(code)
    classes = {"AutoConfig": "Own", "AutoModelForSequenceClassification": "Own", "AutoTokenizer": ["Own", None]}
    own = {"auto_map": {name: f"modeling_own.{what}" for name, what in classes.items() if isinstance(what, str)}}
    settings(folder, **own, **({} if known else {"model_type": "own"}))
    if known:
        load(folder)  # by the architecture of the library's own
    else:
        with pytest.raises(ModelError, match="cannot be loaded as a sequence classifier"):
            load(folder)
    assert not (folder / "shouted").exists()
