"""Rows to generate from: which tokens are learned, what is cut, and how answers are spoiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors

from folders import CHAT_TEMPLATE, WORDS, tokenizer
from thresher.data.answers import _render, encode_dialogues, writes_date  # pyright: ignore[reportPrivateUsage]
from thresher.data.dialogues import DialogueColumns, Dialogues, find_dialogue_columns, read_dialogues
from thresher.data.encode import IGNORED, Cuts, EncodedRows
from thresher.data.table import Table
from thresher.errors import DataError, ModelError

Row = dict[str, Any]
MARKING_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[CLS] the ' + m['content'] + '[SEP]\n' }}{% else %}"
    "{{ '[CLS] a ' }}{% generation %}{{ m['content'] + '[SEP]' }}{% endgeneration %}{{ '\n' }}{% endif %}{% endfor %}"
)
FORGETFUL_TEMPLATE = "{{ '[CLS] ' }}{% for m in messages %}{% if loop.last %}{{ m['content'] }}{% endif %}{% endfor %}"


def dialogues(rows: list[Row]) -> Dialogues:
    table = Table("train.jsonl", rows, tuple(rows[0]))
    return read_dialogues(table, find_dialogue_columns(table, (), None))


def chat(*turns: str) -> Row:
    return {"messages": [{"role": r, "content": c} for r, c in zip(["user", "assistant"] * 9, turns, strict=False)]}


def speaker(template: str | None = None, *, ends: bool = True) -> Any:
    """The word tokenizer; with ``ends`` it closes a text by itself."""
    made = tokenizer(pad=False)
    made.chat_template = template
    if not ends:
        begins = processors.TemplateProcessing(single="[CLS] $A", pair="[CLS] $A $B:1", special_tokens=[("[CLS]", 2)])
        made.backend_tokenizer.post_processor = begins
    return made


def encoded(rows: list[Row], speaks: Any, length: int = 128) -> tuple[EncodedRows, Cuts]:
    return encode_dialogues(dialogues(rows), speaks, length, "mean")


def words(rows: EncodedRows, row: int) -> tuple[str, str]:
    """All words of a row, and the learned ones."""
    ids, labels = rows.features["input_ids"][row], rows.labels[row]
    assert bool(((labels == IGNORED) | (labels == ids)).all())
    return " ".join(WORDS[i] for i in ids), " ".join(WORDS[i] for i in labels if i != IGNORED)


@pytest.mark.parametrize(
    ("completion", "ends"),
    [("good cast", True), (" good cast", True), ("good cast", False), ("good cast [SEP]", False)],
)
def test_only_the_answer_and_one_end_token_are_learned(completion: str, ends: bool) -> None:
    rows, cuts = encoded([{"prompt": "the film was", "completion": completion}], speaker(ends=ends))
    assert words(rows, 0) == ("[CLS] the film was good cast [SEP]", "good cast [SEP]")
    assert (cuts.rows, cuts.tokens, cuts.answers) == (0, 0, 0)


def test_every_turn_of_the_assistant_is_learned_with_its_end() -> None:
    rows, _ = encoded([chat("film", "good end", "plot", "bad"), chat("scene", "dull", "and")], speaker(CHAT_TEMPLATE))
    first = "[CLS] the film [SEP] [CLS] a good end [SEP] [CLS] the plot [SEP] [CLS] a bad [SEP]"
    assert words(rows, 0) == (first, "good end [SEP] bad [SEP]")
    assert words(rows, 1) == ("[CLS] the scene [SEP] [CLS] a dull [SEP]", "dull [SEP]")  # no answer follows "and"


def test_a_template_that_marks_answers_is_believed_and_agrees() -> None:
    several = [chat("film", "good end", "plot", "bad"), chat("very dull", "and")]
    marked, compared = encoded(several, speaker(MARKING_TEMPLATE))[0], encoded(several, speaker(CHAT_TEMPLATE))[0]
    assert [words(marked, row) for row in (0, 1)] == [words(compared, row) for row in (0, 1)]


def test_an_answer_that_its_template_leaves_open_is_closed() -> None:
    rows, _ = encoded([chat("film", "good")], speaker("{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"))
    assert words(rows, 0) == ("film good [SEP]", "good [SEP]")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(3, 16))
def test_prompts_are_cut_from_the_left_and_answers_only_where_too_long_alone(p: int, a: int, limit: int) -> None:
    prompt, answer = (WORDS[4:] * 2)[:p], (WORDS[6:] * 2)[:a]
    speaks = speaker(ends=False)
    speaks.bos_token = "[CLS]"
    rows, cuts = encoded([{"prompt": " ".join(prompt), "completion": " ".join(answer)}], speaks, limit)
    text, learned = words(rows, 0)
    whole = ["[CLS]", *prompt, *answer, "[SEP]"]
    assert len(text.split()) == min(limit, len(whole))
    assert text.startswith("[CLS]")
    assert learned.split() == [*answer, "[SEP]"][: limit - 1]
    too_long = len(answer) + 1 > limit - 1
    assert (cuts.rows, cuts.answers) == (len(whole) > limit, too_long)
    assert cuts.of - cuts.tokens == len(rows.features["input_ids"][0])
    assert text.split()[1:] == (learned.split() if too_long else whole[1:][1 - limit :])


def test_the_last_answer_of_a_long_chat_is_kept() -> None:
    rows, cuts = encoded([chat("film", "good end", "plot", "bad cast")], speaker(CHAT_TEMPLATE), 8)
    assert words(rows, 0) == ("the plot [SEP] [CLS] a bad cast [SEP]", "bad cast [SEP]")
    assert (cuts.rows, cuts.answers) == (1, 1)


def test_columns_are_found_by_their_usual_names_and_joined_by_a_line_break() -> None:
    rows = [
        {"instruction": "name it", "input": " ", "output": 7},
        {"instruction": "name it", "input": "now", "output": " x"},
    ]
    found = dialogues(rows).rows
    assert [(row.prompt, row.answer) for row in found] == [("name it", "7"), ("name it\nnow", " x")]
    table = Table("t", [{"question": "a", "answer": "b", "body": "c"}], ("question", "answer", "body"))
    assert find_dialogue_columns(table, (), None) == DialogueColumns(("question",), "answer")
    assert find_dialogue_columns(table, ("body",), None) == DialogueColumns(("body",), "answer")
    with pytest.raises(DataError, match="--completion-column"):
        find_dialogue_columns(Table("t", [{"prompt": "a"}], ("prompt",)), (), None)
    with pytest.raises(DataError, match=r"no column 'x'; the file has: question"):
        find_dialogue_columns(table, ("x",), None)


@pytest.mark.parametrize(
    ("row", "template", "error", "message"),
    [
        (chat("film"), CHAT_TEMPLATE, DataError, "row 0: no message has the role 'assistant'"),
        (chat("film", " "), CHAT_TEMPLATE, DataError, "row 0: an answer of the assistant is empty"),
        ({"messages": "film"}, CHAT_TEMPLATE, DataError, "row 0: column 'messages' holds 'film'"),
        ({"messages": [{"role": "user"}]}, CHAT_TEMPLATE, DataError, "row 0: a message has None as its 'content'"),
        ({"prompt": "film", "completion": " "}, None, DataError, "row 0: the text in column 'completion' is empty"),
        (chat("film", "good"), None, ModelError, "no chat template"),
        (chat("film", "good", "plot", "bad"), FORGETFUL_TEMPLATE, ModelError, "row 0: .* writes message 1 in another"),
        (chat("film", "good"), "{{ raise_exception('no such role') }}", DataError, "row 0: .*no such role"),
        (
            chat("film", "good"),
            "{% if false %}{% generation %}{% endgeneration %}{% endif %}film good",
            DataError,
            "row 0: no token of an answer is left",
        ),
    ],
)
def test_a_row_that_cannot_be_learned_is_named(
    row: Row, template: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        encoded([row], speaker(template))


ASKED = [{"role": "system", "content": "story"}, {"role": "user", "content": "plot"}]
SAID = [{"role": "assistant", "content": "cast"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASKED, "completion": SAID},
        {"completion": SAID, "prompt": ASKED, "id": 3},
        {"conversations": [*ASKED, *SAID]},
        {
            "conversations": [
                {"from": "system", "value": "story"},
                {"from": "human", "value": "plot"},
                {"from": "gpt", "value": "cast", "weight": None},
            ]
        },
    ],
    ids=["trl", "trl, other order", "conversations", "sharegpt"],
)
def test_chats_of_other_formats_are_the_same_chat(row: Row) -> None:
    plain, found = (dialogues([one]) for one in ({"messages": [*ASKED, *SAID]}, row))
    assert found.chat and found.rows == plain.rows
    speaks = speaker(CHAT_TEMPLATE)
    one, other = (encode_dialogues(chats, speaks, 64, "mean")[0] for chats in (plain, found))
    assert torch.equal(one.features["input_ids"][0], other.features["input_ids"][0])
    assert torch.equal(one.labels[0], other.labels[0])


def test_a_chat_column_of_another_name_is_read_where_it_is_named() -> None:
    table = Table("train.jsonl", [{"turns": [*ASKED, *SAID]}], ("turns",))
    assert find_dialogue_columns(table, ["turns"], None) == DialogueColumns(chat="turns")
    with pytest.raises(DataError, match="name it with --completion-column"):
        find_dialogue_columns(table, [], None)


def test_a_template_is_told_the_same_day_every_day() -> None:
    dated = speaker("{{ strftime_now('%d %b %Y') }} " + CHAT_TEMPLATE)
    assert writes_date(dated) and not writes_date(speaker(CHAT_TEMPLATE))
    rendered = _render(dialogues([{"messages": [*ASKED, *SAID]}]), 0, dated)[0]
    assert rendered.startswith("26 Jul 2024 ")
