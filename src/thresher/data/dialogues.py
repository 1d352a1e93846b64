"""Rows to generate from: a prompt with its completion, or the turns of a chat. Each is a list of messages.

A chat is a column of messages, as chat templates write them or as ShareGPT did, or TRL's prompt and completion, which
are two lists of messages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, TypeGuard, cast

from thresher.data.examples import refuse_unusable, text_value
from thresher.data.table import Table
from thresher.errors import DataError

CHAT_COLUMNS = ("messages", "conversations", "conversation")
PROMPT_COLUMNS = (("prompt",), ("instruction", "input"), ("instruction",), ("question",), ("input",))
COMPLETION_COLUMNS = ("completion", "output", "response", "answer")

_SHAREGPT = {"from": "role", "value": "content"}
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "bing": "assistant",
    "chatgpt": "assistant",
    "function_call": "assistant",
}
"""What ShareGPT calls the roles that chat templates know; others are called alike."""

Message = Mapping[str, Any]
"""``role`` ("user", "assistant", "system", ...) and ``content``, both texts; templates may know further fields."""


@dataclass(frozen=True)
class DialogueColumns:
    """The columns of the prompt's parts and of the completion, or the one that holds the messages of a chat."""

    prompt: tuple[str, ...] = ()
    completion: str = ""
    chat: str = ""

    @property
    def names(self) -> list[str]:
        """Every column that is read."""
        return [name for name in (*self.prompt, self.completion, self.chat) if name]


@dataclass(frozen=True)
class Dialogue:
    """One row: messages that end with an answer of the assistant, the last of the row."""

    messages: tuple[Message, ...]

    @property
    def answer(self) -> str:
        """Content of the last answer."""
        return self.messages[-1]["content"]

    @property
    def prompt(self) -> str:
        """What comes before the last answer, as a person reads it."""
        before = self.messages[:-1]
        if len(before) == 1:
            return before[0]["content"]
        return "\n".join(f"{message['role']}: {message['content']}" for message in before)

    def with_answer(self, answer: str) -> Dialogue:
        """The same row with another last answer."""
        return Dialogue((*self.messages[:-1], {**self.messages[-1], "content": answer}))


@dataclass(frozen=True)
class Dialogues:
    """The rows of a table. ``chat`` says that a chat template puts their messages together, not plain joining."""

    table: Table
    rows: Sequence[Dialogue]
    chat: bool

    def __len__(self) -> int:
        return len(self.rows)


def find_dialogue_columns(table: Table, prompt: Sequence[str], completion: str | None) -> DialogueColumns:
    """The columns the user named, or else the chat column, or the first known names that the table has.

    Raises :class:`DataError` for a column that is not there, or where none can be told.
    """
    have = ", ".join(table.columns)
    refuse_missing(table, [*prompt, *([completion] if completion else [])])
    if completion is None:
        chat = next((name for name in prompt or CHAT_COLUMNS if name in table.columns and _is_chat(table, name)), None)
        if chat is not None and len(prompt) < 2:
            return DialogueColumns(chat=chat)
    if completion is None:
        completion = next((name for name in COMPLETION_COLUMNS if name in table.columns and name not in prompt), None)
        if completion is None:
            raise DataError(
                f"{table.source}: cannot tell which column is the answer; name it with --completion-column ({have})."
            )
    if not prompt:
        left = [name for name in table.columns if name != completion]
        prompt = next((names for names in PROMPT_COLUMNS if all(name in left for name in names)), ())
        if not prompt:
            raise DataError(
                f"{table.source}: cannot tell which column is the prompt; name it with --prompt-column ({have})."
            )
    return DialogueColumns(tuple(prompt), completion)


def _is_chat(table: Table, column: str) -> bool:
    """Whether the first row has a whole chat in a column: messages among which one is the assistant's."""
    if column == CHAT_COLUMNS[0]:
        return True
    value = table.records[0].get(column)
    return _is_messages(value) and any(_spell(one).get("role") == "assistant" for one in value)


def _is_messages(value: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    return isinstance(value, (list, tuple)) and all(isinstance(one, Mapping) for one in cast(Sequence[Any], value))


def refuse_missing(table: Table, names: Sequence[str]) -> None:
    """Raise :class:`DataError` where the table lacks one of the columns."""
    for name in names:
        if name not in table.columns:
            raise DataError(f"{table.source}: there is no column '{name}'; the file has: {', '.join(table.columns)}.")


def read_dialogues(table: Table, columns: DialogueColumns) -> Dialogues:
    """Every row as a dialogue.

    Parts of a prompt are joined (:func:`join_texts`). What follows the last answer of a chat is left out: nothing is
    learned from it. Raises :class:`DataError` naming the row for an empty or missing text, or a chat without an answer.
    """
    if columns.chat:
        return Dialogues(table, [_chat(table, row, (columns.chat,)) for row in range(len(table))], chat=True)
    if len(columns.prompt) == 1 and all(_is_messages(table.records[0].get(name)) for name in columns.names):
        return Dialogues(table, [_chat(table, row, columns.names) for row in range(len(table))], chat=True)
    return Dialogues(table, [_plain(table, row, columns) for row in range(len(table))], chat=False)


def _plain(table: Table, row: int, columns: DialogueColumns) -> Dialogue:
    first, *others = columns.prompt
    prompt = text_value(table, row, first)
    for column in others:
        part = table.records[row].get(column)
        if part is not None and str(part).strip():  # the input beside an instruction may be empty
            prompt = join_texts(prompt, text_value(table, row, column))
    value = table.records[row].get(columns.completion)
    number = isinstance(value, int) or (isinstance(value, float) and not isnan(value))
    answer = str(value) if number else text_value(table, row, columns.completion)
    return Dialogue(({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}))


def join_texts(left: str, right: str) -> str:
    """Two texts one after the other, with a line break where no white space parts them."""
    return left + right if left[-1:].isspace() or right[:1].isspace() else f"{left}\n{right}"


def _chat(table: Table, row: int, columns: Sequence[str]) -> Dialogue:
    """The messages of a column, or those of a prompt and after them those of its completion."""
    messages: list[Message] = []
    for column in columns:
        value = table.records[row].get(column)
        if not isinstance(value, (list, tuple)):
            raise DataError(f"{table.where(row)}: column '{column}' holds {value!r:.40}, not a list of messages.")
        messages += [_message(table, row, message) for message in cast(Sequence[Any], value)]
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers:
        raise DataError(f"{table.where(row)}: no message has the role 'assistant', so there is no answer to learn.")
    return Dialogue(tuple(messages[: answers[-1] + 1]))


def _message(table: Table, row: int, value: Any) -> Message:
    fields = _spell(value)
    for name in ("role", "content"):
        if not isinstance(fields.get(name), str):
            raise DataError(
                f"{table.where(row)}: a message has {fields.get(name)!r:.40} as its '{name}'; each needs a text for "
                "'role' and for 'content' (or 'from' and 'value')."
            )
        refuse_unusable(table, row, f"the '{name}' of a message", fields[name])
    if fields["role"] == "assistant" and not fields["content"].strip():
        raise DataError(f"{table.where(row)}: an answer of the assistant is empty; fill it or remove the row.")
    return {name: part for name, part in fields.items() if part is not None}


def _spell(value: Any) -> dict[str, Any]:
    """A message's fields as chat templates call them, whether it is written their way or ShareGPT's."""
    fields: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {}
    if "role" in fields or "from" not in fields:
        return fields
    fields = {_SHAREGPT.get(name, name): part for name, part in fields.items()}
    return {**fields, "role": _ROLES.get(fields["role"], fields["role"])}
