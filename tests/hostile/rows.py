"""Kinds of files of rows that must be refused."""

from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

from hostile.cases import Bench, nonsense

HALF = "\ud800"


def _spoil(bench: Bench, **values: object) -> list[str]:
    """The audit of rows of which one has other values; ``...`` takes a column away."""
    rows = bench.rows()
    row = rows[bench.rng.randrange(len(rows))]
    row |= values
    for name in [name for name, value in values.items() if value is ...]:
        del row[name]
    form = bench.any("jsonl", "json", "jsonl.gz")
    text = "[" + ",".join(bench.lines(rows)) + "]" if form == "json" else "\n".join(bench.lines(rows))
    file = bench.write(f"rows.{form}", gzip.compress(text.encode()) if form.endswith("gz") else text)
    return bench.audit(train=file)


def _line(bench: Bench, line: str) -> list[str]:
    """The audit of rows of which one is this text."""
    lines = bench.lines(bench.rows())
    lines.insert(bench.rng.randrange(len(lines)), line)
    return bench.audit(train=bench.write("rows.jsonl", "\n".join(lines)))


@nonsense
def no_label(bench: Bench) -> list[str]:
    return _spoil(bench, label=bench.any(None, "", "  ", "nan", "None", "null", float("nan"), ...))


@nonsense
def no_class(bench: Bench) -> list[str]:
    return _spoil(bench, label=bench.any([1], {"a": 1}, 0.5, float("inf"), [], f"b{HALF}", "y" * 1001, 10**1500))


@nonsense
def no_text(bench: Bench) -> list[str]:
    return _spoil(bench, text=bench.any(None, "", " \n", 3, True, ["a"], {"a": "b"}, 1.5, f"a {HALF} b", ...))


@nonsense
def a_text_without_end(bench: Bench) -> list[str]:
    return _spoil(bench, text=bench.any("x", "good film ", "\u00e9 ") * 1_000_001)


@nonsense
def no_object(bench: Bench) -> list[str]:
    return _line(
        bench, bench.any("[1]", "3", '"x"', "null", "true", "{", "}", "nonsense", "{'text': 'a'}", '{"text": }')
    )


@nonsense
def a_key_twice(bench: Bench) -> list[str]:
    key = bench.any("text", "label", "id", "other")
    return _line(bench, f'{{"text": "the end", "label": "bad", "{key}": "a", "{key}": "b"}}')


@nonsense
def without_end(bench: Bench) -> list[str]:
    depth = bench.rng.randint(2_000, 200_000)
    value = bench.any(
        "[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "9" * bench.rng.randint(4301, 9999)
    )
    return _line(bench, f'{{"text": "the end", "label": "bad", "note": {value}}}')


@nonsense
def cut_off(bench: Bench) -> list[str]:
    text = ("\n".join(bench.lines(bench.rows()))).encode()
    packed = bench.any(True, False)
    form = bench.any("jsonl.gz", "csv.gz") if packed else "json"
    whole = gzip.compress(text) if packed else b"[" + text.replace(b"\n", b",") + b"]"
    return bench.audit(train=bench.write(f"rows.{form}", whole[: bench.rng.randrange(1, len(whole))]))


