"""The tokenizer that the model was trained with, and whether its tokens fit the model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.utils.hub import cached_file

from thresher.data.encode import EncodedRows
from thresher.errors import DataError, ModelError
from thresher.model.source import TEMPLATES, TOKENIZER_FILES

log = logging.getLogger(__name__)


def load_tokenizer(source: str, adapter: str | None) -> Any:
    """The tokenizer that was saved beside the adapter, for the training used that one; else the model's.

    Where only a chat template lies beside the adapter, the model's tokenizer writes with it.
    """
    beside = adapter is not None and _has(adapter, TOKENIZER_FILES, "tokenizer_config.json")
    tokenizer: Any = AutoTokenizer.from_pretrained(adapter if beside else source, trust_remote_code=False)
    if adapter is not None and not beside and (template := _template_beside(Path(adapter))) is not None:
        tokenizer.chat_template = template
    return tokenizer


def _has(adapter: str, patterns: tuple[str, ...], file: str) -> bool:
    folder = Path(adapter)
    if folder.is_dir():
        return any(next(folder.glob(pattern), None) for pattern in patterns)
    return cached_file(adapter, file, _raise_exceptions_for_missing_entries=False) is not None


def _template_beside(folder: Path) -> str | None:
    files = [file for pattern in TEMPLATES for file in sorted(folder.glob(pattern)) if file.suffix == ".jinja"]
    return files[0].read_text(encoding="utf-8") if files else None


def set_padding(model: Any, tokenizer: Any, source: str) -> None:
    """One pad id for tokenizer and model, so that decoders pool the last real token.

    Raises :class:`ModelError` where neither the pad token nor the end token can stand for it.
    """
    rows = embedding_rows(model)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad is None or pad >= rows:
        outside = "" if pad is None else f"the pad token '{tokenizer.pad_token}' has number {pad}, "
        if end is None or end >= rows or (outside and tokenizer("a")["input_ids"][-1] == end):
            wrong = f"{outside}and the embedding rows for 0 to {rows - 1}" if outside else "neither a pad nor an end"
            raise ModelError(
                f"{source}: the tokenizer has no pad token to use ({wrong}); set one in tokenizer_config.json."
            )
        if outside:
            log.warning(
                "%s: %sand the embedding rows for 0 to %d; rows are padded with the end token instead, which no "
                "result depends on.",
                source,
                outside,
                rows - 1,
            )
        tokenizer.pad_token = tokenizer.eos_token
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id


def embedding_rows(model: Any) -> int:
    """How many tokens the model's word embedding knows."""
    weight: torch.Tensor = model.get_input_embeddings().weight
    return len(weight)


def refuse_unfit_tokens(model: Any, tokenizer: Any, rows: EncodedRows, where: Callable[[int], str]) -> None:
    """Raise :class:`DataError` naming the row that has tokens which the model cannot take.

    A token outside the embedding, or in a classifier that reads its encoder's end token, more end tokens than others.
    """
    known, ids = embedding_rows(model), rows.features["input_ids"]
    for row, tokens in enumerate(ids):
        largest = int(tokens.max())
        if largest >= known:
            raise DataError(
                f"{where(row)}: token '{tokenizer.convert_ids_to_tokens(largest)}' has number {largest}, and the "
                f"model's embedding {known} rows; "
                "save the model with its embedding resized to the tokenizer, or use the tokenizer it was trained with."
            )
    end = tokenizer.eos_token_id
    if end is None or not model.config.is_encoder_decoder or not isinstance(rows.labels, torch.Tensor):
        return
    counts = np.array([int((tokens == end).sum()) for tokens in ids])
    odd = np.flatnonzero(counts != np.bincount(counts).argmax())
    if len(odd):
        raise DataError(
            f"{where(int(odd[0]))}: its text holds the end token '{tokenizer.eos_token}', which this model may meet "
            f"only where a text ends ({len(odd)} such rows); take it out of the text."
        )
