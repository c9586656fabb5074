"""Predictions: every row of the input is either predicted or rejected with its reason, in the order of the input."""

import csv
import datetime
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.dataset import to_column
from runtime.errors import UserError
from tasks.arrivals.parse import FLOAT
from tasks.prediction import chunks
from tasks.prediction.predict import predict
from tasks.prediction.saved_model import Tensor
from tasks.publishing.origin import Origin
from tests.support.models import NUMBER, OUTPUT, PICTURE, fake_model

OUT, REJECTED = Path("out/answers.parquet"), Path("out/answers.rejected.parquet")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a space and brackets in its name, where a chunk has 16 rows."""
    place = tmp_path / "some [rows]"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setattr(chunks, "MAX_ROWS", 16)
    return place


def run(given: str, keep: tuple[str, ...] = (), model=None, strict: bool = False) -> tuple[list[dict], list[dict]]:
    """Predict, and return the rows of the two files."""
    record = predict(lambda: model or fake_model(), given, OUT, keep, strict)
    rejected = pq.read_table(REJECTED).to_pylist() if REJECTED.exists() else []
    rows = pq.read_table(OUT).to_pylist()
    whole = [record for record in rejected if record["row"] is None]
    assert (record.predicted, record.rejected) == (len(rows), len(rejected) - len(whole))
    assert record.rows == record.predicted + record.rejected
    assert record.unreadable_files == len(whole)
    assert not [*OUT.parent.glob(".*")]
    return rows, rejected


def put(name: str, text: str | bytes) -> str:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return name


# What a cell may be: its type in Arrow, and how a value is drawn.
KINDS: dict[str, tuple[pa.DataType, Callable[[np.random.Generator], object]]] = {
    "float": (
        pa.float64(),
        lambda rng: rng.choice(np.array([rng.normal(), 0.0, np.nan, np.inf, -np.inf, 1e39, None]), p=P7),
    ),
    "small float": (pa.float32(), lambda rng: None if rng.random() < 0.02 else float(np.float32(rng.normal()))),
    "int": (pa.int64(), lambda rng: None if rng.random() < 0.02 else int(rng.integers(-(2**40), 2**40))),
    "text": (
        pa.string(),
        lambda rng: rng.choice(np.array([f"{rng.normal()}", " 7 ", "+1.", "x", "", "nan", "0x1", "1,5", None]), p=P9),
    ),
    "large text": (pa.large_string(), lambda rng: f"{rng.normal():e}" if rng.random() < 0.98 else "many"),
    "words": (pa.dictionary(pa.int32(), pa.string()), lambda rng: "3" if rng.random() < 0.98 else "three"),
    "decimal": (pa.decimal128(9, 2), lambda rng: None if rng.random() < 0.02 else round(rng.integers(0, 999) / 100, 2)),
    "null": (pa.null(), lambda rng: None),
    "bool": (pa.bool_(), lambda rng: bool(rng.integers(2))),
    "date": (pa.date32(), lambda rng: datetime.date(2020, 1, 1)),
    "list": (pa.list_(pa.int64()), lambda rng: [1]),
}
P7, P9 = [0.9, *[0.1 / 6] * 6], [0.9, *[0.1 / 8] * 8]
REFUSED = ("bool", "date", "list")


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict, str]:
    """Draw a table as (name, type, values) of its columns, and a format."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(0, 1000) | st.sampled_from([1, 15, 16, 17, 32]))
    usual = st.sampled_from(["float", "small float", "int", "text", "large text", "words", "decimal"])
    columns = {name: draw(usual | st.sampled_from([*KINDS])) for name in ("a", "b", "id")}
    damage = draw(st.sampled_from(["none"] * 6 + ["no a", "no id", "more", "twice"]))
    names = [name for name in columns if damage != f"no {name}"]
    names += ["more"] if damage == "more" else ["b"] if damage == "twice" else []
    names = draw(st.permutations(names))
    kinds = [columns.get(name, "int") for name in names]
    values = [[KINDS[kind][1](rng) for _ in range(rows)] for kind in kinds]
    form = draw(st.sampled_from(["csv", "parquet", "arrow", "arrows"]))
    return {"names": names, "kinds": kinds, "values": values, "rows": rows, "damage": damage}, form


