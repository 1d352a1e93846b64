"""The library's own reports and bars, silenced where Thresher says what happens."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager

from transformers.utils import logging as hf_logging


@contextmanager
def quiet() -> Generator[None]:
    """No load reports (a new head is expected, and the plan says so) and no bars over files.

    Nor the one deprecation that PEFT runs into whenever it wraps a model: it asks ``transformers`` by an old name, and
    no user can mend that. Other warnings are let through.
    """
    level = hf_logging.get_verbosity()
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
