"""Arrivals: what is sound becomes a batch, what is not is rejected with the reasons, and nothing is lost."""

import csv
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from config import paths
from datasets import get_dataset
from datasets.dataset import SPLIT_COLUMN, to_values
from runtime.errors import UserError
from tasks.arrivals import parse as parsing
from tasks.arrivals import receive as receiving
from tasks.arrivals import settle
from tasks.arrivals.batches import list_batches
from tasks.arrivals.failures import MAX_REASONS, Failure, Reasons
from tasks.arrivals.inference import infer
from tasks.arrivals.parse import parse
from tasks.arrivals.receive import receive

IRIS, HOUSING, FASHION, LINE = map(get_dataset, ("iris", "california_housing", "fashion_mnist", "line"))
HEADER = "sepal_length,sepal_width,petal_length,petal_width,species\n"
SOUND = HEADER + "5.1,3.5,1.4,0.2,0\n6.3,2.9,5.6,1.8,2\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settle, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(receiving, "read_expectations", lambda dataset: None)
    for name in ("iris", "fashion_mnist", "california_housing"):
        paths.incoming_folder(name).mkdir(parents=True)
    return tmp_path


def put(name: str, content: str | bytes = SOUND, dataset: str = "iris") -> Path:
    path = paths.incoming_folder(dataset) / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reasons_against(name: str, content: str | bytes) -> list[dict[str, str]]:
    """Return the table of reasons of an arrival that must be rejected."""
    put(name, content)
    done = receive(IRIS)
    assert not done.accepted
    assert not list_batches("iris")
    [rejected] = done.rejected
    given = content.encode() if isinstance(content, str) else content
    assert rejected.read_bytes() == given
    assert not [*paths.incoming_folder("iris").iterdir()]
    with rejected.with_name(f"{rejected.name}.reasons.csv").open() as file:
        return [*csv.DictReader(file)]


def picture_rows(rows: int) -> pa.Table:
    return FASHION.generate().slice(0, rows).drop_columns(SPLIT_COLUMN)


def put_pictures(name: str, images: dict[str, Image.Image], labels: str) -> Path:
    path = paths.incoming_folder("fashion_mnist") / name
    path.mkdir()
    for file, image in images.items():
        image.save(path / file)
    (path / "labels.csv").write_text(labels)
    return path


