"""What the installed package says of itself."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import thresher

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_the_projects_and_costs_no_import() -> None:
    assert thresher.__version__ == PROJECT["version"]
    program = "import sys, thresher; print(thresher.__version__, {'torch', 'transformers', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{PROJECT['version']} set()\n"


def test_the_command_says_its_version_and_stops() -> None:
    command = [sys.executable, "-m", "thresher"]
    asked = subprocess.run([*command, "--version", "audit"], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, f"thresher {PROJECT['version']}\n", "")
    none = subprocess.run(command, capture_output=True, text=True, check=False)
    assert none.returncode == 2 and "Usage:" in none.stdout and "error" not in none.stderr


def test_users_checkers_see_its_types() -> None:
    assert (files("thresher") / "py.typed").is_file()
