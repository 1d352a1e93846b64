"""From dialogues to encoded rows in which only the tokens of answers are learned.

The text of a row is put together first, with the places of its answers in it; tokens that overlap an answer are the
ones a loss is taken on. So a token across the border of prompt and answer belongs to the answer, and the text is
tokenized as a whole, as it is when a model is trained on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from thresher.config import RowLoss
from thresher.data.dialogues import Dialogues, Message, join_texts
from thresher.data.encode import IGNORED, Cuts, EncodedRows
from thresher.errors import DataError, ModelError, first_line

TEMPLATE_DATE = datetime(2024, 7, 26)
"""The day that templates are told it is, or an audit would read other rows tomorrow; the one that Llama's names."""

_ASKS_DATE = re.compile(r"strftime_now\(\s*(['\"])(.*?)\1\s*\)")
_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


def writes_date(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template asks for today's date."""
    template = tokenizer.chat_template
    return isinstance(template, str) and _ASKS_DATE.search(template) is not None


def _pin_date(asked: re.Match[str]) -> str:
    return repr(TEMPLATE_DATE.strftime(asked[2]))


@dataclass
class _Tokens:
    """One row: token ids, and which of them are learned."""

    ids: list[int]
    learned: list[bool]

    def append(self, token: int) -> None:
        self.ids.append(token)
        self.learned.append(True)


def encode_dialogues(
    dialogues: Dialogues, tokenizer: Any, max_length: int, row_loss: RowLoss
) -> tuple[EncodedRows, Cuts]:
    """Tokenize every row; labels are the ids of answer tokens, ``IGNORED`` elsewhere.

    A completion ends with the end-of-sequence token, which is learned; a chat ends as its template has it. A row of
    more than ``max_length`` tokens loses the left of what comes before its last answer, up to one token (and not the
    token of the sequence's beginning), and the end of that answer only where it is too long by itself.

    Raises :class:`DataError` naming a row that is left without an answer token, :class:`ModelError` where the
    tokenizer or its chat template cannot tell where answers are.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError("The tokenizer does not tell where its tokens lie in the text; use a fast one.")
    whole = _chats(dialogues, tokenizer) if dialogues.chat else _completions(dialogues, tokenizer)
    ids: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    longer = poorer = lost = 0
    for row, before in enumerate(whole):
        tokens = _cut(before, max_length, tokenizer.bos_token_id)
        longer += len(tokens.ids) < len(before.ids)
        lost += len(before.ids) - len(tokens.ids)
        poorer += sum(tokens.learned[1:]) < sum(before.learned[1:])
        if not any(tokens.learned[1:]):  # the first token has none before it to be predicted from
            raise DataError(f"{dialogues.table.where(row)}: no token of an answer is left to learn; mend the row.")
        ids.append(torch.tensor(tokens.ids))
        learned = torch.tensor([False, *tokens.learned[1:]])
        labels.append(ids[-1].masked_fill(~learned, IGNORED))
    return EncodedRows({"input_ids": ids}, labels, row_loss), Cuts(
        longer, lost, sum(len(tokens.ids) for tokens in whole), poorer
    )


def _completions(dialogues: Dialogues, tokenizer: Any) -> list[_Tokens]:
    texts = [join_texts(row.prompt, row.answer) for row in dialogues.rows]
    answers = [(len(text) - len(row.answer), len(text)) for text, row in zip(texts, dialogues.rows, strict=True)]
    found = _tokenize(tokenizer, texts, [[answer] for answer in answers], special=True)
    for tokens in found:
        if tokens.ids[-1] == tokenizer.eos_token_id:  # in the completion, or put there by the tokenizer
            tokens.learned[-1] = True
        elif tokenizer.eos_token_id is not None:
            tokens.append(tokenizer.eos_token_id)
    return found


def _chats(dialogues: Dialogues, tokenizer: Any) -> list[_Tokens]:
    template = tokenizer.chat_template
    if not template:
        raise ModelError(
            f"{dialogues.table.source}: the rows are chats, and the tokenizer has no chat template to write them "
            "with; use an instruction-tuned model, or rows of prompt and completion."
        )
    if isinstance(template, str) and _MARKS_ANSWERS.search(template):
        return [_mark_answers(dialogues, row, tokenizer) for row in range(len(dialogues))]
    rendered = [_render(dialogues, row, tokenizer) for row in range(len(dialogues))]
    found = _tokenize(tokenizer, [text for text, _ in rendered], [answers for _, answers in rendered], special=False)
    ends = {token for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    for tokens in found:
        _end_with(tokens, ends, tokenizer.eos_token_id)
    return found


def _mark_answers(dialogues: Dialogues, row: int, tokenizer: Any) -> _Tokens:
    """By a template that marks what the assistant says."""
    found = _apply_template(dialogues, row, tokenizer, dialogues.rows[row].messages, return_assistant_tokens_mask=True)
    return _Tokens(list(found["input_ids"]), [bool(said) for said in found["assistant_masks"]])


def _render(dialogues: Dialogues, row: int, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text of a chat, and where its answers are: what each adds to the conversation up to it."""
    messages = dialogues.rows[row].messages
    text: str = _apply_template(dialogues, row, tokenizer, messages, tokenize=False)
    answers: list[tuple[int, int]] = []
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            before: str = _apply_template(
                dialogues, row, tokenizer, messages[:turn], tokenize=False, add_generation_prompt=True
            )
            said: str = _apply_template(dialogues, row, tokenizer, messages[: turn + 1], tokenize=False)
            if not (text.startswith(said) and said.startswith(before)):
                raise ModelError(
                    f"{dialogues.table.where(row)}: the tokenizer's chat template writes message {turn} in another "
                    "way once more follows, so its answer cannot be told apart; use a template that marks answers "
                    "with {% generation %}, or rows of one answer each."
                )
            answers.append((len(before), len(said)))
    return text, answers


def _apply_template(dialogues: Dialogues, row: int, tokenizer: Any, messages: Sequence[Message], **how: Any) -> Any:
    if writes_date(tokenizer):
        how["chat_template"] = _ASKS_DATE.sub(_pin_date, tokenizer.chat_template)
    try:
        return tokenizer.apply_chat_template([dict(message) for message in messages], return_dict=True, **how)
    except Exception as error:  # templates are programs of their own, and refuse in their own ways
        where = dialogues.table.where(row)
        raise DataError(f"{where}: the chat template cannot write this chat ({first_line(error)}).") from None


def _tokenize(
    tokenizer: Any, texts: list[str], answers: Sequence[Sequence[tuple[int, int]]], *, special: bool
) -> list[_Tokens]:
    encoded = tokenizer(texts, add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    return [
        _Tokens(list(ids), [_lies_in(places, *offset) for offset in offsets])
        for ids, offsets, places in zip(encoded["input_ids"], encoded["offset_mapping"], answers, strict=True)
    ]


def _lies_in(answers: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    # Some tokenizers trim white space from offsets, so that a token of white space is empty and lies at its own end.
    return any(first < end and min(start, end - 1) < last for first, last in answers)


def _end_with(tokens: _Tokens, ends: set[int], eos: int | None) -> None:
    """Let every answer end with the template's own end token, or the last with ``eos`` where it has none."""
    last = len(tokens.ids)
    for place in reversed(range(len(tokens.ids))):
        if not tokens.learned[place]:
            last = place
        elif tokens.ids[place] in ends and not any(token in ends for token in tokens.ids[place + 1 : last]):
            tokens.learned[place + 1 : last] = [False] * (last - place - 1)  # a line break after the end, say
    if eos is not None and tokens.learned[-1] and tokens.ids[-1] not in ends:
        tokens.append(eos)


def _cut(tokens: _Tokens, limit: int, bos: int | None) -> _Tokens:
    excess = len(tokens.ids) - limit
    if excess <= 0:
        return tokens
    last = max((place for place, learned in enumerate(tokens.learned) if learned), default=0)
    answer = last
    while answer > 0 and tokens.learned[answer - 1]:
        answer -= 1
    kept = 1 if tokens.ids[0] == bos and answer > 0 else 0
    # One token must come before the answer for its first to be predicted from.
    dropped = max(0, min(excess, answer - max(kept, 1)))
    rest = slice(kept + dropped, limit + dropped)
    return _Tokens(tokens.ids[:kept] + tokens.ids[rest], tokens.learned[:kept] + tokens.learned[rest])