def gray(shade: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> Image.Image:
    return Image.new(mode, size, shade)


def test_a_sound_file_is_moved_whole_and_keeps_its_bytes():
    put("Monday's flowers.csv")
    done = receive(IRIS)
    [accepted] = done.accepted
    assert accepted == paths.batches_folder("iris") / "0001-Monday_s flowers.csv"
    assert accepted.read_text() == SOUND
    assert not [*paths.incoming_folder("iris").iterdir()]
    assert not paths.rejected_folder("iris").exists()


def test_arrivals_are_taken_in_the_order_of_their_names_and_of_their_nights():
    put("b.csv", SOUND)
    put("a.csv", HEADER + "1,2,3,4,0\n")
    receive(IRIS)
    put("a.csv", HEADER + "2,2,3,4,0\n")
    receive(IRIS)
    assert [batch.name for batch in list_batches("iris")] == ["0001-a.csv", "0002-b.csv", "0003-a.csv"]


def test_the_ten_thousandth_batch_comes_after_the_others():
    place = paths.batches_folder("iris")
    place.mkdir(parents=True)
    for name in ("9999-a.csv", "10000-a.csv"):
        (place / name).write_text(name)
    put("a.csv")
    receive(IRIS)
    assert [batch.name for batch in list_batches("iris")] == ["9999-a.csv", "10000-a.csv", "10001-a.csv"]


def test_without_arrivals_the_folder_of_batches_is_there_and_empty():
    assert receive(LINE) == receiving.Received()
    assert [*paths.batches_folder("line").iterdir()] == []


@pytest.mark.parametrize("name", ["california_housing", "fashion_mnist"])
def test_a_parquet_file_like_raw_gives_the_same_values(name):
    dataset = get_dataset(name)
    rows = dataset.generate().slice(0, 50)
    rows = rows.drop_columns(SPLIT_COLUMN) if SPLIT_COLUMN in rows.column_names else rows
    pq.write_table(rows, "x.parquet", row_group_size=7)
    table, reasons = parse(dataset, Path("x.parquet"))
    assert not reasons.count
    assert table is not None
    assert table.equals(rows)


def test_a_csv_file_gives_the_same_bits_in_whatever_order_its_columns_come():
    rows = HOUSING.generate().slice(0, 500)
    pa_csv.write_csv(rows.select([*reversed(rows.column_names)]), "x.csv")
    table, _ = parse(HOUSING, Path("x.csv"))
    assert table is not None
    assert table.schema == HOUSING.schema
    assert table.equals(rows)


def test_a_folder_of_pictures_is_moved_with_its_labels_and_read_in_their_order():
    put_pictures("shop", {"b.png": gray(7), "a.png": gray(9)}, "file,label\nb.png,3\na.png,0\n")
    [accepted] = receive(FASHION).accepted
    assert sorted(entry.name for entry in accepted.iterdir()) == ["a.png", "b.png", "labels.csv"]
    table, _ = parse(FASHION, accepted)
    assert table is not None
    assert to_values(table["image"])[:, 0, 0].tolist() == [7, 9]
    assert table["label"].to_pylist() == [3, 0]


@pytest.mark.parametrize(
    ("content", "column", "reason"),
    [
        ("", "", "is empty"),
        (HEADER, "", "has no rows"),
        (SOUND.encode("utf-16"), "", "is no CSV file in UTF-8"),
        (SOUND.encode() + b"1,2,3,\xff,0\n", "", "is no CSV file in UTF-8"),
        (SOUND.replace("petal_width,", "petal_breadth,"), "petal_width", "is missing"),
        (SOUND.replace("petal_width,", "petal_length,"), "petal_width", "is missing"),
        (SOUND.replace("species\n", "species,owner\n"), "owner", "is unknown"),
        (SOUND + "1,2,3,4", "", "ends within a line"),
        (SOUND + "1,2,3\n", "", "a line of 3 values, expected 5"),
        (SOUND.replace(",", ";"), "sepal_length", "is missing"),
    ],
    ids=[
        "empty",
        "header alone",
        "UTF-16",
        "Latin-1",
        "another column",
        "a column twice",
        "one more column",
        "cut off",
        "short line",
        "semicolons",
    ],
)
def test_a_file_of_no_use_is_rejected_with_the_reason(content, column, reason):
    found = reasons_against("a.csv", content)
    assert found[0]["column"] == column
    assert found[0]["reason"].startswith(reason)
    assert found[0]["row"] == ""


@pytest.mark.parametrize(
    ("value", "column", "reason"),
    [
        ("", "sepal_length", "is missing"),
        ("NaN", "sepal_length", "is no number"),
        ("0x10", "sepal_length", "is no number"),
        ("1,5", "sepal_length", "is no number"),
        ("1e999", "sepal_length", "is not a finite number"),
        ("7", "species", "is no class: 0 setosa, 1 versicolor, 2 virginica"),
        ("-1", "species", "is no class"),
        ("setosa", "species", "is no whole number"),
        ("99999999999999999999", "species", "does not fit int64"),
    ],
)
def test_a_bad_value_is_named_with_its_row_and_column(value, column, reason):
    row = [f'"{value}"' if name == column else "1" for name in HEADER.strip().split(",")]
    found = reasons_against("a.csv", SOUND + ",".join(row) + "\n" + "1,1,1,1,1\n")
    assert len(found) == 1
    assert (found[0]["row"], found[0]["column"]) == ("3", column)
    assert found[0]["value"] == (value if reason != "is not a finite number" else "inf")
    assert found[0]["reason"].startswith(reason)


def test_many_bad_rows_make_a_short_table_that_counts_the_rest():
    found = reasons_against("a.csv", HEADER + "x,2,3,4,0\n" * 5000)
    assert len(found) == MAX_REASONS + 1
    assert found[-1]["reason"] == "and 4000 more"


def test_bad_rows_far_down_a_large_file_are_counted_right():
    good = "5.1,3.5,1.4,0.2,0\n" * 200_000  # several blocks
    found = reasons_against("a.csv", HEADER + good + "5.1,3.5,1.4,0.2,9\n")
    assert [reason["row"] for reason in found] == ["200001"]


def test_a_split_in_a_batch_is_refused_because_the_content_decides_it():
    table = LINE.generate()
    pq.write_table(table, "x.parquet")
    _, reasons = parse(LINE, Path("x.parquet"))
    assert reasons.kept[0].column == "split"
    assert "content of a new row decides" in reasons.first()


def altered(column: str, values: pa.Array) -> pa.Table:
    rows = picture_rows(3)
    return rows.set_column(rows.schema.get_field_index(column), column, values)


@pytest.mark.parametrize(
    ("rows", "column", "reason"),
    [
        (picture_rows(3).drop_columns("label"), "label", "is missing"),
        (altered("label", pa.array(["a", "b", "c"])), "label", "is string, expected int64"),
        (altered("label", pa.array([1, None, 2])), "label", "is missing"),
        (altered("label", pa.array([1, 2, 10])), "label", "is no class"),
        (
            altered("image", pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((3, 32, 32), np.uint8))),
            "image",
            "is extension<arrow.fixed_shape_tensor[value_type=uint8, shape=[32,32]",
        ),
        (picture_rows(0), None, "has no rows"),
    ],
)
def test_a_parquet_file_of_other_columns_or_values_is_refused(rows, column, reason):
    pq.write_table(rows, "x.parquet")
    table, reasons = parse(FASHION, Path("x.parquet"))
    assert table is None
    assert reasons.kept[0].column == column
    assert reasons.kept[0].reason.startswith(reason)


