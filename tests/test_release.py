"""What environments are made of, and what the distributions hold."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
OF_MAKE = ("runtime", "build", "dev", "docs", "agreement", "demo", "generate", "release")
SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
PACKAGES = {"thresher": ROOT, "thresher_study": ROOT / "study"}
SDIST = {"PKG-INFO", "pyproject.toml", "README.md", "LICENSE", ".gitignore"}
"""What hatchling puts into one without being asked; the last only where there is one."""

Built = dict[str, list[Path]]


def project(folder: Path) -> Any:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(file: Path) -> dict[Requirement, list[str]]:
    """Each requirement of a file with its hashes."""
    lines = file.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    parts = [line.split("#")[0].split(" --hash=") for line in lines]
    return {Requirement(first): [one.strip() for one in hashes] for first, *hashes in parts if first.strip()}


def versions(file: Path) -> dict[str, set[str]]:
    """Versions by name: more than one where Pythons or platforms differ."""
    found: dict[str, set[str]] = {}
    for one in requirements(file):
        found.setdefault(canonicalize_name(one.name), set()).add(str(one.specifier))
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_one_version_and_the_hashes_of_everything(lock: Path) -> None:
    entries = requirements(lock)
    assert entries
    for one, hashes in entries.items():
        assert re.fullmatch(r"==[^*,]+", str(one.specifier)) and one.url is None, one
        assert hashes and all(SHA256.fullmatch(found) for found in hashes), one
    names = {canonicalize_name(one.name) for one in entries}
    # What differs from one build of torch to the next, and our own.
    assert not [name for name in names if name == "torch" or name.startswith(("nvidia", "cuda", "triton", "thresher"))]
    assert "://" not in re.sub(r"(?m)^#.*", "", lock.read_text(encoding="utf-8")), "an index is the user's to choose"


def test_every_environment_is_installed_from_a_lock_and_nothing_else() -> None:
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert (
        {lock.stem for lock in LOCKS} == set(OF_MAKE) == set(re.findall(r"\$\(LOCKED\) requirements/(\w+)\.txt", make))
    )
    recipes = [line.strip() for line in make.splitlines() if line.startswith("\t") and "pip install" in line]
    assert recipes == ["$(BIN)/python -m pip install --quiet --constraint constraints.txt torch"]


@pytest.mark.parametrize("lock", ["runtime", "dev"])
def test_what_the_package_asks_for_is_locked_in_a_version_that_it_takes(lock: str) -> None:
    locked = versions(ROOT / f"requirements/{lock}.txt") | {"torch": {str(torch_pin().specifier)}}
    for asked in map(Requirement, project(ROOT)["dependencies"]):
        found = locked[canonicalize_name(asked.name)]
        assert all(asked.specifier.contains(one.removeprefix("==")) for one in found), (asked, found)


def torch_pin() -> Requirement:
    return next(one for one in requirements(ROOT / "constraints.txt") if one.name == "torch")


def test_locks_agree_with_the_constraints_and_with_each_other() -> None:
    pinned = versions(ROOT / "constraints.txt")
    one_environment = {
        lock: versions(ROOT / f"requirements/{lock}.txt") for lock in ("runtime", "build", "dev", "docs")
    }
    for lock, found in one_environment.items():
        for name, specifiers in found.items():
            assert specifiers == pinned.get(name, specifiers), (lock, name)
            assert all(other.get(name, specifiers) == specifiers for other in one_environment.values()), (lock, name)
    assert set(one_environment["runtime"]) <= set(one_environment["dev"])
    unlocked = set(pinned) - {"torch"} - {name for lock in LOCKS for name in versions(lock)}
    assert not unlocked, "pinned, and in no environment"


def test_what_the_locks_take_torch_to_need_is_of_the_version_that_is_installed() -> None:
    told = tomllib.loads((ROOT / "requirements/uv.toml").read_text(encoding="utf-8"))["dependency-metadata"]
    assert [(one["name"], f"=={one['version']}") for one in told] == [("torch", str(torch_pin().specifier))]
    locked = versions(ROOT / "requirements/runtime.txt")
    assert {canonicalize_name(Requirement(one).name) for one in told[0]["requires-dist"]} <= set(locked)


def test_a_licence_that_is_let_through_has_a_reason() -> None:
    lines = (ROOT / "release/licences.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"#.*|[A-Za-z0-9._-]+: \S.{20,}", line) for line in lines)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both distributions of both packages, from here and from a copy with other times and rights, in that order."""
    folder = tmp_path_factory.mktemp("built")
    copy = folder / "copy"
    shown = [ROOT / name for name in ours(ROOT)]
    for file in shown:
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        target.chmod(0o600)
        os.utime(target, (10**9, 10**9))
    found: Built = {}
    for name, source in PACKAGES.items():
        for root in (ROOT, copy):
            place = folder / root.name / name
            command = [sys.executable, "-m", "hatchling", "build", "--directory", str(place)]
            environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
            subprocess.run(
                command, cwd=root / source.relative_to(ROOT), env=environment, check=True, capture_output=True
            )
            found.setdefault(name, []).extend(sorted(place.iterdir()))
    return found


def ours(folder: Path) -> list[str]:
    """The files of a folder that git has, or would have."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (folder / name).is_file()]


@pytest.mark.parametrize("name", PACKAGES)
def test_two_builds_are_equal_byte_for_byte(built: Built, name: str) -> None:
    here, there = built[name][:2], built[name][2:]
    assert [file.suffix for file in here] == [".whl", ".gz"]
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_wheel_holds_the_package_whole_and_nothing_else(built: Built, name: str) -> None:
    with ZipFile(built[name][0]) as wheel:
        inside = set(wheel.namelist())
    about = f"{name}-{project(ROOT)['version']}.dist-info"
    records = {f"{about}/{one}" for one in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert inside == records | {f"{name}/{file}" for file in ours(PACKAGES[name] / "src" / name)}


@pytest.mark.parametrize(
    ("name", "more"), [("thresher", ("CHANGELOG.md", "SECURITY.md")), ("thresher_study", ("configs",))]
)
def test_an_sdist_holds_the_package_and_what_belongs_to_it(built: Built, name: str, more: tuple[str, ...]) -> None:
    top = f"{name}-{project(ROOT)['version']}/"
    with tarfile.open(built[name][1]) as sdist:
        inside = {one.name.removeprefix(top) for one in sdist.getmembers()}
        assert all(one.isfile() and one.name.startswith(top) for one in sdist.getmembers())
    wanted = {file for file in ours(PACKAGES[name]) if file.startswith((f"src/{name}/", *more))}
    assert inside - SDIST == wanted
    assert inside & SDIST >= SDIST - {".gitignore"}


def test_both_packages_have_one_licence_and_one_version() -> None:
    thresher, study = map(project, PACKAGES.values())
    assert study["version"] == thresher["version"] and f"thresher=={thresher['version']}" in study["dependencies"]
    assert (ROOT / "study/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
