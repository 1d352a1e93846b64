"""What the documentation names is there: links, files, options, and examples that run."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import typer

from thresher.cli import app

ROOT = Path(__file__).parents[1]
SOURCES = [
    f"/{file}"
    for folder in ("src", "study", "examples", "docs", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
# A path of this repository: it begins with one of its folders, and has no word in capitals that stands for another.
NAMED = re.compile(r"(?<![\w./-])(?:docs|src|tests|examples|benchmarks|study|requirements)/[\w./-]*\w")
ROOM = re.compile(r"`((?:[a-z_]+/)+[a-z_]+\.py)`")
COMMAND = re.compile(r"^(?:    )?thresher ([a-z]+)((?: [^\n]*\\\n)*[^\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<!\S)--[a-z][a-z0-9-]*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_paths_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [name for name in NAMED.findall(text) if not (ROOT / name).exists()] == []


@pages
def test_files_of_rooms_exist(page: Path) -> None:
    """`model/names.py` is a file of the product, or of the study beside it."""
    named = ROOM.findall(page.read_text(encoding="utf-8"))
    assert [name for name in named if not any(source.endswith(f"/{name}") for source in SOURCES)] == []


@pages
def test_commands_have_the_options_that_they_are_shown_with(page: Path) -> None:
    commands: dict[str, typer.main.click.Command] = typer.main.get_command(app).commands  # pyright: ignore
    for name, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
        shown = rest.split("#")[0]
        have = {
            option for parameter in commands[name].params for option in [*parameter.opts, *parameter.secondary_opts]
        }
        assert set(OPTION.findall(shown)) <= have, (name, shown)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_adapter", "own_trainer"])
def test_examples_find_wrong_labels(name: str, tmp_path: Path) -> None:
    """On fewer rows than they take by themselves, and yet clearly more than the 30 % of chance."""
    main = runpy.run_path(str(ROOT / f"examples/{name}.py"))["main"]
    assert main(tmp_path, count=240, epochs=4) > 0.45
