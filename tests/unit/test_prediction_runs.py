"""Runs of a prediction: one that was stopped goes on and ends with the same bytes; nothing is published in part."""

import hashlib
import json
import os
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from runtime.disk import explain
from runtime.errors import UserError
from tasks.data.contracts import read_contract
from tasks.prediction import chunks
from tasks.prediction import predict as prediction
from tasks.prediction.inputs import find_sources
from tasks.prediction.parts import part_file
from tasks.prediction.predict import predict
from tasks.prediction.progress import Done
from tasks.prediction.record import PredictionRecord
from tests.support.models import FakeModel, fake_model

OUT, REJECTED, PARTIAL = Path("answers.parquet"), Path("answers.rejected.parquet"), Path(".answers.partial")
ROWS, CHUNK = 200, 16
PARTS = 2 * 13  # of two files


class StoppedError(Exception):
    """In place of a kill."""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "MAX_ROWS", CHUNK)
    for name in ("x", "y"):
        a = np.arange(float(ROWS))
        a[[20, 21, 100]] = np.nan
        write(name, pa.table({"a": a, "b": np.zeros(ROWS)}))
    return tmp_path


def write(name: str, table: pa.Table) -> None:
    """Write rows in row groups, as CSV, and as a stream."""
    Path("in").mkdir(exist_ok=True)
    pq.write_table(table, f"in/{name}.parquet", row_group_size=70)
    for ending, opener in ((".arrow", pa.ipc.new_file), (".arrows", pa.ipc.new_stream)):
        with Path(f"in/{name}{ending}").open("wb") as file, opener(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=33)
    lines = [f"{a},{b}" for a, b in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)]
    lines[50:51] = ["1"] * (len(lines) > 50)
    Path(f"in/{name}.csv").write_text("\n".join(["a,b", *lines, ""]))


def run(given: str = "in/*.parquet", parts: int | None = None, **options) -> tuple[FakeModel, list[str]]:
    """Predict; stop after some parts. Return the model and what was told."""
    model, told = options.pop("model", None) or fake_model(), []

    def stop(done: Done) -> None:
        if parts is not None and len([*PARTIAL.glob("*[0-9].arrow")]) >= parts:
            raise StoppedError

    predict(lambda: model, given, OUT, report=stop, tell=told.append, **options)
    return model, told


def stop(given: str = "in/*.parquet", parts: int = 5, **options) -> None:
    with pytest.raises(StoppedError):
        run(given, parts, **options)


def outputs() -> tuple[bytes, bytes]:
    assert not PARTIAL.exists()
    return OUT.read_bytes(), REJECTED.read_bytes()


@pytest.mark.parametrize("ending", ["parquet", "csv", "arrow", "arrows"])
@pytest.mark.parametrize("parts", [1, 13, 14, 25])
def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bytes(ending, parts):
    given = f"in/*.{ending}"
    whole, _ = run(given)
    expected = outputs()
    stop(given, parts)
    assert outputs_are(expected)
    model, told = run(given)
    assert outputs() == expected
    assert len(model.calls) == len(whole.calls[len(whole.calls) - PARTS + parts :])  # which threads append
    assert re.fullmatch(rf"resuming: {parts} of about 2\d parts are there\.", told[0])


def outputs_are(expected: tuple[bytes, bytes]) -> bool:
    return (OUT.read_bytes(), REJECTED.read_bytes()) == expected


def test_a_run_that_is_stopped_again_and_again_goes_on_each_time():
    run()
    expected = outputs()
    for parts in (3, 4, 20):
        stop(parts=parts)
    run()
    assert outputs() == expected


def test_what_was_finished_but_not_published_is_published_without_a_prediction(monkeypatch):
    run()
    expected = outputs()

    def raise_stopped(*_: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "publish_all", raise_stopped)
        with pytest.raises(StoppedError):
            run()
    model, _ = run()
    assert model.calls == []
    assert outputs() == expected


@pytest.mark.parametrize("damage", ["cut", "empty", "no records"])
def test_a_damaged_part_is_made_again(damage):
    run()
    expected = outputs()
    stop(parts=8)
    second = part_file(PARTIAL, 1)  # its rows 4 and 5 are rejected
    if damage == "no records":
        (PARTIAL / f"{second.stem}.rejected.arrow").unlink()
    else:
        second.write_bytes(second.read_bytes()[:-50] if damage == "cut" else b"")
    model, told = run()
    assert told[0].startswith("resuming: 1 of about")
    assert sum(model.calls) == 2 * ROWS - 6 - CHUNK
    assert outputs() == expected


def other_input() -> None:
    write("y", pa.table({"a": np.ones(ROWS), "b": np.ones(ROWS)}))


@pytest.mark.parametrize(
    ("change", "options", "told"),
    [
        (other_input, {}, "another input: starting anew"),
        (None, {"keep": ["a"]}, "another option: starting anew"),
        (None, {"model": None}, "another model: starting anew"),
    ],
    ids=["input", "option", "model"],
)
def test_another_run_begins_anew_and_says_so(change, options, told):
    stop()
    if change:
        change()
    if "model" in options:
        options["model"] = replace(fake_model(lambda columns: {"output": columns["a"][:, None]}), sha256="1" * 64)
    model, said = run(**options)
    assert told in said[0]
    assert sum(model.calls) >= 2 * ROWS - 6
    after = outputs()
    OUT.unlink()
    run(**options)
    assert outputs() == after