def test_a_truncated_parquet_file_is_refused():
    pq.write_table(picture_rows(20), "x.parquet")
    whole = Path("x.parquet").read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        Path("x.parquet").write_bytes(whole[:length])
        table, reasons = parse(FASHION, Path("x.parquet"))
        assert table is None
        assert "truncated" in reasons.first()


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        ({"a.png": gray(0, (32, 32))}, "file,label\na.png,0\n", "is 32 x 32 L, expected 28 x 28 L of 8 bits"),
        ({"a.png": Image.new("RGB", (28, 28))}, "file,label\na.png,0\n", "is 28 x 28 RGB, expected 28 x 28 L"),
        ({"a.png": gray(0)}, "file,label\na.png,10\n", "is no class"),
        ({"a.png": gray(0)}, "file,label\na.png,Bag\n", "is no whole number"),
        ({"a.png": gray(0)}, "file,label\na.png,0\nb.png,0\n", "is no file of this folder"),
        ({"a.png": gray(0)}, "file,label\na.png,0\na.png,1\n", "is listed twice"),
        ({"a.png": gray(0), "b.png": gray(1)}, "file,label\na.png,0\n", "is not listed in labels.csv"),
        ({"a.png": gray(0)}, "file,label\n../a.png,0\n", "is no file of this folder"),
        ({"a.png": gray(0)}, "name,label\na.png,0\n", "is missing"),
    ],
)
def test_pictures_that_are_not_those_of_the_data_set_are_refused(images, labels, reason):
    put_pictures("shop", images, labels)
    done = receive(FASHION)
    [rejected] = done.rejected
    assert reason in rejected.with_name(f"{rejected.name}.reasons.csv").read_text()
    assert (rejected / "labels.csv").read_text() == labels


def test_a_damaged_picture_or_a_link_in_a_folder_is_refused():
    folder = put_pictures("shop", {"a.png": gray(0)}, "file,label\na.png,0\n")
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 2])
    _, reasons = parse(FASHION, folder)
    assert "is no readable PNG file" in reasons.first()
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("/etc/passwd")
    _, reasons = parse(FASHION, folder)
    assert "'a.png', which is no file" in reasons.first()


@pytest.mark.parametrize(
    ("dataset", "name", "reason"),
    [
        (FASHION, "a.csv", "is a file .csv; fashion_mnist takes a .parquet file or a folder of PNG files"),
        (IRIS, "a.xlsx", "is a file .xlsx; iris takes a .parquet file or a .csv file"),
        (IRIS, "a", "is a file without an ending"),
    ],
)
def test_another_kind_of_file_is_refused_with_what_is_taken(dataset, name, reason):
    put(name, "x\n", dataset.name)
    [rejected] = receive(dataset).rejected
    assert reason in rejected.with_name(f"{rejected.name}.reasons.csv").read_text()


def test_a_folder_is_no_batch_of_numbers():
    (paths.incoming_folder("iris") / "more").mkdir()
    [rejected] = receive(IRIS).rejected
    assert rejected.is_dir()


