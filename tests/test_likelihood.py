"""What a model that generates knows: losses counted by hand and by plain autograd's model, and what is said of them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

import thresher
from audits import Audits, flags
from folders import answers
from stopping import Stopping
from summaries import known_of_answers, made_up, training
from thresher.auditing.doubts import doubt_of
from thresher.auditing.pipeline import run
from thresher.auditing.prepare import prepare
from thresher.auditing.summary import knowledge_entry
from thresher.cli import app
from thresher.config import RowLoss
from thresher.data.encode import IGNORED
from thresher.evaluate.likelihood import AnswerKnowledge, measure_answers
from thresher.model import predict as prediction
from thresher.model.adapters import WEIGHTS, without_adapter
from thresher.model.predict import Predictions
from thresher.report.knowledge import show_knowledge
from thresher.results.clean import clean_run as clean
from thresher.summary import KnowledgeOfAnswers


def said(losses: Any, share: float = 0.5) -> Predictions:
    found = torch.tensor(np.asarray(losses, dtype=np.float32))
    return Predictions(found, torch.full((len(found), 1), share))


def known(now: Any, before: Any, row_loss: RowLoss = "mean", *, trained_here: bool = True) -> AnswerKnowledge:
    labels = [torch.tensor([IGNORED, *range(1 + number % 3)]) for number in range(len(now))]
    earlier = None if before is None else said(before, 0.25)
    return measure_answers(said(now), earlier, labels, row_loss, trained_here=trained_here)


def test_losses_are_counted_by_query_and_by_token() -> None:
    found = known([1.0, 2.0, 3.0], [2.0, 2.0, 2.5])  # of answers of one, two and three tokens
    assert found.now.query_loss == pytest.approx(2.0)
    assert found.now.token_loss == pytest.approx((1 + 2 * 2 + 3 * 3) / 6)
    assert found.now.perplexity == pytest.approx(np.exp((1 + 2 * 2 + 3 * 3) / 6))
    assert (found.likelier, found.less_likely) == (1, 1)
    assert known([1.0, 2.0, 3.0], None, "sum").now.token_loss == pytest.approx(6 / 6)
    assert found.before is not None and (found.now.first_choice, found.before.first_choice) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("up", "down", "learned"),
    [(5, 0, True), (4, 0, False), (7, 1, True), (6, 1, False), (15, 5, True), (14, 6, False), (10, 10, False)],
)
def test_learned_is_what_a_table_of_the_sign_test_says(up: int, down: int, learned: bool) -> None:
    same = [1.0, 1.00005]  # one as before, one but for its rounding
    now = [0.9] * up + [1.1] * down + same
    found = known(now, [1.0] * (up + down + 2))
    assert (found.likelier, found.less_likely, found.queries) == (up, down, up + down + 2)
    assert found.learned is learned
    assert (doubt_of(found) is None) is learned


def test_a_few_much_worse_answers_do_not_hide_that_the_others_became_likelier() -> None:
    assert known([1.0] * 18 + [30.0] * 2, [2.0] * 20).learned


def test_doubts_say_what_to_do_and_nothing_is_doubted_where_nothing_can_be_compared() -> None:
    worse, before = [2.0] * 8, [1.0] * 8
    assert "--learning-rate" in (doubt_of(known(worse, before)) or "")
    elsewhere = doubt_of(known(worse, before, trained_here=False)) or ""
    assert "its base alone" in elsewhere and "--learning-rate" not in elsewhere
    assert "more clean rows" in (doubt_of(known([0.5] * 4, [1.0] * 4)) or "")
    whole = known(worse, None)
    assert whole.learned is None and doubt_of(whole) is None


@pytest.mark.parametrize("before", [[1.0] * 6, None])
def test_the_console_says_what_summary_json_says(before: Any) -> None:
    found = known([2.0] * 6, before)
    entry = knowledge_entry(found, doubt_of(found))
    console = Console(width=600, record=True, file=StringIO())
    assert isinstance(entry, KnowledgeOfAnswers)
    console.print(show_knowledge(entry, made_up(knowledge=entry, training=training(0.003))))
    text = console.export_text()
    assert f"{entry.now.token_loss:.3f} a token (perplexity 7.39)" in text and "rate of 0.003" in text
    assert ("As it came it had one of 1.000 a token" in text) == (before is not None)
    assert ("made 0 answers likelier and 6 less likely" in text) == (before is not None)
    assert (entry.doubt or "") in text


FAST: dict[str, Any] = {
    "task": "generate",
    "detector": "loss",
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.01,
    "methods": "tracin",
}
AUDITS = Audits({"train": 40, "validation": 12}, FAST, generate=True)
options = AUDITS.options


def losses_alone(place: Path, model: Any) -> list[float]:
    """Each query's mean loss by the library's own model, unpadded, one at a time, from texts tokenized here."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place / "model")
    found: list[float] = []
    for row in answers(12, 2):
        prompt = tokenizer(row["prompt"] + "\n", add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[2, *prompt, *answer, 3]])  # [CLS] first, and the end that is learned
        labels = torch.tensor([[IGNORED] * (1 + len(prompt)) + answer + [3]])
        with torch.no_grad():
            found.append(float(model.eval()(input_ids=ids, labels=labels).loss))
    return found


