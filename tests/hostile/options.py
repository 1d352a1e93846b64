"""Kinds of options and configuration files that must be refused."""

from __future__ import annotations

from typing import Any, get_args

import yaml

from hostile.cases import Bench, nonsense
from thresher.config import AuditConfig

NO_COUNT = ("", " ", "abc", "1.5", "nan", "inf", "-1", "1" + "0" * 30, "9" * 5000, "true", "None", "[]", "0x10", "1 2")
NO_NUMBER = ("", "abc", "nan", "inf", "-inf", "-1", "1e999", "true", "1,5", "--", "None")
NO_WORD = ("", " ", "nothing", "x" * 3000, "\u202e", "TRACIN", "1")
TYPED: tuple[Any, ...] = (True, [1], {"a": 1}, [], {}, -1, 10**30, float("nan"), float("inf"), "", " ", "abc", [[]])


def _of(*kinds: object) -> list[str]:
    """Options whose values are of one of these types."""
    fields = AuditConfig.model_fields.items()
    return [name for name, about in fields if any(k in (about.annotation, *get_args(about.annotation)) for k in kinds)]


COUNTS, NUMBERS = _of(int), _of(float)
SWITCHES = _of(bool)
WORDS = ("task", "plant_kind", "dtype", "quantize", "device", "row_loss", "methods", "modules", "detector", "keep")
MORE = ("canary_kind", "log_to", "memory", "checkpoints", "adapter", "features")


@nonsense
def no_count(bench: Bench) -> list[str]:
    return bench.audit(**{bench.any(*COUNTS): bench.any(*NO_COUNT)})


@nonsense
def no_number(bench: Bench) -> list[str]:
    return bench.audit(**{bench.any(*NUMBERS): bench.any(*NO_NUMBER)})


@nonsense
def no_such_word(bench: Bench) -> list[str]:
    name = bench.any(*WORDS, *MORE)
    return bench.audit(**{name: bench.any("[", "nothing", "") if name == "modules" else _unless_known(bench, name)})


def _unless_known(bench: Bench, name: str) -> str:
    return bench.any(*(word for word in NO_WORD if name != "memory" or word != "1"))


@nonsense
def twice_or_nobody(bench: Bench) -> list[str]:
    return bench.audit(
        methods=bench.any("tracin,tracin", "tracin,", ",", "tracin,cosine,tracin", "tracin,nothing", " , ")
    )


@nonsense
def no_such_flag(bench: Bench) -> list[str]:
    return bench.audit(bench.any("--epoch", "--Train", "--no-such", "-x", "--epochs=", "--quick=1", "--json=yes"))


@nonsense
def a_name_without_end(bench: Bench) -> list[str]:
    name = bench.any("model", "train", "validation", "test", "adapter", "features", "checkpoints", "output")
    return [one for one in bench.audit(**{name: f"/{'x' * 300}/{'y' * 5000}"}) if one != "--dry-run"]


@nonsense
def what_does_not_go_together(bench: Bench) -> list[str]:
    one: dict[str, Any] = bench.any(
        {"adapter": bench.adapter, "finetune": "--finetune"},
        {"projection": 4, "optimizer_aware": "--optimizer-aware"},
        {"retrain": "--retrain"},
        {"plant": 1e-9},
        {"annotator_column": "id", "detector": "loss"},
        {"quick": "--quick", "adapter": bench.adapter},
        {"quantize": "4bit", "model": bench.classifier},
        {"checkpoints": bench.run},
        {"canary_kind": "swap"},
        {"plant": 0.2, "plant_kind": "shuffle"},
        {"text_column": "text", "label_column": "text"},
    )
    switches = [value for value in one.values() if str(value).startswith("--")]
    return bench.audit(*switches, **{name: value for name, value in one.items() if value not in switches})


def _config(bench: Bench, text: str | bytes) -> list[str]:
    return ["audit", str(bench.write("audit.yaml", text)), "--dry-run"]


def _sound(bench: Bench, **more: Any) -> str:
    given = {"model": bench.model, **{part: bench.parts[part] for part in ("train", "validation")}}
    options = {name: str(value) for name, value in given.items()} | {"output": str(bench.folder / "out")}
    return yaml.safe_dump(options | more)


@nonsense
def a_value_of_another_type(bench: Bench) -> list[str]:
    name = bench.any(*COUNTS, *NUMBERS)
    return _config(bench, _sound(bench, **{name: bench.any(*TYPED)}))


@nonsense
def no_text_in_yaml(bench: Bench) -> list[str]:
    name = bench.any("train", "validation", "model", "output", "device", "methods", "detector", "task", "dtype")
    return _config(bench, _sound(bench, **{name: bench.any(True, 7, {"a": 1}, [[]], "", 1.5)}))


@nonsense
def no_switch_in_yaml(bench: Bench) -> list[str]:
    return _config(bench, _sound(bench, **{bench.any(*SWITCHES): bench.any("", "maybe", 2, [True], {}, 0.5)}))


@nonsense
def an_option_that_is_none(bench: Bench) -> list[str]:
    name = bench.any("epoch", "Epochs", "train ", "", "1", "null", "x" * 1000, "learning-rate", "__class__", "panel")
    return _config(bench, _sound(bench, **{name: 1}))


@nonsense
def a_key_of_yaml_twice(bench: Bench) -> list[str]:
    name = bench.any("epochs", "seed", "train")
    value = {"train": bench.parts["train"]}.get(name, 3)
    return _config(bench, _sound(bench, **{name: str(value)}) + f"{name}: {value}\n")


@nonsense
def no_yaml(bench: Bench) -> list[str]:
    depth = bench.rng.randint(300, 30_000)
    odd = bench.any(
        "\tepochs: 1\n",
        "epochs: [1\n",
        "epochs: 'a\n",
        "- 1\n",
        "a: b: c\n",
        "%YAML 9\n",
        "epochs: *gone\n",
        "? [a]\n: 1\n",
        "epochs: 2020-99-99\n",
        f"epochs: {'9' * 5000}\n",
        "x: !!python/object/apply:os.system ['true']\n",
        "---\nepochs: 1\n",
        f"x: {'[' * depth}{']' * depth}\n",
        f"x: {'[' * depth}",
        "x: &a [*a]\n",
        "epochs: !!int 'x'\n",
        "x: !!binary '?'\n",
        "x: !!timestamp 'y'\n",
        "x: !!set [1]\n",
        "<<: 3\n",
        "<<: [1]\n",
        "epochs: \x07\n",
        "x: !<tag> 1\n",
        f"# {'x' * 2**20}",
    )
    return _config(bench, _sound(bench) + odd)


@nonsense
def no_yaml_at_all(bench: Bench) -> list[str]:
    return _config(
        bench, bench.any("", "3", "[]", "null", "text", b"\xff\xfe", b"\x80", b"\x00", _sound(bench).encode("utf-16"))
    )


@nonsense
def aliases_without_end(bench: Bench) -> list[str]:
    width, depth = bench.rng.randint(4, 12), bench.rng.randint(9, 20)
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    return _config(
        bench, _sound(bench) + "\n".join(lines) + f"\n{bench.any('methods', 'train', 'epochs')}: *a{depth - 1}\n"
    )