def test_the_size_of_a_row_counts_every_value():
    assert [parsing.row_bytes(parsing.arrival_schema(dataset)) for dataset in (IRIS, HOUSING, FASHION, LINE)] == [
        40,
        72,
        792,
        16,
    ]
    assert parsing.row_bytes(pa.schema([("old", pa.bool_()), ("name", pa.string()), ("age", pa.int16())])) == 19


def test_more_rows_than_memory_should_hold_are_refused(monkeypatch):
    monkeypatch.setattr(parsing, "MAX_BYTES", 40 * 100)
    rows = IRIS.generate()
    pa_csv.write_csv(rows, "x.csv")
    pq.write_table(rows, "x.parquet")
    for name in ("x.csv", "x.parquet"):
        _, reasons = parse(IRIS, Path(name))
        assert reasons.first() == "has more than 100 rows, the most of one file: split it into several"


def test_the_same_bytes_again_are_rejected_and_name_their_batch():
    put("a.csv")
    receive(IRIS)
    put("another name.csv")
    [rejected] = receive(IRIS).rejected
    assert "equals batch 0001-a.csv" in rejected.with_name(f"{rejected.name}.reasons.csv").read_text()
    assert len(list_batches("iris")) == 1


def test_rows_that_the_raw_table_has_already_are_rejected_in_whatever_order(monkeypatch, tmp_path):
    rows = HOUSING.generate()
    monkeypatch.setattr(receiving, "read_expectations", lambda dataset: infer(dataset, rows, "sample"))
    known = tmp_path / "elsewhere" / paths.raw_table("california_housing")
    known.parent.mkdir(parents=True)
    pq.write_table(rows.slice(0, 500), known)
    for name, first in (("old.parquet", 100), ("new.parquet", 500)):
        pq.write_table(rows.slice(first, 100)[::-1], paths.incoming_folder("california_housing") / name)
    done = receive(HOUSING, tmp_path / "elsewhere")
    assert [batch.name for batch in done.accepted] == ["0001-new.parquet"]
    reasons = done.rejected[0].with_name(f"{done.rejected[0].name}.reasons.csv").read_text()
    assert "100 of 100 rows" in reasons
    assert "a row that the data set has already" in reasons


def test_two_rejected_files_of_one_name_are_both_kept():
    for content in ("x\n", "y\n"):
        put("a.csv", content)
        receive(IRIS)
    kept = {file.name: file.read_text() for file in paths.rejected_folder("iris").glob("*-a.csv")}
    assert kept == {"0001-a.csv": "x\n", "0002-a.csv": "y\n"}


def test_a_table_of_reasons_that_comes_back_is_not_taken_for_one():
    put("a.csv.reasons.csv", "x\n")
    [first] = receive(IRIS).rejected
    put("b.csv", "y\n")
    [second] = receive(IRIS).rejected
    assert (first.read_text(), second.read_text()) == ("x\n", "y\n")
    assert second.name == "0002-b.csv"


@pytest.mark.parametrize("name", ["a\nb.csv", "über.csv", "$(date).csv", "a..csv", "x" * 250 + ".csv", "a\udcff.csv"])
def test_an_odd_name_becomes_a_safe_one(name):
    put(name)
    [accepted] = receive(IRIS).accepted
    assert accepted.name.isprintable()
    assert accepted.suffix == ".csv"
    assert len(accepted.name.encode()) < 200
    assert not set(accepted.name) & set("\n$/'\"\\")
    assert accepted.read_text() == SOUND


def test_hidden_and_unfinished_files_are_left_alone():
    names = {".hidden.csv", "a.csv.tmp", "b.part", "c.csv.crdownload"}
    for name in names:
        put(name)
    assert receive(IRIS) == receiving.Received()
    assert {entry.name for entry in paths.incoming_folder("iris").iterdir()} == names


def test_a_link_and_a_pipe_stay_and_are_told(caplog):
    elsewhere = Path("elsewhere.csv")
    elsewhere.write_text(SOUND)
    link, pipe = (paths.incoming_folder("iris") / name for name in ("link.csv", "pipe.csv"))
    link.symlink_to(elsewhere.resolve())
    os.mkfifo(pipe)
    assert receive(IRIS).left == [link, pipe]
    assert "link.csv stays in data/incoming/iris: it is a symbolic link" in caplog.text
    assert "pipe.csv stays in data/incoming/iris: it is neither a file nor a folder" in caplog.text
    assert elsewhere.exists()


