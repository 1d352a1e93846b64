"""The review in a real Chromium: keys, undo, two windows, a killed server, texts that would do harm, and axe-core.

Skipped where there is no browser; CONTRIBUTING.md says what to install.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import thresher
from audits import Audits
from folders import write_rows
from thresher.decisions import DecisionLog

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")]

AUDITS = Audits({"train": 60, "validation": 20}, {"quick": True})
EVIL = ['<img src=x onerror="window.evil=1">', "</div><script>window.evil=1</script>", "\u202egnp.exe \x1b[31m"]


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    """A first look at rows of which some texts would do harm if they were more than texts."""
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    for row, text in zip(rows, EVIL, strict=False):
        row["text"] += f" {text}"
    write_rows(place / "evil.jsonl", rows)
    return thresher.audit(AUDITS.options(place, place / "run", train=str(place / "evil.jsonl"))).folder


@contextmanager
def served(run: Path) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """The address of a review of the run, and its process."""
    command = [sys.executable, "-m", "thresher", "review", str(run), "--no-browser", "--who", "ann"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        try:
            yield address, process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def browser() -> Generator[Any]:
    with sync_api.sync_playwright() as started:
        one = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield one
        one.close()


@contextmanager
def window(browser: Any, address: str, **how: Any) -> Generator[Any]:
    """A page that shows the first row and why it is suspected; in the end it must not have complained."""
    page = browser.new_context(**how).new_page()
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#why h2", timeout=120_000)
    yield page
    assert page.evaluate("window.evil") is None
    assert said == []
    page.context.close()


def row_of(page: Any) -> int:
    return int(page.get_attribute("#card", "data-row"))


def press(page: Any, key: str) -> None:
    """Press a key that moves to another row."""
    before = row_of(page)
    page.keyboard.press(key)
    wait(lambda: row_of(page) != before)


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def verdicts(run: Path) -> list[str]:
    return [one.verdict for one in DecisionLog(run / "decisions.jsonl").read()]


def test_every_key_decides_and_undo_takes_it_back(run: Path, browser: Any) -> None:
    (run / "decisions.jsonl").unlink(missing_ok=True)
    with served(run) as (address, _), window(browser, address) as page:
        first = row_of(page)
        page.keyboard.press("m")
        page.keyboard.type("k d z 1")  # letters in a note decide nothing
        page.keyboard.press("Enter")
        assert row_of(page) == first and verdicts(run) == []
        for key in "kadu1":
            press(page, key)
        assert verdicts(run) == ["keep", "relabel", "drop", "unsure", "relabel"]
        assert DecisionLog(run / "decisions.jsonl").read()[0].note == "k d z 1"
        here = row_of(page)
        press(page, "z")
        assert verdicts(run)[-1] == "undo"
        press(page, "n")
        press(page, "p")
        page.keyboard.press("c")
        page.wait_for_selector("#list h2")
        page.keyboard.press("/")
        page.keyboard.type("img src")
        wait(lambda: page.inner_text("#list .count") == "1 row")
        assert here != first
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        assert page.is_visible("#help")


def test_two_windows_and_a_killed_server_lose_nothing(run: Path, browser: Any) -> None:
    (run / "decisions.jsonl").unlink(missing_ok=True)
    with served(run) as (address, process), window(browser, address) as one, window(browser, address) as two:
        press(one, "k")
        press(two, "d")  # about the same row, which was open there already
        press(one, "u")
        assert verdicts(run) == ["keep", "drop", "unsure"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        one.keyboard.press("k")
        wait(lambda: "does not answer" in one.inner_text("#problem"))
    with served(run) as (address, _), window(browser, address) as page:
        assert "2 looked at, 1 found wrong" in page.inner_text("#standing")
        assert verdicts(run) == ["keep", "drop", "unsure"]


def test_texts_are_texts(run: Path, browser: Any) -> None:
    with served(run) as (address, _), window(browser, address) as page:
        page.goto(f"{address}?state=all&order=file")
        for number in range(len(EVIL)):
            page.wait_for_selector(f'#card[data-row="{number}"] #why h2', timeout=60_000)
            shown = page.inner_text("#card .text")
            assert "\x1b" not in shown and "\u202e" not in shown
            assert (EVIL[number] in shown) == (number < 2)
            page.keyboard.press("n")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 320])  # 320 is 1280 at 400 %
def test_nothing_that_axe_finds_and_nothing_wider_than_the_window(
    run: Path, browser: Any, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with served(run) as (address, _), window(browser, address, **look) as page:
        for view in ("", "c"):
            if view:
                page.keyboard.press(view)
                page.wait_for_selector("#list h2")
            found = axe.run(page).response["violations"]
            assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width