def write(table: dict, form: str, misfits: set[int]) -> str:
    path = Path(f"rows.{form}")
    if form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table["names"])
            for row in range(table["rows"]):
                cells = ["" if values[row] is None else str(values[row]) for values in table["values"]]
                writer.writerow([*cells, "one more"] if row in misfits else cells)
        return str(path)
    arrays = [
        pa.array([str(value) if value is not None else None for value in values], pa.string()).cast(KINDS[kind][0])
        if kind == "decimal"
        else pa.array(values, KINDS[kind][0])
        for kind, values in zip(table["kinds"], table["values"], strict=True)
    ]
    whole = pa.Table.from_arrays(arrays, names=table["names"])
    if form == "parquet":
        pq.write_table(whole, path, row_group_size=50)
    else:
        opener = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
        with path.open("wb") as file, opener(file, whole.schema) as writer:
            writer.write_table(whole, max_chunksize=23)
    return str(path)


def number_in(value: object) -> float | None:
    """Return the float32 that a cell stands for, if the model can take it."""
    if value is None or (isinstance(value, str) and not re.fullmatch(FLOAT, value.strip())):
        return None
    with np.errstate(over="ignore"):
        found = np.float32(value)
    return float(found) if np.isfinite(found) else None


@given(drawn=tables(), seed=st.integers(0, 2**32))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_of_any_table_is_predicted_as_by_itself_or_rejected(drawn, seed):
    table, form = drawn
    rows = table["rows"]
    misfits = {*np.random.default_rng(seed).integers(0, max(1, rows), 3).tolist()} if form == "csv" and rows else set()
    found, rejected = run(write(table, form, misfits), ("id",))
    types = dict(zip(table["names"], table["kinds"], strict=True))
    usable = table["damage"] == "none" and (form == "csv" or not {types["a"], types["b"]} & {*REFUSED})
    expected = []
    for row in range(rows if usable else 0):
        values = {name: table["values"][table["names"].index(name)][row] for name in ("a", "b")}
        if form == "csv":
            values = {name: None if value is None else str(value) for name, value in values.items()}
        numbers = {name: number_in(value) for name, value in values.items()}
        if row not in misfits and None not in numbers.values():
            expected.append((row, float(np.float32(2) * np.float32(numbers["a"]) + np.float32(numbers["b"]))))
    assert [(record["row"], record["predicted"]) for record in found] == expected
    assert [record["row"] for record in rejected] == sorted({*range(rows)} - {row for row, _ in expected})
    assert all(record["reason"] and record["file"] == f"rows.{form}" for record in rejected)


HEADER = "a,b\n"


