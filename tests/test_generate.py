"""Causal LMs: influence against a plain float64 loop over rows, and an audit from end to end."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BertConfig
from typer.testing import CliRunner

import thresher
from audits import Audits, flags, refused
from conftest import DECODERS, cancels, dense, relative_error
from folders import SIZES as WORD_SIZES
from folders import answers, decoder_folder, encoder_folder, write_rows
from generators import generator, learned_rows
from summaries import told_by_canaries
from thresher.auditing.prepare import Job
from thresher.cli import app
from thresher.config import ModelConfig, RowLoss
from thresher.data.encode import IGNORED
from thresher.data.packaged import packaged_generator
from thresher.errors import DataError, ModelError
from thresher.gradients.gradient_pass import gradient_pass
from thresher.influences.tensor import TensorFile
from thresher.model.inputs import encoded_rows
from thresher.model.load import load_generator
from thresher.model.losses import correct_rows
from thresher.model.names import embedding_name
from thresher.model.source import model_folder
from thresher.model.tied import output_head
from written_out import TOLERANCE, defined

Row = dict[str, Any]


def true_gradients(model: nn.Module, rows: list[Row], names: list[str], row_loss: RowLoss) -> dict[str, Tensor]:
    """Gradients [rows, *shape] by name, one float64 row at a time; a tied head has a matrix of its own."""
    exact: Any = copy.deepcopy(model).double().eval()
    head = exact.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())
    parameters = {name: parameter.requires_grad_() for name, parameter in exact.named_parameters()}
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    for row in rows:
        logits = exact(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1]
        loss = F.cross_entropy(logits, torch.tensor(row["labels"][1:]), ignore_index=IGNORED, reduction=row_loss)
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
        for name, gradient in zip(names, gradients, strict=True):
            found[name].append(gradient)
    return {name: torch.stack(values) for name, values in found.items()}


def check_exact(model: Any, train: list[Row], query: list[Row], *, modules: str | None, row_loss: RowLoss) -> set[str]:
    given = [encoded_rows(rows, model, "rows", row_loss) for rows in (train, query)]
    tensor = thresher.influence(model, *given, modules=modules, batch_size=4)
    names = [str(name) for name in tensor["module"].values]
    v, g = (true_gradients(model, rows, names, row_loss) for rows in (query, train))
    for name in names:
        truth = defined(v[name].flatten(1), g[name].flatten(1))
        for method, expected in truth.items():
            if cancels(g[name]):
                assert not tensor[method].sel(module=name).values.any(), (name, method)
            else:
                assert relative_error(tensor[method].sel(module=name).values, expected) < TOLERANCE, (name, method)
    return set(names)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("lora", [True, False], ids=["lora", "whole"])
@pytest.mark.parametrize("family", list(DECODERS))
def test_every_module_and_pair_equals_the_definition(family: str, lora: bool, tied: bool) -> None:
    model = generator(family, tied=tied, lora=lora)
    row_loss: RowLoss = "sum" if lora == tied else "mean"
    names = check_exact(model, learned_rows(9, 1), learned_rows(4, 2), modules=None if lora else ".", row_loss=row_loss)
    head = output_head(model)
    assert head is not None
    assert (f"{head[0]}.weight" in names) != lora
    assert embedding_name(model) in names
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied


@pytest.mark.parametrize("row_loss", ["mean", "sum"])
def test_the_head_kernel_is_tracin_on_a_tied_head(row_loss: RowLoss) -> None:
    model = generator("llama", tied=True, lora=True)
    train, query = (encoded_rows(learned_rows(n, n), model, "rows", row_loss) for n in (6, 3))
    kernel = thresher.influence(model, train, query, methods=("head_kernel",))["head_kernel"]
    plain = thresher.influence(model, train, query, methods=("tracin",), modules="lm_head")["tracin"]
    assert relative_error(kernel.values, torch.tensor(plain.values).double()) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_lookup_and_head_add_up_to_the_gradient_of_the_tied_parameter(family: str) -> None:
    model = generator(family, tied=True).eval()
    rows, shared = learned_rows(5, 3), model.get_input_embeddings().weight
    data, names = encoded_rows(rows, model, "train"), [embedding_name(model) or "", "lm_head.weight"]
    with gradient_pass(model, names, data) as one_pass:
        found = one_pass.gradients(data, data.batch(np.arange(5), one_pass.pad_id, one_pass.device)).modules
    for number, row in enumerate(rows):
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        expected = torch.autograd.grad(model(input_ids=ids, labels=labels).loss, shared)[0]
        total = sum(dense(found[name], shared)[number] for name in names)
        assert relative_error(total, expected.double()) < TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_padding_batches_and_hidden_positions_change_nothing(family: str) -> None:
    model = generator(family, tied=True, lora=True)
    train, query = learned_rows(7, 4), learned_rows(3, 5)
    plain = thresher.influence(model, train, query, batch_size=1)
    left = [{name: [value] * 6 + row[name] for name, value in zip(row, (5, 0, 7), strict=True)} for row in train]
    found = thresher.influence(model, left, query, batch_size=7)
    assert (found["correct"] == plain["correct"]).all()
    for method in plain:
        assert relative_error(found[method].values, torch.tensor(plain[method].values).double()) < TOLERANCE


def test_a_query_is_right_when_half_of_its_answer_is_the_first_choice() -> None:
    model = generator("llama", tied=False).eval()
    rows = learned_rows(12, 6)
    with torch.no_grad():
        for row in rows:
            said = model(input_ids=torch.tensor([row["input_ids"]])).logits[0].argmax(-1)
            wanted = [place for place in range(1, len(said)) if row["labels"][place] != IGNORED]
            row["labels"] = [IGNORED] * len(said)
            for number, place in enumerate(wanted):  # every second one right, from the first or from the second
                row["labels"][place] = int(said[place - 1]) if (number + len(said)) % 2 else 0
    tensor = thresher.influence(model, rows[:2], rows, methods=("tracin",), modules="layers.0")
    expected = []
    for row in rows:
        wanted = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
        right = sum(row["labels"][place] != 0 for place in wanted)
        expected.append(right / len(wanted) >= 0.5)
    assert 0 < sum(expected) < 12
    assert tensor["correct"].values.tolist() == expected
    assert correct_rows(torch.tensor([[0.5], [0.49]]), [torch.zeros(3)] * 2, None).tolist() == [True, False]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(1, ".*one label a token"), ([3, 4], ".*one label a token"), ([3, IGNORED, IGNORED], "no token has a label")],
)
def test_labels_that_are_none_of_a_generator_are_refused(labels: Any, message: str) -> None:
    row = {"input_ids": [3, 4, 5], "labels": labels}
    with pytest.raises(DataError, match=f"train row 0: {message}"):
        thresher.influence(generator("llama", tied=True), [row], learned_rows(1, 1))


FAST = {
    "task": "generate",
    "detector": "datainf/layers/vote",
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "max_length": 32,
}
AUDITS = Audits({"train": 30, "validation": 10, "test": 12}, FAST, {"plant": 0.2, "retrain": True}, generate=True)
options = AUDITS.options


def test_an_audit_ranks_every_row_and_says_what_was_lost(finished: thresher.AuditResult, place: Path) -> None:
    scores, summary = finished.scores, finished.summary
    assert sorted(scores["rank"]) == list(range(1, 31))
    assert scores["planted"].sum() == 6
    copies = {"copy_of", "contradicted"}
    assert set(scores.columns[:9]) == {"row", "score", "rank", "loss", "token_accuracy", "planted", "text"} | copies
    assert scores["token_accuracy"].between(0, 1).all() and scores["loss"].nunique() > 20
    assert {str(group) for group in finished.tensor["group"].values} == {"WE", "1", "2", "3", "4"}
    assert summary.notes == {"loss": "mean over a row's answer tokens, their end included"}
    trained_on = {"all_rows", "dropped", "dropped_at_random", "errors_removed"}
    loss, perplexity = (summary.measures[name] for name in ("test_loss", "test_perplexity"))
    assert set(loss) == set(perplexity) == trained_on
    for name in trained_on:
        assert perplexity[name].value == pytest.approx(np.exp(loss[name].value))
        assert loss[name].margin_95 is not None and perplexity[name].margin_95 is None
    entry, given = summary.suspicious[0], answers(30, 1)
    assert entry.about["prompt"] == given[entry.row]["prompt"]
    assert (entry.about["completion"] == given[entry.row]["completion"]) != entry.planted
    assert set(entry.hurts[0].about) == {"query", "prompt", "completion"}
    shown = CliRunner().invoke(app, ["audit", *flags(options(place, finished.folder, plant=0.2, retrain=True))])
    assert shown.exit_code == 0, shown.output
    assert "of the answer's tokens are the model's choice" in shown.output
    assert "perplexity" in shown.output


def test_clean_writes_the_original_rows(finished: thresher.AuditResult, tmp_path: Path) -> None:
    target = tmp_path / "cleaned.jsonl"
    assert CliRunner().invoke(app, ["clean", str(finished.folder), "--output", str(target)]).exit_code == 0
    dropped = set(finished.scores.nsmallest(9, "rank")["row"])
    kept = [row for row in answers(30, 1) if row["id"] not in dropped]
    assert [json.loads(line) for line in target.read_text().splitlines()] == kept


def test_the_adapter_and_a_whole_model_can_be_audited(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    given = options(place, tmp_path / "adapter", plant=0.2, adapter=str(finished.folder / "model"))
    found = thresher.audit(given)
    assert np.allclose(found.scores["loss"], finished.scores["loss"], rtol=1e-3, atol=1e-6)
    for column in ("tracin/layers/mean", "tracin_we/WE/mean"):
        assert np.allclose(
            found.all_scores.sel(score=column), finished.all_scores.sel(score=column), rtol=1e-3, atol=1e-6
        )
    whole = options(
        place, tmp_path / "whole", finetune=False, methods="tracin", detector="tracin/layers/vote", row_loss="sum"
    )
    tensor = thresher.audit(whole).tensor
    assert {name.split(".")[-2] for name in tensor["module"].values} == {"q_proj", "v_proj"}


@pytest.mark.parametrize("stage", ["an epoch", "a module", "a retraining"])
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(place, tmp_path / "run", plant=0.2, retrain=True)
    targets = {
        "an epoch": (thresher.model.finetune, "_save"),
        "a module": (TensorFile, "write"),
        "a retraining": (Job, "evaluate"),
    }
    owner, name = targets[stage]
    original, calls = getattr(owner, name), iter([False, True])

    def stops(*values: Any) -> Any:
        done = original(*values)
        if next(calls, True):
            raise KeyboardInterrupt
        return done

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, stops)
        with pytest.raises(KeyboardInterrupt):
            thresher.audit(given)
    again = thresher.audit(given)
    assert (again.folder / "scores.parquet").read_bytes() == (finished.folder / "scores.parquet").read_bytes()
    assert again.summary.measures == finished.summary.measures


def test_chats_are_cut_with_a_word_about_it(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    roles = {"prompt": "user", "completion": "assistant"}
    chats = [{"messages": [{"role": r, "content": row[c]} for c, r in roles.items()]} for row in answers(20, 4)]
    train = write_rows(tmp_path / "train.jsonl", chats)
    given = options(place, tmp_path / "run", train=train, validation=train, test=None, max_length=12, epochs=1)
    found = thresher.audit(given | {"plant": 0.2, "plant_kind": "truncate"})
    assert "of 20 train rows lose" in found.summary.notes["cut"]
    assert "(over 12 a row)" in caplog.text
    assert all(entry.about["prompt"] for entry in found.summary.suspicious)


def test_what_does_not_fit_the_task_is_refused(place: Path, tmp_path: Path) -> None:
    given = options(place, tmp_path / "run")
    encoder_folder(tmp_path / "encoder")
    decoder_folder(tmp_path / "decoder")
    assert "--task generate knows swap, truncate, shuffle" in refused(["audit", *flags(given | {"plant_kind": "flip"})])
    assert "no weights for 'lm_head" in refused(["audit", *flags(given | {"model": str(tmp_path / "decoder")})])
    assert "no weights for 'cls" in refused(["audit", *flags(given | {"model": str(tmp_path / "encoder")})])
    AutoModelForCausalLM.from_config(BertConfig(**WORD_SIZES)).save_pretrained(tmp_path / "encoder")
    assert "sees the tokens that it predicts" in refused(["audit", *flags(given | {"model": tmp_path / "encoder"})])
    with pytest.raises(ModelError, match="there is minilm, smollm2"):
        model_folder("packaged:gpt5")
    with pytest.raises(ModelError, match=r"nowhere\.gguf: there is no such file"):
        model_folder("nowhere.gguf")


@pytest.mark.slow
def test_the_packaged_model_answers_and_is_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        packaged_generator()
    except DataError as error:
        pytest.skip(str(error))
    pytest.importorskip("gguf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load, packed = AutoModelForCausalLM.from_pretrained, []
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda *a, **k: packed.append(load(*a, **k)) or packed[-1]
    )
    subject = load_generator(ModelConfig(model="packaged:smollm2", device="cpu"))
    asked, model = [{"role": "user", "content": "What is the capital of France?"}], subject.model
    ids = subject.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
    answer = model.generate(**ids, max_new_tokens=9, do_sample=False)[0, ids["input_ids"].shape[1] :]  # pyright: ignore
    assert subject.tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
    with torch.no_grad():
        assert torch.equal(packed[0](**ids).logits, model(**ids).logits)
    cities = {"Spain": "Madrid", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima", "Cuba": "Havana"}
    rows = [{"prompt": f"The capital of {land} is", "completion": f" {city}."} for land, city in cities.items()]
    files = {part: write_rows(tmp_path / f"{part}.jsonl", rows[:n]) for part, n in (("train", 6), ("validation", 2))}
    given = {"model": "packaged:smollm2", "task": "generate", "output": tmp_path / "run", "epochs": 1, **files}
    scores = thresher.audit(given | {"plant": 0.34, "detector": "loss"}).scores
    assert scores["planted"].sum() == 2
    assert scores["loss"][scores["planted"]].min() > scores["loss"][~scores["planted"]].max()


def test_auto_swaps_completions_as_canaries(place: Path, tmp_path: Path) -> None:
    found = thresher.audit(options(place, tmp_path / "run", detector="auto", canaries=0.1, methods="tracin"))
    auto = told_by_canaries(found)
    assert auto.canary_kind == "swap"
    assert set(auto.members) == {"influence", "training"}
    assert auto.error_rate.queries is None
    assert "suggested" not in found.scores
    assert found.scores["probability_wrong"].between(0, 1).all()
