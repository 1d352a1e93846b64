"""The model under audit with its tokenizer: a sequence classifier with its classes, or a causal LM."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME
from transformers.utils.hub import cached_file

from thresher.config import ModelConfig, TaskName
from thresher.errors import ModelError, first_line
from thresher.files import read_given
from thresher.model.adapters import load_adapter
from thresher.model.classes import Numbering, class_numbers
from thresher.model.names import attention_projections, head_modules
from thresher.model.quantise import move_model, packing
from thresher.model.quiet import quiet
from thresher.model.source import model_folder
from thresher.model.tokenizer import load_tokenizer, set_padding

log = logging.getLogger(__name__)

Kind = Literal["lora", "adapter", "whole"]
Learns = Literal["SEQ_CLS", "CAUSAL_LM"]

CLASSIFIER, GENERATOR = "a sequence classifier", "a causal language model"

MOST_TOKENS, MOST_LAYERS = 2**20, 10_000
"""Tokens of a row, where neither model nor tokenizer has a limit; and ten times the layers of any model."""


@dataclass(frozen=True)
class LoadedModel:
    """A model with its tokenizer.

    ``classes`` maps class names to a classifier's numbers. ``kind``: "lora" is still to be fine-tuned (or was, by us);
    "adapter" and "whole" were fine-tuned by the user. ``untrained`` names the parts that no checkpoint filled;
    ``classes_assumed`` says in words what was assumed of the classes' numbers, "" where they are known. ``head`` names
    the parts outside the backbone that are trained and audited whole, and ``learns`` says in PEFT's words what the
    model learns.
    """

    model: nn.Module
    tokenizer: Any
    classes: dict[str, int]
    kind: Kind
    untrained: tuple[str, ...] = ()
    classes_assumed: str = ""
    head: tuple[str, ...] = ()
    learns: Learns = "SEQ_CLS"

    @property
    def pad_id(self) -> int:
        """Token id that fills up batches; decoders pool the last token that is another."""
        return int(self.tokenizer.pad_token_id)

    @property
    def weights_a_token(self) -> int:
        """Weights that every token meets: all but the word embedding's."""
        model: Any = self.model
        embedding: nn.Parameter = model.get_input_embeddings().weight
        return sum(p.numel() for p in self.model.parameters() if p is not embedding)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


def load_classifier(
    config: ModelConfig, classes: Sequence[str], seed: int, declared: Sequence[str] = ()
) -> LoadedModel:
    """Load a classifier, its tokenizer and, if named, its adapter.

    ``classes`` are the training data's, in order; ``declared`` all that its source has names for, by their numbers.

    Raises :class:`ModelError` where the folder has no weights or the parts do not fit together, :class:`DataError`
    where a label of the data is none of a fine-tuned model's.
    """
    source = model_folder(config.model)
    settings = _read_settings(source, CLASSIFIER)
    has_head = any(name.endswith("ForSequenceClassification") for name in settings.architectures or [])
    kind = _kind(config, trained=has_head)
    packed = _packing(config, kind, settings, classifies=True)
    named = Numbering({name: number for number, name in enumerate(classes)})
    if kind != "lora":
        named = class_numbers(settings, classes, config.adapter, declared)
        _tell_other_problem(settings, source)
    torch.manual_seed(seed)  # a new head is drawn at random
    with quiet(), _explain(source, CLASSIFIER):
        tokenizer = load_tokenizer(source, config.adapter)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=config.dtype,
            output_loading_info=True,
            **packed,
            **({} if kind == "whole" else _new_head(named.numbers)),
        )
    head = tuple(head_modules(model))
    missing = set(info["missing_keys"]) | {k[0] for k in info["mismatched_keys"]}
    untrained = _untrained_parts(head, source, missing)
    if kind == "whole" and untrained:
        raise ModelError(f"{source}: no trained weights for {', '.join(untrained)}; say --finetune to train them.")
    set_padding(model, tokenizer, source)
    model = _place(model, config, untrained)
    return LoadedModel(model, tokenizer, named.numbers, kind, untrained, named.assumed, head)


