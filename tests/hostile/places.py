"""Kinds of models, adapters, run folders and studies that must be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import yaml

from hostile.cases import Bench, nonsense


def _copy(bench: Bench, folder: Path) -> Path:
    return Path(shutil.copytree(folder, bench.folder / "copy"))


def _halve(bench: Bench, file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: bench.rng.randrange(len(data) - 2)])


@nonsense
def a_model_that_lacks_a_file(bench: Bench) -> list[str]:
    model = _copy(bench, bench.model)
    (model / bench.any("config.json", "model.safetensors", "tokenizer.json")).unlink()
    for left in model.glob("tokenizer_config.json"):
        left.unlink()
    return bench.audit(model=model)


@nonsense
def a_model_with_half_a_file(bench: Bench) -> list[str]:
    model = _copy(bench, bench.model)
    _halve(bench, model / bench.any("config.json", "model.safetensors", "tokenizer.json"))
    return bench.audit(model=model)


@nonsense
def a_model_of_other_settings(bench: Bench) -> list[str]:
    model = _copy(bench, bench.model)
    about = json.loads((model / "config.json").read_text())
    about |= bench.any(
        {"model_type": "nothing"},
        {"model_type": None},
        {"model_type": 3},
        {"hidden_size": "x"},
        {"hidden_size": 33},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 9},
        {"vocab_size": -1},
        {"hidden_act": "none"},
        {"num_hidden_layers": 10**9},
        {"vocab_size": 10**15},
    )
    (model / "config.json").write_text(json.dumps(about))
    return bench.audit(model=model)


@nonsense
def no_such_model(bench: Bench) -> list[str]:
    name = bench.any("/nowhere", "./none", "", " ", "packaged:nothing", "packaged:", "x" * 500, "a/b/c/d", "model.gguf")
    return bench.audit(**{bench.any("model", "features"): name})


@nonsense
def a_broken_adapter(bench: Bench) -> list[str]:
    adapter = _copy(bench, bench.adapter)
    file = adapter / bench.any("adapter_config.json", "adapter_model.safetensors", "classes.json")
    content = bench.any(b"", b"{", b"[]", b"3", b'{"a": 1, "a": 2}', b"\xff", None)
    if content is None:
        _halve(bench, file)
    else:
        file.write_bytes(content)
    return bench.audit(adapter=adapter)


@nonsense
def an_adapter_that_lacks_a_file(bench: Bench) -> list[str]:
    adapter = _copy(bench, bench.adapter)
    (adapter / bench.any("adapter_config.json", "adapter_model.safetensors")).unlink()
    return bench.audit(adapter=adapter)


@nonsense
def no_run(bench: Bench) -> list[str]:
    place = bench.any(bench.folder, bench.parts["train"], bench.folder / "gone", "x" * 5000, bench.model, "")
    if bench.any(True, False):
        return ["clean", str(place), "--output", str(bench.folder / "a.jsonl")]
    return bench.any(["explain", str(place), "--row", "1"], ["compare", str(place)])


@nonsense
def a_damaged_run(bench: Bench) -> list[str]:
    run = _copy(bench, bench.run)
    file = run / bench.any("config.yaml", "inputs.json", "summary.json", "scores.parquet", "checksums.txt")
    bench.any(lambda: _halve(bench, file), file.unlink, lambda: file.write_bytes(bench.rng.randbytes(99)))()
    return ["explain", str(run), "--row", "1"]


@nonsense
def no_such_explanation(bench: Bench) -> list[str]:
    wrong: list[str] = bench.any(
        ["--row", "48"],
        ["--row", "-1"],
        ["--row", "x"],
        ["--row", "9" * 30],
        [],
        ["--row", "1", "--method", "nothing"],
        ["--row", "1", "--aggregation", "nothing"],
        ["--row", "1", "--queries", "-1"],
        ["--row", "1", "--plot", "a.xlsx"],
        ["--row", "1", "--plot", f"/{'x' * 300}.svg"],
        ["--row", "1", "--queries", "x"],
        ["--row", ""],
    )
    return ["explain", str(bench.run), *wrong]


@nonsense
def no_such_cleaning(bench: Bench) -> list[str]:
    target = str(bench.folder / "a.jsonl")
    wrong: list[str] = bench.any(
        ["--output", target, "--drop", bench.any("0", "1", "-1", "nan", "2", "x", "inf", "")],
        [],
        ["--output", str(bench.folder / "a.xlsx")],
        ["--output", str(bench.run / "a.jsonl")],
        ["--output", ""],
        ["--output", str(bench.parts["train"])],
        ["--output", f"/{'x' * 300}.jsonl"],
        ["--output", target, "--guard-formulas"],
        ["--output", "/dev/null/a.jsonl"],
        ["--output", str(bench.folder)],
    )
    return ["clean", str(bench.run), *wrong]


@nonsense
def no_such_comparison(bench: Bench) -> list[str]:
    run = str(bench.run)
    table = bench.write(
        "a.csv", bench.any("", "a,b\n1,2\n", "score,ndr30\nx,nan\n", "score\nx\n", b"\xff", "score,ndr30\nx,y\n")
    )
    wrong: list[str] = bench.any(
        [run, run],
        [run, "--metric", "nothing"],
        [run, "--score", "nothing"],
        [run, "--top", bench.any("0", "-1", "x")],
        [run, "--reference", "nothing"],
        [run, "--output", "a.xlsx"],
        [str(table)],
        [],
        [str(table), run],
    )
    return ["compare", *wrong]


@nonsense
def no_such_study(bench: Bench) -> list[str]:
    parts = {part: str(file) for part, file in bench.parts.items()}
    tiny = {"model": str(bench.model)}
    study = {"models": {"tiny": tiny}, "own_tasks": {"rows": parts}, "output": str(bench.folder / "study")}
    study |= bench.any(
        {"influences": ["tracinn"]},
        {"beside": ["tracin/WE"]},
        {"groups": ["5"]},
        {"seeds": bench.any(0, -1, True, "x", 10**12)},
        {"seeds": [1, 1]},
        {"models": {}},
        {"models": {"a": 3}},
        {"models": {"a": {}}},
        {"models": {"../a": tiny}},
        {"models": {"tiny": tiny | {"tasks": bench.any([1], {"rowz": {}}, {"rows": 3})}}},
        {"audit": {"epochz": 1}},
        {"own_tasks": {"rows": parts | {"train": "/gone.jsonl"}}},
        {"own_tasks": {"rows": parts | {"plant_kind": "x"}}},
        {"own_tasks": {"rows": {"train": "a"}}},
        {"models": {"a": tiny, "a-b": tiny}, "own_tasks": {"b-c": parts, "c": parts}},
        {"tasks": ["nothing"]},
        {"models": {"x" * 99: tiny}},
        {"models": {"tiny": {"model": "/gone"}}},
        {"nothing": 1},
        {"audit": {"methods": ["tracin", "tracin"]}},
        {"audit": {"task": "generate"}},
        {"models": {"tiny": tiny, "TINY": tiny}},
        {"retrain": "some"},
        {"audit": {"detector": "nothing"}},
        {"drop": 1},
        {"audit": {"text_column": "body"}},
    )
    return ["study", str(bench.write("study.yaml", yaml.safe_dump(study)))]
