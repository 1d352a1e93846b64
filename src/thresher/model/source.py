"""Where a model comes from: a hub id, a folder, a GGUF file, or a package."""

from __future__ import annotations

import hashlib
from pathlib import Path

from thresher.data.packaged import PACKAGED, unpack
from thresher.errors import ModelError

GGUF = ".gguf"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "tekken.json")
TEMPLATES = ("chat_template*", "*.jinja", "additional_chat_templates/*.jinja")
READ_BY_SOME = ("*.txt", "*.codes", "*.bpe", "*.spm", "*.tiktoken")
"""What tokenizers of single families read beside those."""


def model_folder(source: str) -> str:
    """The folder, or hub id, to load the model from. Raises :class:`ModelError` for a folder without a model."""
    source = unpack(source)
    if source.endswith(GGUF):
        from thresher.model.gguf import unpacked_folder  # which imports torch

        return str(unpacked_folder(Path(source)))
    _refuse_incomplete_folder(source)
    return source


def refuse_no_model(source: str) -> None:
    """Raise :class:`ModelError` where a source is a folder that is not there, or lacks what a model has."""
    if not source.startswith(PACKAGED) and not source.endswith(GGUF):
        _refuse_incomplete_folder(source)


def model_fingerprint(source: str) -> str:
    """Hash of a file, or of a folder's weights, settings, tokenizer and chat template; a hub id stands for itself."""
    return _hash(source, "*.safetensors", "*.json", *TOKENIZER_FILES, *TEMPLATES, *READ_BY_SOME)


def same_weights(one: str, other: str) -> bool:
    """Whether two sources hold the same weights; by their last name alone where one of them is not here."""
    paths = [Path(unpack(source)) for source in (one, other)]
    if paths[0] == paths[1] or Path(other).suffix == GGUF:
        return True
    if all(path.exists() for path in paths):
        return _hash(one, "*.safetensors") == _hash(other, "*.safetensors")
    return paths[0].name == paths[1].name


def _hash(source: str, *patterns: str) -> str:
    path = Path(unpack(source))
    if not path.exists():
        return source
    found = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    files = [path] if path.is_file() else sorted(found)
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def refuse_no_folder(source: str) -> bool:
    """Raise :class:`ModelError` where a source is meant to be a folder and is none; False for a hub id."""
    folder = Path(source)
    if not folder.is_dir() and (folder.exists() or source.startswith((".", "/", "~"))):
        raise ModelError(f"{source}: there is no such folder; give a Hugging Face model folder or a hub id.")
    return folder.is_dir()


def _refuse_incomplete_folder(source: str) -> None:
    folder = Path(source)
    if not refuse_no_folder(source):
        return
    if not (folder / "config.json").is_file():
        raise ModelError(f"{source}: there is no config.json in this folder; give a Hugging Face model folder.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{source}: a model folder without weights (no .safetensors file); save the model there.")
    if not any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES):
        raise ModelError(
            f"{source}: there is no tokenizer in this folder; save the model's there with save_pretrained."
        )
