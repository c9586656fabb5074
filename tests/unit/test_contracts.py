"""The JSON files between stages: what they state is checked, and whatever else they hold is one message."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_column
from runtime.errors import UserError
from tasks.data.contracts import read_contract, write_contract
from tasks.data.examples import read_examples
from tasks.data.files import read_table, write_table
from tasks.data.normalization import read_normalization
from tasks.data.raw import read_provenance
from tasks.data.schema import INDEX, read_prepared_schema, read_schema
from tasks.data.streaming import open_split
from tasks.report.dataset_page import describe_data
from tasks.report.read import read_artifacts, read_baselines, read_data, read_graph, read_lecture_recipe, read_metrics

PUBLISHED = get_dataset("iris").sha256


def edit(path: Path, *keys: str | int, to: object = None, remove: bool = False) -> None:
    """Change what `path` holds at `keys`, or take it away."""
    values = json.loads(path.read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    if remove:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = to
    path.write_text(json.dumps(values))


PROVENANCE, SCHEMA = paths.RAW / "iris.json", paths.PREPARED / "iris/schema.json"
STATISTICS = paths.PREPARED / "california_housing/normalization.json"
READ = {
    PROVENANCE: lambda: read_provenance(get_dataset("iris")),
    SCHEMA: lambda: read_schema("iris"),
    STATISTICS: lambda: read_normalization("california_housing"),
}


@pytest.mark.parametrize(
    ("path", "keys", "value", "told"),
    [
        (PROVENANCE, ["source"], "real", r"sha256: is .*source is 'real'"),
        (PROVENANCE, ["source"], "made up", "source: Input should be 'real' or 'sample', got 'made up'"),
        (PROVENANCE, ["dataset"], "line", "dataset: is 'line', but datasets/iris.py says 'iris'"),
        (PROVENANCE, ["class_names"], ["a", "b"], r"class_names: is \['a', 'b'\], but datasets/iris.py says"),
        (PROVENANCE, ["class_names", 0], "versicolor", "class_names: is"),
        (PROVENANCE, ["sha256"], "abc", "sha256: "),
        (PROVENANCE, ["rows"], "150", "rows: Input should be a valid integer, got '150'"),
        (PROVENANCE, ["columns", "species"], "double", "columns: is"),
        (SCHEMA, ["source"], "real", r"raw_sha256: is .*source is 'real'"),
        (SCHEMA, ["raw_sha256"], "0" * 64, r"raw_sha256: is .*data/raw/iris\.json says"),
        (SCHEMA, ["class_names"], ["a"], "class_names: is"),
        (SCHEMA, ["features"], ["petal_width"], "features: is"),
        (SCHEMA, ["rows", "train"], 0, "rows.train: Input should be greater than 0"),
        (SCHEMA, ["rows", "train"], 83, r"rows: are 149 in all, but data/raw/iris\.json says 150"),
        (SCHEMA, ["rows", "train"], 10**30, "rows"),
        (SCHEMA, ["train_median"], 1.0, "train_median: is 1.0"),
        (STATISTICS, ["method"], "standard", "standard.low: is not known here"),
        (STATISTICS, ["method"], ["clipped"], r"method: expected one of 'none', .*, got \['clipped'\]"),
        (STATISTICS, ["std", "MedInc"], 0, "std.MedInc: is not greater than 0, got 0"),
        (STATISTICS, ["std", "MedInc"], 1e-60, "std.MedInc: is not greater than 0"),
        (STATISTICS, ["std", "MedInc"], -1, "std.MedInc: is not greater than 0"),
        (STATISTICS, ["std", "MedInc"], float("nan"), "NaN is no number of JSON"),
        (STATISTICS, ["mean", "MedInc"], float("inf"), "Infinity is no number of JSON"),
        (STATISTICS, ["mean", "MedInc"], 1e60, "mean.MedInc"),
        (STATISTICS, ["mean", "MedInc"], 10**400, "mean.MedInc"),
        (STATISTICS, ["mean", "MedInc"], "1", "mean.MedInc: Input should be a valid number, got '1'"),
        (STATISTICS, ["mean", "MedInc"], True, "mean.MedInc: Input should be a valid number, got True"),
        (STATISTICS, ["mean"], [1, 2], "mean: Input should be a valid dictionary"),
        (STATISTICS, ["mean", "another"], 1.0, "mean.another: is no column"),
        (STATISTICS, ["low", "MedInc"], 1e9, "low.MedInc: is above high.MedInc"),
    ],
)
def test_what_a_file_states_is_checked(prepared, path, keys, value, told):
    READ[path]()
    edit(path, *keys, to=value)
    with pytest.raises(UserError, match=rf"{path}.*{told}.*dvc repro --force") as error:
        READ[path]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", READ)
def test_what_is_read_is_written_as_the_same_bytes(prepared, path):
    write_contract(Path("again.json"), READ[path]())
    assert Path("again.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("path", "keys"),
    [(PROVENANCE, ["sha256"]), (PROVENANCE, ["rows"]), (SCHEMA, ["duplicates"]), (STATISTICS, ["std", "MedInc"])],
)
def test_a_missing_key_is_told_by_name(prepared, path, keys):
    edit(path, *keys, remove=True)
    with pytest.raises(UserError, match=rf"{path}: .*{keys[-1]}: is missing\. Run `dvc repro --force"):
        READ[path]()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not valid JSON"),
        ("{}", "is missing"),
        ("[]", "holds no JSON object"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ('{"rows": 1, "rows": 2}', "'rows' is there twice"),
        ('{"rows": 1e999}', "not valid JSON"),
        ('{"rows": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"title": "\\ud800"}', "not valid JSON"),
    ],
)
@pytest.mark.parametrize("path", READ)
def test_what_is_no_such_file_is_one_message(prepared, path, text, told):
    path.write_text(text)
    with pytest.raises(UserError, match=told) as error:
        READ[path]()
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def renumber(values: list[int]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(0, INDEX, to_column(np.resize(np.array(values, np.int64), table.num_rows)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: table.slice(1), "83 rows, but schema.json says 84"),
        (renumber([0]), "does not hold the numbers of different raw rows, 0 to 149"),
        (renumber([*range(83), 150]), "does not hold the numbers"),
        (renumber([*range(83), -1]), "does not hold the numbers"),
    ],
)
def test_prepared_rows_that_are_not_those_of_the_schema_are_refused(prepared, change, told):
    path = paths.prepared_table("iris", "train")
    table = change(read_table(path, "").combine_chunks())
    path.unlink()
    write_table(path, table)
    for read in (read_examples, lambda recipe, split: open_split(recipe, split, 10**9)):
        with pytest.raises(UserError, match=rf"{path}: .*{told}.*prepare@iris"):
            read(load_params().model("iris_mlp"), "train")
    assert any(told in sentence for sentence in read_data("iris").missing)


# Arbitrary content: a message, or a result that the pages can show.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

METRICS = {
    "name": "iris_mlp",
    "dataset": "iris",
    "task": "multiclass",
    "source": "real",
    "raw_sha256": PUBLISHED,
    "seed": 42,
    "parameters": {"total": 83, "trainable": 83},
    "epochs": 3,
    "metrics": {split: {"loss": 0.1, "accuracy": 1.0, "f1_macro": 1.0} for split in paths.SPLITS},
    "per_class": {name: {"precision": 1.0, "recall": 1.0, "f1": 1.0, "rows": 10} for name in ("setosa", "versicolor")},
    "slices": {},
    "probes": {},
}
GRAPH = {
    "layers": [
        {"name": name, "type": "Dense", "activation": None, "shape": [3], "parameters": 9, "trainable": 9}
        for name in ("one", "two")
    ],
    "links": [["one", "two"]],
    "index": 3,
}


def places(values: object, path: tuple = ()) -> list[tuple]:
    """Return the way to each value in `values`, and that to all of them."""
    found = [path]
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def replaced(values: object, path: tuple, value: object) -> object:
    if not path:
        return value
    key, *rest = path
    changed = dict(values) if isinstance(values, dict) else list(values)
    changed[key] = replaced(changed[key], tuple(rest), value)
    return changed


def message(read: Callable[[], object]) -> str | None:
    """Return the message for the user; None where there is a result."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def draw_graph(path: Path) -> None:
    from tasks.report.network_diagram import draw

    draw(read_graph(path, "train@iris_mlp"))


