"""Several checkpoints and AdamW's second moments, against real Trainer runs and a float64 row-by-row loop."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

import thresher
from audits import Audits
from conftest import audited, relative_error, tiny_model, tiny_rows, true_gradients
from folders import classifier_folder
from thresher.config import Recipe
from thresher.errors import ConfigError, GradientError, ModelError
from thresher.gradients import collect
from thresher.gradients.store import GradientStore
from thresher.influences.tensor import TensorFile
from thresher.model.checkpoints import Checkpoint, load_checkpoint
from thresher.model.finetune import learning_rate, mean_rate

ROWS, QUERIES = tiny_rows(7, seed=1), tiny_rows(3, seed=2)
RATE, STEPS = 1e-2, 6
BOTH = ("tracin", "tracin_checkpoints")


@dataclass(frozen=True)
class Training:
    """A Trainer run of three epochs of two steps: its output folder, its keeper's, and itself."""

    saved: Path
    kept: Path
    trainer: Any

    def second_moments(self, step: int) -> dict[str, Tensor]:
        """AdamW's exp_avg_sq by name, from the Trainer's own pickle."""
        state = torch.load(self.saved / f"checkpoint-{step}" / "optimizer.pt", weights_only=True)
        names = {id(p): name for name, p in self.trainer.model.named_parameters()}
        order = [names[id(p)] for group in self.trainer.optimizer.param_groups for p in group["params"]]
        return {order[number]: entry["exp_avg_sq"].double() for number, entry in state["state"].items()}


def train(model: Any, place: Path, keeper: thresher.CheckpointKeeper, **options: Any) -> Trainer:
    rows: Any = tiny_rows(8, seed=3, low=9, high=10)
    settings: dict[str, Any] = {
        "save_strategy": "epoch",
        "logging_steps": 1,
        "num_train_epochs": 3,
        "learning_rate": RATE,
        **options,
    }
    arguments = TrainingArguments(
        output_dir=str(place),
        per_device_train_batch_size=4,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, callbacks=[keeper])
    trainer.train()
    return trainer


