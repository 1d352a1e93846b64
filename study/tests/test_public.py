"""What the study takes of the product is what the product offers everybody."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import thresher

ROOT = Path(__file__).parents[2]


def test_only_public_names_of_the_product_are_used() -> None:
    """What docs/architecture.md lists under "What is public" is what a package beside the product may import."""
    section = (
        (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## What is public")[1].split("\n## ")[0]
    )
    public = set(re.findall(r"`(thresher[\w.]*)`", section))
    used: set[str] = set()
    for file in (ROOT / "study/src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "thresher":
                used.add(node.module)
            if isinstance(node, ast.Import):
                used |= {one.name for one in node.names if one.name.split(".")[0] == "thresher"}
    assert "thresher" in used
    assert used <= public
    for name in public:
        importlib.import_module(name)
    for name in thresher.__all__:
        assert getattr(thresher, name) is not None