def check_model(source: str, task: TaskName = "classify") -> None:
    """Raise :class:`ModelError` where there is no such model: a hub id, a folder, or another source of weights.

    Only its settings are read, so that this takes no time; what else ``task`` asks of it is found when it is loaded.
    """
    _read_settings(model_folder(source), CLASSIFIER if task == "classify" else GENERATOR)


def _read_settings(source: str, what: str) -> Any:
    """The configuration of a model. Raises :class:`ModelError` that says it cannot be loaded as ``what``."""
    with quiet(), _explain(source, what):
        settings: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
        layers = getattr(settings.get_text_config(), "num_hidden_layers", 0)
        if isinstance(layers, int) and layers > MOST_LAYERS:  # each takes a while to make, before weights are looked at
            raise ValueError(f"config.json asks for {layers:,} layers")
        index = cached_file(source, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
        shards = set(read_given(Path(index), dict[str, Any])["weight_map"].values()) if index else set[Any]()
    pickles = sorted(shard for shard in map(str, shards) if not shard.endswith(".safetensors"))
    if pickles:  # which the library would open, though it is told not to
        raise ModelError(
            f"{source}: has weights in '{pickles[0]}'; save the model as safetensors (no pickle is opened)."
        )
    return settings


def load_generator(config: ModelConfig) -> LoadedModel:
    """Load a causal LM, its tokenizer and, if named, its adapter. Raises :class:`ModelError` where it cannot be used.

    It is to be fine-tuned unless the configuration names an adapter or says that it was. Its output head is neither
    trained nor audited unless asked for.
    """
    source = model_folder(config.model)
    kind = _kind(config, trained=False)
    settings = _read_settings(source, GENERATOR)
    packed = _packing(config, kind, settings, classifies=False)
    with quiet(), _explain(source, GENERATOR):
        tokenizer = load_tokenizer(source, config.adapter)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=config.dtype,
            output_loading_info=True,
            **packed,
        )
        model, info = loaded
    _untrained_parts((), source, info["missing_keys"])
    _refuse_looking_ahead(model, source)
    set_padding(model, tokenizer, source)
    return LoadedModel(_place(model, config, ()), tokenizer, {}, kind, learns="CAUSAL_LM")


@torch.no_grad()
def _refuse_looking_ahead(model: nn.Module, source: str) -> None:
    """An encoder can be loaded as a language model too, and would see the answers that it is to predict."""
    first, other = model(torch.tensor([[0, 1], [0, 2]], device=next(model.parameters()).device)).logits[:, 0].float()
    if (first - other).norm() > 0.01 * first.norm():
        raise ModelError(f"{source}: sees the tokens that it predicts; --task generate needs a causal language model.")


def audited_by_default(subject: LoadedModel, *, projected: bool) -> str | None:
    """Pattern of the parameters to audit: None for what is trainable and the embedding.

    A model fine-tuned whole is audited through its query and value projections and a classifier's head, or where
    gradients are projected, through everything.
    """
    if subject.kind != "whole" or projected:
        return None
    parts = [*attention_projections(subject.model), *subject.head]
    return "^(" + "|".join(part.replace(".", r"\.") for part in parts) + r")\."


def _kind(config: ModelConfig, *, trained: bool) -> Kind:
    """``trained`` says that the model by itself shows that it was fine-tuned."""
    if config.adapter is not None:
        if config.finetune:
            raise ModelError("--adapter names a fine-tuned adapter and --finetune asks for a new one; choose one.")
        return "adapter"
    finetune = not trained if config.finetune is None else config.finetune
    return "lora" if finetune else "whole"