def trained(folder: Path, *, lora: bool) -> Training:
    model = tiny_model("bert", lora=lora)
    trainer = train(model, folder / "saved", thresher.CheckpointKeeper(folder / "kept"))
    return Training(folder / "saved", folder / "kept", trainer)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return trained(tmp_path_factory.mktemp("lora"), lora=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    return trained(tmp_path_factory.mktemp("whole"), lora=False)


def as_saved(training: Training, step: int) -> Any:
    """The model as the libraries load it from a Trainer's checkpoint."""
    folder = training.saved / f"checkpoint-{step}"
    if (folder / "adapter_model.safetensors").exists():
        return PeftModel.from_pretrained(tiny_model("bert"), folder, is_trainable=True)
    return type(training.trainer.model).from_pretrained(folder)


def summed(terms: list[Any]) -> dict[str, Tensor]:
    """sum of rate * V G^T by module, from (rate, V, G)."""
    return {
        name: sum((rate * v[name].flatten(1) @ g[name].flatten(1).T for rate, v, g in terms), torch.zeros(()).double())
        for name in terms[0][1]
    }


def check(tensor: Any, method: str, truth: dict[str, Tensor]) -> None:
    assert list(tensor["module"].values) == list(truth)
    for name, expected in truth.items():
        found = tensor[method].sel(module=name).values
        if expected.norm() < 1e-12:  # zero in exact arithmetic
            assert not found.any()
        else:
            assert relative_error(found, expected) < 1e-5, name


@pytest.mark.parametrize("kind", ["lora", "whole"])
def test_the_sum_equals_a_float64_loop_at_each_checkpoint(kind: str, request: pytest.FixtureRequest) -> None:
    training: Training = request.getfixturevalue(kind)
    model = as_saved(training, 4)
    names = audited(model)
    # The Trainer's linear schedule, in closed form: its k-th update has rate (1 - (k - 1) / STEPS).
    rates = {step: RATE * (1 - (step - 1) / STEPS) for step in (2, 4, 6)}
    at = {step: as_saved(training, step) for step in rates}
    gradients = {s: [true_gradients(at[s], rows, names) for rows in (QUERIES, ROWS)] for s in rates}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tensor = thresher.influence(model, ROWS, QUERIES, methods=BOTH, checkpoints=training.saved)
    check(tensor, "tracin_checkpoints", summed([(rates[s], *gradients[s]) for s in rates]))
    check(tensor, "tracin", summed([(1.0, *gradients[4])]))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    kept = thresher.influence(model, ROWS, QUERIES, methods=BOTH, checkpoints=str(training.kept))
    assert kept.identical(tensor)


def test_rates_and_steps_are_read_from_both_kinds_of_folder(lora: Training) -> None:
    expected = [(2, RATE * 5 / 6), (4, RATE * 3 / 6), (6, RATE * 1 / 6)]
    for folder, moments in ((lora.saved, False), (lora.kept, True)):
        found = thresher.read_checkpoints(folder)
        assert [(c.step, pytest.approx(c.learning_rate)) for c in found] == expected
        assert {c.second_moments for c in found} == {moments}


def test_the_rate_is_the_latest_logged_at_or_before_the_step(lora: Training, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-4"
    shutil.copytree(lora.saved / "checkpoint-4", folder)
    logged = [{"step": 1, "learning_rate": 0.5}, {"step": 3, "learning_rate": 0.25}, {"step": 3, "eval_loss": 1.0}]
    later = [*logged, {"step": 4, "eval_loss": 1.0}, {"step": 5, "learning_rate": 0.125}]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": later}))
    assert thresher.read_checkpoints(tmp_path)[0].learning_rate == 0.25


def test_one_checkpoint_at_rate_one_is_tracin(lora: Training) -> None:
    last = replace(thresher.read_checkpoints(lora.saved)[-1], learning_rate=1.0)
    tensor = thresher.influence(as_saved(lora, 6), ROWS, QUERIES, methods=BOTH, checkpoints=[last])
    assert np.array_equal(tensor["tracin_checkpoints"].values, tensor["tracin"].values)


def test_a_sharded_checkpoint_is_the_same(whole: Training, tmp_path: Path) -> None:
    model = as_saved(whole, 6)
    folder = tmp_path / "checkpoint-6"
    model.save_pretrained(folder, max_shard_size="20KB")
    shutil.copy(whole.saved / "checkpoint-6/trainer_state.json", folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    other = tiny_model("bert", seed=5)
    load_checkpoint(other, thresher.read_checkpoints(tmp_path)[0])
    expected = dict(model.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in other.named_parameters())


@pytest.mark.parametrize("kind", ["lora", "whole"])
def test_the_keeper_keeps_the_optimizers_own_second_moments(kind: str, request: pytest.FixtureRequest) -> None:
    training: Training = request.getfixturevalue(kind)
    for step in (2, 4, 6):
        kept = load_file(training.kept / f"checkpoint-{step}" / "second_moments.safetensors")
        own = training.second_moments(step)
        assert kept.keys() == own.keys()
        assert all(torch.equal(kept[name].double(), own[name]) for name in own)
        assert any(value.any() for value in own.values())


@pytest.mark.parametrize("kind", ["lora", "whole"])
def test_optimizer_aware_gradients_equal_the_formula(kind: str, request: pytest.FixtureRequest) -> None:
    training: Training = request.getfixturevalue(kind)
    rates = {step: RATE * (1 - (step - 1) / STEPS) for step in (2, 4, 6)}
    model = as_saved(training, 4)
    terms: dict[int, Any] = {}
    for step, rate in rates.items():
        v, g = (true_gradients(as_saved(training, step), rows, audited(model)) for rows in (QUERIES, ROWS))
        moments = training.second_moments(step)
        for name, moment in moments.items():  # in a LoRA training the embedding has none, and stays plain
            g[name] = g[name] / ((moment / (1 - 0.999**step)).sqrt() + 1e-8)
        assert len(moments) == (len(g) - 1 if kind == "lora" else len(list(model.parameters())))
        terms[step] = (rate, v, g)
    points = thresher.read_checkpoints(training.kept, optimizer_aware=True)
    # A bias whose gradient is zero in exact arithmetic is noise over noise in the formula, and zero here.
    names = [n for n in audited(model) if not n.endswith("key.bias")]
    pattern = "^(" + "|".join(names) + ")$"
    methods = (*BOTH, "cosine")
    tensor = thresher.influence(model, ROWS, QUERIES, methods=methods, modules=pattern, checkpoints=points)
    at_four = {name: (terms[4][1][name].flatten(1), terms[4][2][name].flatten(1)) for name in names}
    check(tensor, "tracin", {name: v @ a.T for name, (v, a) in at_four.items()})
    check(
        tensor,
        "cosine",
        {name: (v @ a.T) / (v.norm(dim=1)[:, None] * a.norm(dim=1)) for name, (v, a) in at_four.items()},
    )
    total = summed(list(terms.values()))
    check(tensor, "tracin_checkpoints", {name: total[name] for name in names})


def test_the_keeper_counts_updates_and_keeps_the_end(tmp_path: Path) -> None:
    model = tiny_model("bert", lora=True)
    keeper = thresher.CheckpointKeeper(tmp_path / "kept", every=4)
    train(model, tmp_path / "saved", keeper, save_strategy="no", lr_scheduler_type="constant")
    assert [(c.step, c.learning_rate) for c in thresher.read_checkpoints(tmp_path / "kept")] == [(4, RATE), (6, RATE)]
    assert not list((tmp_path / "kept").rglob("*.p*t*"))  # nothing but safetensors and JSON
    with pytest.raises(ConfigError, match="holds checkpoints of another training; name an empty folder"):
        train(model, tmp_path / "saved", thresher.CheckpointKeeper(tmp_path / "kept"))


def test_the_keeper_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every=0"):
        thresher.CheckpointKeeper(tmp_path, every=0)
    with pytest.raises(ConfigError, match="keeps its own checkpoints here; name another folder"):
        train(tiny_model("bert", lora=True), tmp_path / "saved", thresher.CheckpointKeeper(tmp_path / "saved"))


def test_another_optimizer_is_kept_without_second_moments(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        keeper = thresher.CheckpointKeeper(tmp_path / "kept")
        train(tiny_model("bert", lora=True), tmp_path / "saved", keeper, optim="sgd", num_train_epochs=1)
    assert "not torch's AdamW" in caplog.text
    assert not thresher.read_checkpoints(tmp_path / "kept")[0].second_moments
    with pytest.raises(ModelError, match="optimizer was not AdamW"):
        thresher.read_checkpoints(tmp_path / "kept", optimizer_aware=True)


def test_frozen_parts_of_a_model_trained_whole_need_not_be_kept(tmp_path: Path) -> None:
    model = tiny_model("bert")
    model.bert.embeddings.requires_grad_(False)
    train(model, tmp_path / "saved", thresher.CheckpointKeeper(tmp_path / "kept"))
    points = thresher.read_checkpoints(tmp_path / "kept")
    assert "bert.embeddings.word_embeddings.weight" not in load_file(points[0].files[0])
    other = tiny_model("bert")  # loaded anew, every parameter of it can be trained
    load_checkpoint(other, points[-1])
    expected = dict(model.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in other.named_parameters())


def remade(training: Training, tmp_path: Path, change: Any) -> Checkpoint:
    """The last saved checkpoint with ``change`` made to its tensors."""
    folder = tmp_path / "checkpoint-6"
    shutil.copytree(training.saved / "checkpoint-6", folder)
    file = next(folder.glob("*model.safetensors"))
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return thresher.read_checkpoints(tmp_path)[0]


A_HEAD = "base_model.model.classifier.bias"
UNFIT = {
    "holds no weights for the trained 'base_model.model.classifier.modules_to_save.default.bias'": (
        lambda tensors: tensors.pop(A_HEAD)
    ),
    "has shape (7,), in the model it has (3,)": lambda tensors: tensors.update({A_HEAD: torch.zeros(7)}),
    "holds 'adapter.of.another', which the model has not": (
        lambda tensors: tensors.update({"adapter.of.another": torch.zeros(1)})
    ),
}


@pytest.mark.parametrize("message", list(UNFIT))
def test_weights_that_do_not_fit_are_refused_and_the_model_left_alone(
    lora: Training, tmp_path: Path, message: str
) -> None:
    model = as_saved(lora, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    point = remade(lora, tmp_path, UNFIT[message])
    with pytest.raises(ModelError) as caught:
        thresher.influence(model, ROWS, QUERIES, methods=BOTH, checkpoints=[point])
    assert message in str(caught.value)
    assert "checkpoint-6" in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_adapter_and_a_whole_model_are_not_mixed_up(lora: Training, whole: Training) -> None:
    for model, other in ((as_saved(lora, 2), whole), (as_saved(whole, 2), lora)):
        for folder in (other.saved, other.kept):
            with pytest.raises(ModelError, match="which the model has not"):
                load_checkpoint(model, thresher.read_checkpoints(folder)[0])


def test_heads_saved_under_the_name_of_their_wrapper_are_found(lora: Training, tmp_path: Path) -> None:
    long = A_HEAD.replace("classifier.", "classifier.modules_to_save.")
    point = remade(lora, tmp_path, lambda tensors: tensors.update({long: tensors.pop(A_HEAD) + 1}))
    model = as_saved(lora, 2)
    load_checkpoint(model, point)
    expected = dict(as_saved(lora, 6).named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name] + ("modules_to_save" in name and name.endswith("bias"))), name


def test_folders_that_cannot_be_read_are_refused_in_a_sentence(lora: Training, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no checkpoint-\* folder in it"):
        thresher.read_checkpoints(tmp_path)
    folder = tmp_path / "checkpoint-2"
    shutil.copytree(lora.saved / "checkpoint-2", folder)
    with pytest.raises(ModelError, match=r"pickle, which is not opened; .* thresher\.CheckpointKeeper"):
        thresher.read_checkpoints(tmp_path, optimizer_aware=True)
    (folder / "trainer_state.json").write_text('{"log_history": [{"step": 3, "learning_rate": 0.1}]}')
    with pytest.raises(ModelError, match="no learning rate at or before step 2; train with smaller logging_steps"):
        thresher.read_checkpoints(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"holds neither adapter_model\.safetensors nor model\.safetensors"):
        thresher.read_checkpoints(tmp_path)


def test_what_a_kill_left_half_written_is_passed_over(lora: Training, tmp_path: Path) -> None:
    shutil.copytree(lora.kept, tmp_path / "kept")
    (tmp_path / "kept/checkpoint-4/checkpoint.json").unlink()
    assert [point.step for point in thresher.read_checkpoints(tmp_path / "kept")] == [2, 6]


def test_what_goes_together_is_said(lora: Training) -> None:
    model = as_saved(lora, 6)
    aware = thresher.read_checkpoints(lora.kept, optimizer_aware=True)

    def refused(error: type[Exception], message: str, **options: Any) -> None:
        with pytest.raises(error, match=message):
            thresher.influence(model, ROWS, QUERIES, **options)

    refused(ConfigError, "'tracin_checkpoints' needs checkpoints of the training", methods=BOTH)
    refused(ConfigError, "ask for one of them, or leave it out", methods=("tracin",), checkpoints=lora.saved)
    refused(ConfigError, "datainf cannot take gradients that the optimizer scaled", checkpoints=aware)
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).mul_(2)
    refused(ModelError, "none of the 3 checkpoints has the weights", methods=("tracin",), checkpoints=aware)
    # The sum alone does not ask where the model is.
    thresher.influence(model, ROWS, QUERIES, methods=("tracin_checkpoints",), modules="classifier", checkpoints=aware)


def test_rows_that_are_not_finite_are_named_with_their_checkpoint(lora: Training, tmp_path: Path) -> None:
    point = remade(lora, tmp_path, lambda tensors: tensors.update({A_HEAD: torch.full((3,), float("nan"))}))
    with pytest.raises(GradientError, match=r"checkpoint-6: The loss of query row"):
        thresher.influence(as_saved(lora, 6), ROWS, QUERIES, methods=BOTH, checkpoints=[point])


def test_an_epochs_mean_rate_is_that_of_its_steps() -> None:
    recipe = Recipe(epochs=4, learning_rate=1.0)
    means = [mean_rate(epoch, 5, recipe) for epoch in range(4)]
    assert means == pytest.approx(np.reshape([learning_rate(s, 20, recipe) for s in range(20)], (4, 5)).mean(1))


AUDIT = {
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "methods": "tracin,tracin_checkpoints",
    "detector": "tracin_checkpoints/layers/vote",
    "modules": r"layer\.0\..*lora|modules_to_save|word_embeddings",
}
AUDITS = Audits({"train": 24, "validation": 8}, AUDIT)
options = AUDITS.options


@pytest.mark.slow
def test_an_audit_sums_over_the_epochs_of_its_own_training(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    points = thresher.read_checkpoints(finished.folder / "training/checkpoints")
    assert [point.step for point in points] == [3, 6, 9]
    assert finished.summary.score == "tracin_checkpoints/layers/vote@0.3"
    assert not (finished.folder / "gradients").exists()
    # The same adapter, audited as the user's own with one checkpoint at a time: its tensors add up to the sum.
    total = np.zeros(1)
    for point in points:
        alone = tmp_path / f"only-{point.step}"
        shutil.copytree(point.folder, alone / point.folder.name)
        given = options(place, tmp_path / f"run-{point.step}", adapter=finished.folder / "model", checkpoints=alone)
        total = total + thresher.audit(given).tensor["tracin_checkpoints"].values.astype(np.float64)
    assert relative_error(finished.tensor["tracin_checkpoints"].values, torch.from_numpy(total)) < 1e-5
    assert not np.allclose(finished.tensor["tracin"].values, total)


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [{}, {"optimizer_aware": True}, {"reference": 9, "keep": "tensor"}, {"reference": 9}],
    ids=["plain", "optimizer-aware", "sample", "sample-top"],
)
def test_killed_again_and_again_it_ends_with_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(collect, "BLOCK_ROWS", 4)
    more = {"batch_size": 4, **more}
    whole = thresher.audit(options(place, tmp_path / "whole", **more))
    chance = np.random.default_rng(0)

    def dies(method: Any, times: int) -> Any:
        def called(*args: Any) -> Any:
            nonlocal times
            if times > 0 and chance.random() < 0.15:
                times -= 1
                raise Killed
            return method(*args)

        return called

    monkeypatch.setattr(TensorFile, "write", dies(TensorFile.write, 3))  # the reference rows are met in one go
    monkeypatch.setattr(GradientStore, "put", dies(GradientStore.put, 10**6))
    kills = 0
    while True:
        try:
            found = thresher.audit(options(place, tmp_path / "killed", **more))
            break
        except Killed:
            kills += 1
    assert kills > 5
    kept = ["influence.zarr"] if "reference" not in more or "keep" in more else ["queries.safetensors"]
    for file in ("scores.parquet", "all_scores.parquet", "predictions.safetensors", *kept):
        files = sorted(one for one in (whole.folder / file).rglob("*") if one.is_file()) or [whole.folder / file]
        for one in files:
            assert (found.folder / one.relative_to(whole.folder)).read_bytes() == one.read_bytes()
    assert not (found.folder / "gradients").exists()


def test_the_plan_says_what_checkpoints_and_the_optimizer_cost(place: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from thresher.cli import app

    given = options(place, tmp_path / "run")
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    result = CliRunner().invoke(app, ["audit", *arguments, "--optimizer-aware", "--dry-run"])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    assert "3 are summed over, each with a gradient pass of its own" in result.output
    said = " ".join(result.output.split())
    assert "not in what it did not train: base_model.model.bert.embeddings.word_embeddings.weight" in said


BAD_INPUT = [
    ({"checkpoints": "nowhere"}, "this audit fine-tunes anew"),
    ({"optimizer_aware": True, "methods": "datainf"}, "--optimizer-aware: datainf cannot take gradients"),
]


@pytest.mark.parametrize(("change", "message"), BAD_INPUT, ids=["anew", "curved"])
def test_bad_input_is_refused_before_anything_runs(
    place: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        thresher.audit(options(place, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_an_audit_of_a_model_trained_elsewhere_needs_its_checkpoints(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    adapter = finished.folder / "model"
    with pytest.raises(ConfigError, match="name their folder with --checkpoints"):
        thresher.audit(options(place, tmp_path / "run", adapter=adapter))
    other = classifier_folder(tmp_path / "other", ["bad", "good"])
    with pytest.raises(ModelError, match="which the model has not"):
        own = finished.folder / "training/checkpoints"
        thresher.audit(options(place, tmp_path / "run", model=other, checkpoints=own))
    assert not (tmp_path / "run").exists()
