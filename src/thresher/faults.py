"""Faults of ours: what is known of one, in a file that its finder can pass on."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version

from thresher.errors import trace

FAULT = 70
"""Exit code after one: what sysexits.h calls a fault of the software."""


def write_report(error: BaseException) -> str:
    """Put down how a fault came about, with the versions of all that took part; a sentence says where.

    Nobody else on the machine may read the file: a trace can quote rows.
    """
    text = "\n".join([shlex.join(sys.argv), *_versions(), "", trace(error), ""])
    try:
        opened, file = tempfile.mkstemp(prefix="thresher-fault-", suffix=".txt")
        with os.fdopen(opened, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as refused:
        return f"This is a fault of Thresher; no report of it could be written ({refused.strerror})."
    return f"This is a fault of Thresher; {file} tells how it came about: please pass it on."


def _versions() -> list[str]:
    """Python, the system, and every package that Thresher needs."""
    asked = ["thresher", *(requires("thresher") or ())]
    names = [found[0] for one in asked if "extra ==" not in one and (found := re.match(r"[\w.-]+", one))]
    about = [f"Python {platform.python_version()} on {platform.platform()}"]
    for name in names:
        try:
            about.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            about.append(f"{name} is missing")
    return about