def test_an_audit_says_how_much_likelier_the_answers_became(place: Path, finished: thresher.AuditResult) -> None:
    entry = known_of_answers(finished)
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    before = losses_alone(place, base)
    now = losses_alone(place, PeftModel.from_pretrained(base, str(finished.folder / "model")))
    assert entry.before is not None
    assert entry.before.query_loss == pytest.approx(np.mean(before), rel=1e-4)
    assert entry.now.query_loss == pytest.approx(np.mean(now), rel=1e-4)
    assert entry.likelier == sum(after < first for after, first in zip(now, before, strict=True)) == 12
    assert entry.learned is True and entry.doubt is None and entry.trained_here is True


def test_an_adapter_is_compared_with_its_base_and_a_whole_model_with_nothing(
    place: Path, finished: thresher.AuditResult, tmp_path: Path
) -> None:
    adapter = str(finished.folder / "model")
    entry = known_of_answers(thresher.audit(options(place, tmp_path / "adapter", adapter=adapter)))
    expected = known_of_answers(finished)
    assert entry.trained_here is False and entry.likelier == expected.likelier
    for side in ("now", "before"):
        assert getattr(entry, side).model_dump() == pytest.approx(getattr(expected, side).model_dump(), rel=1e-4)
    whole = thresher.audit(options(place, tmp_path / "whole", finetune=False))
    entry = known_of_answers(whole)
    assert entry.learned is None and entry.before is None and entry.doubt is None
    assert expected.before is not None
    assert entry.now.model_dump() == pytest.approx(
        expected.before.model_dump(), rel=1e-4
    )  # what nobody trained is what it was
    assert not (whole.folder / "as_it_came.safetensors").exists()


def test_what_has_not_learned_is_doubted_first_and_at_clean(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = options(place, tmp_path / "run", learning_rate=1e-9)
    shown = CliRunner().invoke(app, ["audit", *flags(given)])
    assert shown.exit_code == 0, shown.output
    found = thresher.audit(given)
    entry = known_of_answers(found)
    assert entry.learned is False and entry.likelier + entry.less_likely == 0
    assert entry.doubt is not None and "0 of 12 clean answers likelier" in entry.doubt
    assert "What the model knows" in shown.output
    assert shown.output.index("What the model knows") < shown.output.index("most suspicious rows")
    caplog.clear()
    clean(found.folder, tmp_path / "cleaned.jsonl")
    assert entry.doubt in caplog.text


def test_the_model_as_it_came_is_asked_once(
    place: Path, finished: thresher.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import thresher.auditing.known

    asked: list[int] = []

    def counted(*values: Any) -> Predictions:
        asked.append(1)
        return prediction.predict(*values)

    monkeypatch.setattr(thresher.auditing.known, "predict", counted)
    given = options(place, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):  # in the second epoch
        run(prepare(thresher.AuditConfig(**given)), Stopping("fine-tuning", 40))
    again = thresher.audit(given)
    assert len(asked) == 1
    assert again.summary.knowledge == finished.summary.knowledge


def test_without_its_adapter_a_model_is_its_base_and_with_it_again_what_it_was(
    place: Path, finished: thresher.AuditResult, tmp_path: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(place / "model").eval()
    ids = torch.tensor([[2, 5, 9, 11]])
    plain = base(input_ids=ids).logits
    model: Any = PeftModel.from_pretrained(base, str(finished.folder / "model"), is_trainable=True).eval()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    with_adapter = model(input_ids=ids).logits
    with without_adapter(model):
        assert torch.equal(model(input_ids=ids).logits, plain)
    assert torch.equal(model(input_ids=ids).logits, with_adapter) and not torch.equal(with_adapter, plain)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable


def test_an_adapter_that_was_never_trained_is_doubted(
    place: Path, finished: thresher.AuditResult, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for file in (finished.folder / "model").iterdir():
        (adapter / file.name).write_bytes(file.read_bytes())
    tensors = load_file(adapter / WEIGHTS)
    zeros = {name: tensor * ("lora_B" not in name) for name, tensor in tensors.items()}
    save_file(zeros, adapter / WEIGHTS, metadata={"format": "pt"})
    entry = known_of_answers(thresher.audit(options(place, tmp_path / "run", adapter=str(adapter))))
    assert entry.learned is False and entry.likelier == entry.less_likely == 0
    assert "without the adapter" in (entry.doubt or "")