def test_a_file_that_grows_meanwhile_stays_and_is_taken_later(monkeypatch, caplog):
    path = put("a.csv")

    def write_more(seconds: float) -> None:
        with path.open("a") as file:
            file.write("1,1,1,1,1\n")

    with monkeypatch.context() as patch:
        patch.setattr(settle, "QUIET_SECONDS", 60)
        patch.setattr(time, "sleep", write_more)
        assert receive(IRIS).left == [path]
    assert "a.csv stays in data/incoming/iris: it is still being written" in caplog.text
    [accepted] = receive(IRIS).accepted
    assert accepted.read_text() == SOUND + "1,1,1,1,1\n"


def test_a_file_that_changes_while_it_is_checked_stays(monkeypatch):
    path = put("a.csv")

    def parse_while_it_grows(*given):
        found = parse(*given)
        path.write_text(SOUND * 2)
        return found

    monkeypatch.setattr(receiving, "parse", parse_while_it_grows)
    assert receive(IRIS).left == [path]


def test_an_old_file_is_taken_without_waiting(monkeypatch):
    path = put("a.csv")
    os.utime(path, (0, 0))
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited"))
    monkeypatch.setattr(settle, "QUIET_SECONDS", 60)
    assert receive(IRIS).accepted


def test_a_file_that_cannot_be_read_stays_and_the_others_are_taken(monkeypatch, caplog):
    closed, _ = put("a.csv"), put("b.csv", HEADER + "1,2,3,4,0\n")

    def refuse(dataset, path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return parse(dataset, path)

    monkeypatch.setattr(receiving, "parse", refuse)
    done = receive(IRIS)
    assert done.left == [closed]
    assert [path.name for path in done.accepted] == ["0001-b.csv"]
    assert "a.csv stays in data/incoming/iris: it cannot be read: data/incoming/iris/a.csv: Permission denied" in (
        caplog.text
    )


def test_expectations_that_are_not_met_reject_the_file(monkeypatch):
    put("a.csv")
    monkeypatch.setattr(receiving, "read_expectations", lambda dataset: "expectations")
    failure = Failure(1, "petal_length", "5.6", "is above 5")
    monkeypatch.setattr(receiving, "check_batch", lambda dataset, table, expectations, earlier: [failure])
    [rejected] = receive(IRIS).rejected
    table = rejected.with_name(f"{rejected.name}.reasons.csv").read_text()
    assert table == "row,column,value,reason\n2,petal_length,5.6,is above 5\n"


LOCK = """schema: '2.0'
stages:
  receive@iris:
    cmd: python -m flows.receive iris
    outs:
    - path: data/batches/iris
      hash: md5
      md5: d751713988987e9331980363e24189ce.dir
      size: 100
      nfiles: {files}
"""


def test_batches_that_dvc_lock_records_and_that_are_not_there_are_never_forgotten():
    Path("dvc.lock").write_text(LOCK.format(files=2))
    arrival = put("a.csv")
    for there in range(2):  # no folder; a folder with one of two
        with pytest.raises(UserError, match=rf"holds {there} of the 2 files .* Run `dvc pull data/batches/iris`"):
            receive(IRIS)
        assert paths.batches_folder("iris").exists() == bool(there)
        assert arrival.exists()
        paths.batches_folder("iris").mkdir(parents=True, exist_ok=True)
        (paths.batches_folder("iris") / f"000{there + 1}-x.csv").write_text(SOUND.replace("5.1", f"{there}"))
    assert [batch.name for batch in receive(IRIS).accepted] == ["0003-a.csv"]


def test_a_lock_file_without_batches_lets_a_fresh_workspace_begin():
    Path("dvc.lock").write_text(LOCK.format(files=0))
    receive(IRIS)
    assert paths.batches_folder("iris").is_dir()


def test_a_table_of_reasons_has_a_bounded_length_and_one_line_a_reason():
    reasons = Reasons()
    reasons.add(Failure(row, "x", "long " * 1000 + "\n", "is no number") for row in range(3 * MAX_REASONS))
    table = [*csv.reader(reasons.table().splitlines())]
    assert len(table) == MAX_REASONS + 2
    assert len(reasons.table()) < 200 * MAX_REASONS