@SETTINGS
@given(data=st.data())
@pytest.mark.parametrize("path", READ)
def test_any_value_anywhere_is_a_message_or_a_result(prepared, path, data):
    before = path.read_text()
    values = json.loads(before)
    place = data.draw(st.sampled_from(places(values)))
    path.write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    try:
        for read in (*READ.values(), lambda: read_prepared_schema(get_dataset("iris"))):
            told = message(read)
            assert told is None or str(path) in told
    finally:
        path.write_text(before)


@SETTINGS
@given(data=st.data())
@pytest.mark.parametrize(
    ("name", "values", "read"),
    [
        ("metrics.json", METRICS, lambda path: read_metrics("iris_mlp")),
        ("network/graph.json", GRAPH, draw_graph),
    ],
)
def test_any_value_in_what_the_report_reads_is_a_message_or_a_result(workspace, name, values, read, data):
    path = Path("artifacts/iris_mlp") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
    read(path)
    place = data.draw(st.sampled_from(places(values)))
    path.write_text(json.dumps(replaced(values, place, data.draw(JSON))))
    told = message(lambda: read(path))
    assert told is None or str(path) in told or "unknown dataset" in told


@pytest.mark.parametrize(
    ("keys", "value", "told"),
    [
        (["raw_sha256"], "0" * 64, "source is 'real'"),
        (["name"], "iris_perceptron", "name: is 'iris_perceptron'"),
        (["metrics", "test", "accuracy"], "1", "metrics.test.accuracy"),
        (["metrics", "test"], {"loss": 1.0}, "metrics.test.accuracy: is missing"),
        (["parameters"], [], "parameters"),
    ],
)
def test_the_report_does_not_believe_metrics_that_contradict_themselves(workspace, keys, value, told):
    path = Path("artifacts/iris_mlp/metrics.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(METRICS))
    edit(path, *keys, to=value)
    found = read_artifacts("iris_mlp")
    assert found.metrics is None
    assert any(told in sentence for sentence in found.missing)


def frame(**changed: object) -> pd.DataFrame:
    columns = {f"probability {name}": [0.5, 0.5] for name in METRICS["per_class"]}
    return pd.DataFrame({"index": [1, 2], "true": [0, 1], "predicted": [1, 0], **columns, **changed})


@pytest.mark.parametrize(
    ("predictions", "told"),
    [
        (frame(true=[0, 2]), "true holds other than 0 to 1"),
        (frame(predicted=[0.5, 1]), "predicted holds other than 0 to 1"),
        (frame(index=[1, 150]), "index holds numbers of no raw row"),
        (frame(index=[-1, 2]), "index holds numbers of no raw row"),
        (frame().drop(columns="probability setosa"), "probability setosa missing"),
        (frame(**{"probability setosa": ["a", "b"]}), "probability setosa holds other than finite numbers"),
    ],
)
def test_predictions_that_are_not_those_of_the_metrics_are_left_out(prepared, predictions, told):
    folder = paths.artifacts_folder("iris_mlp")
    folder.mkdir(parents=True)
    raw = read_provenance(get_dataset("iris"))
    made_of = {"source": raw.source, "raw_sha256": raw.sha256}
    (folder / "metrics.json").write_text(json.dumps(METRICS | made_of))
    frame().to_parquet(folder / "predictions.parquet")
    assert read_artifacts("iris_mlp").predictions is not None
    predictions.to_parquet(folder / "predictions.parquet")
    found = read_artifacts("iris_mlp")
    assert found.predictions is None
    assert any(told in sentence for sentence in found.missing)


@pytest.mark.parametrize("text", ["{}", '{"runs": 3}', '{"runs": [{"seed": "x"}]}', "[" * 100_000])
def test_the_report_leaves_out_what_parity_and_baselines_did_not_write(workspace, text):
    for folder in (paths.lecture_recipe_folder("housing_mlp"), paths.BASELINES):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(text)
        (folder / "history.csv").write_text("normalization,seed,epoch\nstandard,1,1\n")
    assert read_lecture_recipe("housing_mlp") is None
    assert read_baselines(load_params()) == {}


@pytest.mark.parametrize("text", ["epoch,loss,val_loss\n1,a,2\n", "epoch,loss,val_loss\n0.5,1,2\n", "a,b\n\x00", '"'])
def test_the_report_tells_of_curves_that_are_no_numbers(workspace, text):
    folder = paths.artifacts_folder("iris_mlp")
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text(text)
    pd.DataFrame({"index": ["a"], "true": [1], "predicted": [1]}).to_parquet(folder / "predictions.parquet")
    found = read_artifacts("iris_mlp")
    assert found.history is None
    assert found.predictions is None


def test_a_page_of_data_whose_files_are_damaged_is_still_described(prepared):
    shutil.copy(SCHEMA, "kept.json")
    edit(SCHEMA, "rows", to={})
    described = describe_data(read_data("iris"), [])
    assert described["schema"] is None
    assert described["provenance"]


def test_a_contract_tells_a_long_value_by_its_beginning(prepared):
    from tasks.data.schema import PreparedSchema

    edit(SCHEMA, "target", to=["x" * 10_000])
    with pytest.raises(UserError) as error:
        read_contract(SCHEMA, PreparedSchema, "prepare@iris")
    assert len(str(error.value)) < 300
