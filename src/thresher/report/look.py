"""The look that all pages share: colours for light and dark, tables, what has the focus."""

from __future__ import annotations

from pathlib import Path
from typing import Final

LOOK: Final = Path(__file__).with_name("look.css")
"""A style sheet."""