def test_the_json_file_says_what_the_output_was_made_of():
    run("in/x.csv")
    record = read_contract(Path("answers.json"), PredictionRecord, "")
    assert (record.model, record.version, record.saved_model_sha256) == ("a_model", "v0.0.1", "0" * 64)
    assert (record.rows, record.predicted, record.rejected, record.unreadable_files) == (ROWS, ROWS - 4, 4, 0)
    [given] = record.inputs
    assert (given.path, given.bytes) == ("in/x.csv", Path("in/x.csv").stat().st_size)
    assert given.sha256 == hashlib.sha256(Path("in/x.csv").read_bytes()).hexdigest()
    assert record.rows_per_second == pytest.approx(ROWS / record.seconds)


def test_the_last_line_names_the_most_frequent_reasons_and_where_they_are():
    _, told = run("in/x.csv")
    assert told[-1].startswith("predicted 196 of 200 rows in ")
    assert "answers.parquet. 4 rejected: is no number (3); a line of 1 values, expected 2 (1). See" in told[-1]


def test_without_rejected_rows_there_is_no_such_file_and_an_old_one_goes():
    run()
    assert REJECTED.exists()
    write("z", pa.table({"a": [1.0], "b": [2.0]}))
    run("in/z.parquet")
    assert not REJECTED.exists()


def test_a_strict_run_stops_at_the_first_bad_row_and_publishes_nothing():
    write("a", pa.table({"a": [1.0], "b": [2.0]}))
    run("in/a.parquet")
    before = OUT.read_bytes()
    with pytest.raises(UserError, match=r"x.parquet, row 20 \(from 0\), column 'a': 'nan' is not a finite number"):
        run("in/[ax].parquet", strict=True)
    assert OUT.read_bytes() == before
    assert not PARTIAL.exists()
    assert json.loads(Path("answers.json").read_text())["rows"] == 1
    run("in/a.parquet", strict=True)
    assert OUT.read_bytes() == before


def test_the_answer_that_is_not_finite_comes_before_a_later_bad_row_in_a_strict_run():
    def strange(columns):
        return {"output": np.where(columns["a"] == 2, np.inf, 1.0)[:, None]}

    with pytest.raises(UserError, match=r"row 2 .*column 'output': 'inf' the model's answer"):
        run("in/x.parquet", strict=True, model=fake_model(strange))


def test_a_second_run_on_the_same_output_is_refused_and_harms_nothing():
    stop()
    parts = {file.name: file.read_bytes() for file in PARTIAL.glob("*.arrow")}
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(PARTIAL / "lock"):
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    with pytest.raises(UserError, match=r"answers.parquet is being written by another run"):
        run()
    release.set()
    holder.join()
    assert {file.name: file.read_bytes() for file in PARTIAL.glob("*.arrow")} == parts


def test_an_unknown_model_leaves_nothing_new_and_keeps_the_parts_of_another_run():
    def fail():
        raise UserError("unknown model")

    with pytest.raises(UserError, match="unknown model"):
        predict(fail, "in/x.csv", OUT)
    assert not PARTIAL.exists()
    stop()
    with pytest.raises(UserError, match="unknown model"):
        predict(fail, "in/x.csv", OUT)
    _, told = run()
    assert told[0].startswith("resuming: 5")


def test_an_input_that_changes_meanwhile_is_not_published():
    def grow(columns):
        with Path("in/x.csv").open("a") as file:
            file.write("1,2\n")
        return {"output": columns["a"][:, None]}

    with pytest.raises(UserError, match="the input was changed while it was read"):
        run("in/x.csv", model=fake_model(grow))
    assert not OUT.exists()


@pytest.mark.parametrize(
    ("given", "output", "told"),
    [
        ("no.csv", "o.parquet", "no.csv not found"),
        ("no/*.csv", "o.parquet", "no file matches 'no/\\*.csv'"),
        ("in/x.csv", "o.csv", "ends in .parquet"),
        ("in/x.csv", "in", "ends in .parquet"),
        ("in/x.csv", "a folder.parquet", "is a folder, and a file is needed there"),
        ("in/x.parquet", "in/x.parquet", "both an input and an output"),
        ("in/x.parquet", "link/x.parquet", "both an input and an output"),
        ("in/*.rejected.parquet", "in/x.parquet", "both an input and an output"),
        ("notes.txt", "o.parquet", "notes.txt: give a file that ends in .csv"),
        ("empty", "o.parquet", "empty has no pictures"),
        ("in/x.csv", "notes.txt/o.parquet", "notes.txt is a file, and a folder is needed there"),
        ("pipe.csv", "o.parquet", "pipe.csv is a FIFO"),
    ],
)
def test_a_path_that_cannot_be_used_is_told_before_the_model_is_loaded(given, output, told):
    for name in ("a folder.parquet", "empty"):
        Path(name).mkdir()
    Path("notes.txt").touch()
    Path("in/x.rejected.parquet").touch()
    Path("link").symlink_to("in")
    os.mkfifo("pipe.csv")

    def never():
        raise AssertionError

    with pytest.raises(UserError, match=told):
        predict(never, given, Path(output))
    assert not [*Path().glob(".*")]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_is_told_with_its_remedy(monkeypatch):
    monkeypatch.setattr(prediction, "write_part", lambda *_: Path("/dev/full").write_text("x" * 10_000))
    with pytest.raises(OSError, match="No space left") as caught:
        run()
    assert "Free some space" in (explain(caught.value) or "")


def test_pictures_are_a_source_of_as_many_files(tmp_path):
    for name in ("b.png", "a.png", ".hidden"):
        (tmp_path / "in" / "shop").mkdir(exist_ok=True)
        (tmp_path / "in" / "shop" / name).write_text("x")
    [source] = find_sources("in/shop")
    assert source.pictures == ("a.png", "b.png")
