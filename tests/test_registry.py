"""Registries: what may be added, by whom, and what is said where it cannot be used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thresher.errors import ConfigError
from thresher.registry import Registry

GROUP = "thresher.test_shapes"


@pytest.fixture
def shapes() -> Registry[float]:
    return Registry[float]("shape", GROUP, {"round": 3.14, "square": "math:pi"}, kind=float)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs a package of one module with entry points, as pip would leave it; gone after the test."""
    before = set(sys.modules)

    def install(package: str, code: str, **points: str) -> None:
        (tmp_path / f"{package}.py").write_text(code)
        about = tmp_path / f"{package}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {target}\n" for name, target in points.items())
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")

    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_registry_is_a_mapping_in_the_order_of_registration(shapes: Registry[float]) -> None:
    assert shapes.register("flat", 0.0) == 0.0
    assert list(shapes.items()) == [("round", 3.14), ("square", 3.141592653589793), ("flat", 0.0)]
    assert "flat" in shapes and "deep" not in shapes and len(shapes) == 3
    with pytest.raises(KeyError):
        shapes["deep"]
    with pytest.raises(ConfigError, match=r"^There is no shape 'deep'; choose from round, square, flat\.$"):
        shapes.choose("deep")


@pytest.mark.parametrize(
    ("name", "record", "message"),
    [
        ("round", 1.0, "There is a shape 'round' already; choose another name, or say replace=True."),
        ("a/b", 1.0, "A shape cannot be called 'a/b'; use letters, digits and _."),
        ("new", "text", "The shape 'new' must be a float, and is a str."),
    ],
)
def test_what_cannot_be_added_is_said(shapes: Registry[float], name: str, record: Any, message: str) -> None:
    before = dict(shapes)
    with pytest.raises(ConfigError) as error:
        shapes.register(name, record)
    assert str(error.value) == message
    assert dict(shapes) == before


def test_a_record_can_be_replaced_where_that_is_said(shapes: Registry[float]) -> None:
    shapes.register("square", 4.0, replace=True)
    assert list(shapes) == ["round", "square"]
    assert shapes["square"] == 4.0


def test_an_installed_package_adds_its_records(installed: Any, shapes: Registry[float]) -> None:
    installed("plug", "wide = 1.5\nlong = 2.5\n", wide="plug:wide", long="plug:long")
    assert list(shapes) == ["round", "square", "long", "wide"]
    assert shapes["wide"] == 1.5


def test_a_module_may_register_what_its_entry_point_names(installed: Any) -> None:
    shapes = Registry[float]("shape", GROUP, {}, kind=float)
    sys.modules["shapes_for_test"] = type(sys)("shapes_for_test")
    sys.modules["shapes_for_test"].shapes = shapes  # pyright: ignore[reportAttributeAccessIssue]
    code = "from shapes_for_test import shapes\nwide = shapes.register('wide', 1.5)\n"
    installed("plug", code, wide="plug:wide")
    assert dict(shapes) == {"wide": 1.5}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_like_this", "No module named 'nothing_like_this'"),
        ("wide = 'text'", "The shape 'wide' must be a float, and is a str."),
        ("long = 1.0", "module 'plug' has no attribute 'wide'"),
        ("raise RuntimeError('needs a\\nnewer driver')", "needs a"),
    ],
)
def test_a_broken_package_is_named_each_time(installed: Any, shapes: Registry[float], code: str, reason: str) -> None:
    installed("plug", code, wide="plug:wide")
    for _ in range(2):
        with pytest.raises(ConfigError) as error:
            list(shapes)
        assert str(error.value) == (
            f"The package 'plug' adds the shape 'wide', which cannot be used ({reason}); mend or uninstall the package."
        )


def test_a_package_cannot_take_a_name_that_is_there(installed: Any, shapes: Registry[float]) -> None:
    installed("plug", "other = 1.0", round="plug:other")
    with pytest.raises(ConfigError, match=r"The package .plug. adds the shape .round.*already"):
        shapes["round"]