def _packing(config: ModelConfig, kind: Kind, settings: Any, *, classifies: bool) -> dict[str, Any]:
    """What to tell ``from_pretrained`` of packed weights; refused for a model whose own weights are to be audited."""
    if config.quantize is None:
        return {}
    if kind == "whole":
        raise ModelError(
            f"--quantize {config.quantize}: packed weights have no gradients, and this model was fine-tuned whole; "
            "name its --adapter, or say --finetune."
        )
    with _using_device(config) as device:
        torch.empty(0, device=device)
    return packing(config, settings, device, _full_precision(settings) if classifies else None)


def _full_precision(settings: Any) -> list[str]:
    """Parts of a classifier that may be trained whole: its head, and a pooler that no checkpoint fills."""
    with torch.device("meta"):
        skeleton: Any = AutoModelForSequenceClassification.from_config(settings, trust_remote_code=False)
    poolers = [name for name, _ in skeleton.named_modules() if name.rpartition(".")[2] == "pooler"]
    return [*head_modules(skeleton), *poolers]


def _new_head(classes: dict[str, int]) -> dict[str, Any]:
    return {
        "num_labels": len(classes),
        "id2label": {number: name for name, number in classes.items()},
        "label2id": classes,
        "problem_type": "single_label_classification",
        "ignore_mismatched_sizes": True,
    }


def most_tokens(model: nn.Module, tokenizer: Any, asked: int | None) -> int:
    """How many tokens a row may have: as many as are ``asked`` for, and the model has positions for.

    Of a model without positions of its own, as many as its tokenizer says, where nothing is asked for.
    """
    limits = [limit for limit in (asked, _positions(model)) if limit is not None]
    return min(limits or (getattr(tokenizer, "model_max_length", MOST_TOKENS), MOST_TOKENS))


def _positions(model: nn.Module) -> int | None:
    config: Any = model.config
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    # Models of RoBERTa's kind count positions from the one after the pad id.
    offsets = [m.padding_idx for name, m in model.named_modules() if name.endswith("position_embeddings")]
    return positions - (max((offset for offset in offsets if isinstance(offset, int)), default=-1) + 1)


def _untrained_parts(heads: Sequence[str], source: str, missing: Iterable[str]) -> tuple[str, ...]:
    """Parts that the checkpoint did not fill: the head, perhaps a pooler. Anything else missing is an error."""
    missing = set(missing)
    parts: dict[str, None] = {}
    for key in sorted(missing):
        part = next((head for head in heads if key.startswith(f"{head}.")), None)
        if part is None and ".pooler." in key:
            part = key[: key.index(".pooler.") + len(".pooler")]
        if part is None:
            raise ModelError(f"{source}: the checkpoint has no weights for '{key}' (and {len(missing) - 1} more).")
        parts[part] = None
    return tuple(parts)


def _tell_other_problem(settings: Any, source: str) -> None:
    """A model of another kind of labels is audited by cross-entropy all the same, which is not what trained it."""
    problem = getattr(settings, "problem_type", None)
    if problem in ("regression", "multi_label_classification"):
        log.warning(
            "%s: was trained for %s, and is audited here by the cross-entropy of one class a row; for its own loss use "
            "thresher.influence.",
            source,
            problem.replace("_", " "),
        )


def _place(model: Any, config: ModelConfig, untrained: tuple[str, ...]) -> nn.Module:
    """The model with its adapter, if one is named, on its device."""
    if config.adapter is not None:
        model = load_adapter(model, config.adapter, untrained, config.model)
    with _using_device(config) as device:
        return move_model(model, device)


@contextmanager
def _using_device(config: ModelConfig) -> Generator[torch.device]:
    device = config.device or best_device()
    try:
        yield torch.device(device)
    except (RuntimeError, AssertionError) as error:  # the library has no one kind for a device that is not there
        raise ModelError(f"--device {device}: cannot be used ({first_line(error)})") from None


def best_device() -> str:
    """The device of an audit that names none, as the configuration records it."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


@contextmanager
def _explain(source: str, wanted: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # the library raises many kinds: files, keys, architectures, network
        raise ModelError(f"{source}: cannot be loaded as {wanted} ({first_line(error)})") from error
