"""Models in GGUF files, whose weights are packed: unpacked once into an ordinary model folder, and kept.

The library loads such a file but refuses to save what it loaded, so the weights move into a fresh model of the same
configuration. Unpacking takes seconds a file; the folder is kept in the user's cache under a hash of the file.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from thresher.errors import ModelError, first_line
from thresher.files import written_folder
from thresher.model.quiet import quiet
from thresher.model.source import GGUF

log = logging.getLogger(__name__)


def unpacked_folder(file: Path) -> Path:
    """A folder with the file's causal LM in float32 and its tokenizer, made if it is not in the cache yet.

    Raises :class:`ModelError` where the file is not there, cannot be read, or the ``gguf`` package is missing.
    """
    if not file.is_file():
        raise ModelError(f"{file}: there is no such file; name a {GGUF} file that exists.")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    folder = _cache() / f"{file.stem}-{digest}"
    if not folder.is_dir():
        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f"{file}: reading {GGUF} files needs the 'gguf' package: pip install 'thresher[gguf]'.")
        log.warning("unpacking %s into %s, once", file.name, folder)
        with written_folder(folder) as temporary:
            _unpack(file, temporary)
    return folder


def _unpack(file: Path, folder: Path) -> None:
    source: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    try:
        with quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(file.parent, **source)
            packed: Any = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **source)
            config = copy.deepcopy(packed.config)
            del config.quantization_config
            with torch.device("meta"):  # no weights are drawn, for all are given
                fresh: Any = type(packed)(config)
            fresh.load_state_dict(packed.state_dict(), assign=True)
            fresh.tie_weights()
            fresh.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # the library raises many kinds
        raise ModelError(f"{file}: cannot be loaded as a causal language model ({first_line(error)}).") from error


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "thresher" / "gguf"