@pytest.mark.parametrize(
    ("text", "column", "value", "reason"),
    [
        ("1,\n", "b", "", "is missing"),
        ("1,x\n", "b", "x", "is no number"),
        ("1,nan\n", "b", "nan", "is no number"),
        ("1,1e39\n", "b", "1e39", "does not fit float32"),
        ("1,1e999\n", "b", "1e999", "is not a finite number"),
        ("y,x\n", "a", "y", "is no number"),
        ("1\n", None, "1", "a line of 1 values, expected 2"),
        ("1,2,3\n", None, "1,2,3", "a line of 3 values, expected 2"),
        ("1,2", None, "", "the file ends within this line, as a truncated file does: end it with a line break"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named_with_its_reason_and_the_others_are_predicted(text, column, value, reason):
    whole = text.endswith("\n")
    rows, rejected = run(put("x.csv", HEADER + "1,1\n2,2\n" + text + ("3,3\n" if whole else "")))
    assert [(row["row"], row["predicted"]) for row in rows] == [(0, 3), (1, 6), (3, 9)][: 3 if whole else 2]
    assert rejected == [{"file": "x.csv", "row": 2, "column": column, "value": value, "reason": reason}]


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("a\n1\n2\n", "b", "is missing"),
        ("a,b,c\n1,2,3\n2,3,4\n", "c", "name it with --keep c"),
        ("a,b,b\n1,2,3\n2,3,4\n", "b", "is there twice"),
    ],
)
def test_a_column_that_is_missing_unknown_or_there_twice_rejects_each_row_of_its_file(text, column, told):
    put("1.csv", text)
    put("2.csv", HEADER + "1,2\n")
    rows, rejected = run("*.csv")
    assert [(row["file"], row["predicted"]) for row in rows] == [("2.csv", 4)]
    assert [(record["file"], record["row"], record["column"]) for record in rejected] == [
        ("1.csv", 0, column),
        ("1.csv", 1, column),
    ]
    assert told in rejected[0]["reason"]


def test_the_order_of_files_and_rows_is_kept_and_kept_columns_come_as_they_are():
    for name, first in (("b", 100), ("a", 0)):
        ids = pa.array([f"n{first + row}" for row in range(40)])
        pq.write_table(pa.table({"a": np.arange(40.0) + first, "id": ids, "b": np.zeros(40)}), f"{name}.parquet")
    rows, _ = run("[ab].parquet", ("id", "a"))
    assert [row["id"] for row in rows] == [f"n{row}" for row in (*range(40), *range(100, 140))]
    assert [row["predicted"] for row in rows] == [2 * row["a"] for row in rows]
    assert [(row["file"], row["row"]) for row in rows][39:41] == [("a.parquet", 39), ("b.parquet", 0)]
    schema = pq.read_schema(OUT)
    assert schema.names == ["id", "a", "file", "row", "predicted", "model", "version"]
    assert (schema.field("a").type, schema.field("predicted").type) == (pa.float64(), pa.float32())
    assert rows[0]["version"] == "v0.0.1"


def test_files_of_one_name_are_told_by_their_folders():
    for folder in ("x", "y"):
        Path(folder).mkdir()
        put(f"{folder}/rows.csv", HEADER + "1,2\n")
    rows, _ = run("*/rows.csv")
    assert [row["file"] for row in rows] == ["x/rows.csv", "y/rows.csv"]


def test_a_file_with_brackets_and_a_space_in_its_name_is_no_pattern():
    rows, _ = run(put("a [1].csv", HEADER + "1,2\n"))
    assert [row["file"] for row in rows] == ["a [1].csv"]


def with_pictures(**columns: pa.Array) -> str:
    pq.write_table(pa.table(columns), "pictures.parquet")
    return "pictures.parquet"


def darkest(columns) -> dict[str, np.ndarray]:
    return {"output": columns["image"].reshape(len(columns["image"]), -1).max(axis=1)[:, None].astype(np.float32)}


def of_pictures():
    return fake_model(darkest, {"image": PICTURE})


PIXELS = (np.arange(40 * 16).reshape(40, 4, 4) % 251).astype(np.uint8)


@pytest.mark.parametrize("kind", ["tensors", "lists"])
def test_pictures_come_as_tensors_or_as_lists_of_a_fixed_size(kind):
    column = to_column(PIXELS)
    column = column if kind == "tensors" else column.storage
    rows, rejected = run(with_pictures(image=column), model=of_pictures())
    assert [row["predicted"] for row in rows] == PIXELS.max(axis=(1, 2)).tolist()
    assert not rejected


@pytest.mark.parametrize(
    "column",
    [to_column(PIXELS[:, :2]), to_column(PIXELS.astype(np.int64)), to_column(PIXELS[:, 0]).storage, pa.array(["x"])],
)
def test_pictures_of_another_size_or_type_are_rejected(column):
    rows, rejected = run(with_pictures(image=column), model=of_pictures())
    assert not rows
    assert {record["column"] for record in rejected} == {"image"}
    assert "expected 4 x 4 of uint8" in rejected[0]["reason"]


def test_a_missing_picture_is_rejected_by_itself():
    whole = to_column(PIXELS).storage
    lists = pa.FixedSizeListArray.from_arrays(whole.values, 16, mask=pa.array(np.arange(40) == 3))
    rows, rejected = run(with_pictures(image=lists), model=of_pictures())
    assert [record["row"] for record in rejected] == [3]
    assert [row["predicted"] for row in rows] == np.delete(PIXELS, 3, axis=0).max(axis=(1, 2)).tolist()


def test_a_folder_of_pictures_is_read_by_name_and_each_bad_file_is_rejected_by_itself():
    place = Path("shop [new]")
    place.mkdir()
    for shade in (9, 7, 8):
        Image.new("L", (4, 4), shade).save(place / f"{shade}.png")
    Image.new("L", (5, 4), 1).save(place / "wide.png")
    Image.new("RGB", (4, 4)).save(place / "color.png")
    (place / "cut.png").write_bytes((place / "9.png").read_bytes()[:50])
    (place / "notes.txt").write_text("hello")
    (place / "more").mkdir()
    (place / ".DS_Store").write_text("no picture of the user")
    rows, rejected = run(str(place), model=of_pictures())
    assert [(row["file"], row["row"], row["predicted"]) for row in rows] == [
        ("7.png", 0, 7),
        ("8.png", 0, 8),
        ("9.png", 0, 9),
    ]
    assert {record["file"]: record["reason"] for record in rejected} == {
        "color.png": "is 4 x 4 RGB, expected 4 x 4 L of 8 bits",
        "cut.png": "is no readable PNG file",
        "more": "is no file",
        "notes.txt": "is no readable PNG file",
        "wide.png": "is 5 x 4 L, expected 4 x 4 L of 8 bits",
    }


def test_a_folder_for_a_model_without_a_picture_is_refused():
    Path("shop").mkdir()
    put("shop/1.png", "")
    with pytest.raises(UserError, match=r"a_model takes a \[\] float32, b \[\] float32"):
        run("shop")


def test_a_truncated_parquet_file_is_rejected_whole_and_the_others_are_predicted():
    whole = pa.table({"a": np.arange(500.0), "b": np.zeros(500)})
    pq.write_table(whole, "1.parquet")
    put("1.parquet", Path("1.parquet").read_bytes()[:-100])
    pq.write_table(whole.slice(0, 3), "2.parquet")
    put("3.parquet", "no Parquet")
    rows, rejected = run("*.parquet")
    assert [row["file"] for row in rows] == ["2.parquet"] * 3
    assert [(record["file"], record["row"]) for record in rejected] == [("1.parquet", None), ("3.parquet", None)]
    assert "truncated" in rejected[0]["reason"]


@pytest.mark.parametrize("form", ["parquet", "arrows", "csv"])
def test_what_is_read_before_a_damage_is_predicted_and_the_file_is_named(form):
    table = {"names": ["a", "b"], "kinds": ["int", "int"], "values": [[*range(500)], [*range(500)]], "rows": 500}
    path = Path(write(table, form, set()))
    content = bytearray(path.read_bytes())
    if form == "csv":
        content[-3:-2] = b"\xff"
        chunks_before = 0
    elif form == "parquet":
        begin = pq.read_metadata(path).row_group(3).column(0).dictionary_page_offset
        content[begin : begin + 8] = b"\xff" * 8
        chunks_before = 150
    else:
        content = content[: len(content) * 2 // 3]
        chunks_before = 200
    path.write_bytes(content)
    rows, rejected = run(str(path))
    assert [row["row"] for row in rows] == [*range(len(rows))]
    assert [row["predicted"] for row in rows] == [3.0 * row for row in range(len(rows))]
    assert len(rows) >= chunks_before
    assert [record["row"] for record in rejected] == [None]


@pytest.mark.parametrize(("content", "told"), [("", "is empty"), ("a,b\n1,2\n".encode("utf-16"), "UTF-16")])
def test_a_file_that_is_no_csv_file_is_told(content, told):
    rows, rejected = run(put("x.csv", content))
    assert not rows
    assert told in rejected[0]["reason"]


def strange(columns) -> dict[str, np.ndarray]:
    return {"output": np.where(columns["a"] == 3, np.nan, columns["a"])[:, None]}


def test_an_answer_that_is_not_finite_is_rejected():
    text = "".join(f"{row},x\n{row},0\n" for row in range(40))
    rows, rejected = run(put("x.csv", HEADER + text), model=fake_model(strange))
    assert 3 not in [row["predicted"] for row in rows]
    [record] = [record for record in rejected if record["column"] != "b"]
    assert record == {
        "file": "x.csv",
        "row": 7,
        "column": "output",
        "value": "nan",
        "reason": "the model's answer is not a finite number",
    }
    assert [record["row"] for record in rejected] == sorted(record["row"] for record in rejected)


def test_a_model_that_does_not_answer_each_row_is_told():
    with pytest.raises(UserError, match=r"a_model answers output with the shape \[1, 1\] for 2 rows"):
        run(put("x.csv", HEADER + "1,2\n1,2\n"), model=fake_model(lambda columns: {"output": np.zeros((1, 1))}))


ORIGIN = Origin(
    dataset="d", source="sample", raw_sha256="0" * 64, class_names=["x", "y", "z"], target_unit=None, seed=1
)


def test_classes_have_a_number_a_label_and_probabilities_and_further_outputs_a_prefix():
    def answer(columns):
        first = columns["a"][:, None]
        return {"aux": np.concatenate([first, 1 - first], axis=1), "output": first}

    origin = ORIGIN.model_copy(update={"task": "binary", "classes": ["no", "yes"]})
    outputs = {"aux": Tensor(np.dtype(np.float32), (2,)), "output": OUTPUT}
    rows, _ = run(put("x.csv", HEADER + "0.25,0\n0.75,0\n"), model=fake_model(answer, outputs=outputs, origin=origin))
    del rows[1]["model"], rows[1]["version"]
    assert rows[1] == {
        "file": "x.csv",
        "row": 1,
        "predicted": 1,
        "label": "yes",
        "probability no": 0.25,
        "probability yes": 0.75,
        "aux_predicted": 0,
        "aux_label": "no",
        "aux_probability no": 0.75,
        "aux_probability yes": 0.25,
    }
    assert pq.read_schema(OUT).field("predicted").type == pa.int64()
    assert pa.types.is_dictionary(pq.read_schema(OUT).field("label").type)


def test_several_numbers_of_a_foreign_model_are_written_as_they_are():
    def answer(columns):
        return {"y": np.stack([columns["a"], columns["b"]], axis=1)}

    rows, _ = run(put("x.csv", HEADER + "1,2\n"), model=fake_model(answer, outputs={"y": Tensor(np.dtype("f4"), (2,))}))
    assert (rows[0]["predicted 0"], rows[0]["predicted 1"]) == (1, 2)


def test_whole_numbers_of_a_foreign_model_are_checked():
    inputs = {"a": Tensor(np.dtype(np.int8), ()), "b": NUMBER}
    rows, rejected = run(put("x.csv", HEADER + "1,0\n1.5,0\n300,0\n-4,0\n"), model=fake_model(inputs=inputs))
    assert [row["predicted"] for row in rows] == [2, -8]
    assert [record["reason"] for record in rejected] == ["does not fit int8"] * 2


def test_a_kept_column_with_a_name_of_the_output_is_refused():
    with pytest.raises(UserError, match="--keep row: the output has a column of this name"):
        run(put("x.csv", "a,b,row\n1,2,3\n"), ("row",))


def test_a_kept_column_of_another_type_in_a_later_file_is_rejected_there():
    pq.write_table(pa.table({"a": [1.0], "b": [1.0], "id": ["x"]}), "1.parquet")
    pq.write_table(pa.table({"a": [1.0], "b": [1.0], "id": [7]}), "2.parquet")
    rows, rejected = run("*.parquet", ("id",))
    assert [row["id"] for row in rows] == ["x"]
    assert rejected[0]["reason"] == "is int64, and string in an earlier file"


def test_a_column_to_keep_that_is_nowhere_rejects_each_row():
    rows, rejected = run(put("x.csv", HEADER + "1,2\n"), ("id",))
    assert not rows
    assert (rejected[0]["column"], rejected[0]["reason"]) == ("id", "is missing, and --keep names it")