@nonsense
def no_utf8(bench: Bench) -> list[str]:
    text = "\n".join(bench.lines(bench.rows()))
    if bench.any(True, False, False):
        return bench.audit(train=bench.write("rows.jsonl", text.encode(bench.any("utf-16", "utf-32"))))
    place = bench.rng.randrange(len(text))
    wrong = bench.any(b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5", b"\x80")
    form = bench.any("jsonl", "json", "csv", "tsv")
    return bench.audit(train=bench.write(f"rows.{form}", text[:place].encode() + wrong + text[place:].encode()))


@nonsense
def no_csv(bench: Bench) -> list[str]:
    mark = bench.any(",", "\t")
    lines = [f"{row['text']}{mark}{row['label']}" for row in bench.rows()]
    place = bench.rng.randrange(1, len(lines))
    lines[place] = bench.any(f"{mark}{mark}{mark}", "alone", f'"open{mark}bad', f'"a"b{mark}c', f"a{mark}b{mark}c")
    header = f"text{mark}label"
    if bench.rng.random() < 0.3:
        header = bench.any(f"text{mark}text", f"{mark}", f"label{mark}label", f"text{mark}label{mark}label")
    ending = "csv" if mark == "," else "tsv"
    return bench.audit(train=bench.write(f"rows.{ending}", "\n".join([header, *lines])))


def _columns(bench: Bench) -> dict[str, pa.Array]:
    rows = bench.rows()
    return {name: pa.array([row[name] for row in rows]) for name in ("text", "label")}


@nonsense
def no_parquet(bench: Bench) -> list[str]:
    file = bench.folder / "rows.parquet"
    pq.write_table(pa.table(_columns(bench)), file)
    data = file.read_bytes()
    data = bench.any(data[: bench.rng.randrange(len(data))], b"PAR1", data[:4] + bench.rng.randbytes(99), data[::-1])
    return bench.audit(train=bench.write("rows.parquet", data))


@nonsense
def parquet_of_what_is_no_text(bench: Bench) -> list[str]:
    columns = _columns(bench)
    count = len(columns["text"])
    wrong = [b"good"] * (count - 1) + [bench.any(b"\xff\xfe", b"\xed\xa0\x80", b"a\xc3")]
    column = bench.any("text", "label", "other")
    odd = pa.array(wrong, pa.binary())
    columns[column] = pa.StringArray.from_buffers(count, odd.buffers()[1], odd.buffers()[2])
    if bench.any(True, False):
        columns |= {column: bench.any(odd, pa.array([2**62] * count, pa.timestamp("us")))} if column != "other" else {}
    file = bench.folder / "rows.parquet"
    pq.write_table(pa.table(columns), file)
    return bench.audit(train=file)


@nonsense
def a_column_twice(bench: Bench) -> list[str]:
    columns = _columns(bench)
    again = bench.any("text", "label")
    file = bench.folder / "rows.parquet"
    pq.write_table(pa.table([*columns.values(), columns[again]], names=[*columns, again]), file)
    return bench.audit(train=file)


@nonsense
def more_rows_than_bytes(bench: Bench) -> list[str]:
    count = bench.rng.randint(1_500_000, 20_000_000)
    table = pa.table({"label": pa.nulls(count, pa.int8()), "text": pa.nulls(count, pa.int8())})
    file = bench.folder / "rows.parquet"
    pq.write_table(table, file, compression="zstd")
    return bench.audit(train=file)


@nonsense
def nothing_in_it(bench: Bench) -> list[str]:
    name, content = bench.any(
        ("rows.jsonl", ""), ("rows.jsonl", "\n \n"), ("rows.csv", "text,label\n"), ("rows.csv", ""), ("rows.json", "[]")
    )
    return bench.audit(**{bench.any("train", "validation", "test"): bench.write(name, content)})


@nonsense
def one_class_or_none_alike(bench: Bench) -> list[str]:
    rows = bench.rows()
    alone = bench.any(True, False)
    for number, row in enumerate(rows):
        row["label"] = "good" if alone else f"class {number}"
    return bench.audit(train=bench.write("rows.jsonl", "\n".join(bench.lines(rows))))


@nonsense
def an_unknown_class(bench: Bench) -> list[str]:
    rows = bench.rows()[:16]
    rows[bench.rng.randrange(16)]["label"] = bench.any("Goood", "2", 0, True)
    return bench.audit(**{bench.any("validation", "test"): bench.write("rows.jsonl", "\n".join(bench.lines(rows)))})


@nonsense
def the_training_rows_again(bench: Bench) -> list[str]:
    rows = bench.rows()
    if bench.any(True, False):
        bench.rng.shuffle(rows)
    file = bench.parts["train"] if bench.any(True, False) else bench.write("rows.jsonl", "\n".join(bench.lines(rows)))
    return bench.audit(**{bench.any("validation", "test"): file})


@nonsense
def the_queries_as_test(bench: Bench) -> list[str]:
    return bench.audit(test=bench.parts["validation"])


@nonsense
def no_such_file(bench: Bench) -> list[str]:
    name = bench.any("gone.jsonl", "x" * 300, "x" * 5000 + ".csv", "rows.xlsx", "a/b.jsonl", "", " ", "a\nb.csv")
    if name == "rows.xlsx":
        bench.write(name, "text,label")
    part = bench.any("train", "validation", "test")
    return bench.audit(**{part: bench.folder / name if name.strip() else name})


@nonsense
def a_folder_of_nothing(bench: Bench) -> list[str]:
    (bench.folder / "rows.jsonl").mkdir()
    if bench.any(True, False):
        (bench.folder / "rows.jsonl" / bench.any("state.json", "dataset_dict.json")).write_text(
            bench.any("", "{", "[]", "{}")
        )
    return bench.audit(train=bench.folder / "rows.jsonl")


@nonsense
def no_such_column(bench: Bench) -> list[str]:
    wrong = bench.any("body", "Text", "", " ", "text,label,id", "text,text", "label")
    if bench.any(True, False):
        return bench.audit(text_column=wrong, label_column="label")
    return bench.audit(**{bench.any("label_column", "annotator_column"): bench.any("body", "", "x" * 300)})


@nonsense
def no_such_dialogue(bench: Bench) -> list[str]:
    rows: list[dict[str, object]] = [{"prompt": "the end", "completion": "good"} for _ in range(9)]
    wrong: object = bench.any(None, "", " ", [1], f"x{HALF}", {"role": "user"}, "x" * 1_000_001)
    rows[bench.rng.randrange(9)][bench.any("prompt", "completion")] = wrong
    file = bench.write("rows.jsonl", "\n".join(json.dumps(row) for row in rows))
    return bench.audit(train=file, task="generate", model=bench.classifier)
