"""Docstrings for the site: Sphinx roles and double backticks, as the sources have them, become Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")


class Roles(Extension):
    """Rewrites the docstring of every object of the package before it is parsed into sections."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Take ``:class:`Name``` and double backticks as code."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value).replace("``", "`")
