"""What `train` writes for readers: the layers of every network as they are, what a picture becomes, the model card."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ai_edge_litert.interpreter import Interpreter
from ruamel.yaml import YAML

from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_column, to_values
from models.common.outputs import metric_prefix
from serving.limits import Limits
from serving.settings import Settings
from serving.sources import folder_source
from serving.tensors import NAMES
from tasks.data.raw import read_provenance, read_raw
from tasks.prediction.predict import predict
from tasks.prediction.saved_model import load_model
from tests.support.serving import Served
from tests.support.workspaces import FEW_MODELS


def graph_of(trained, model: str) -> dict:
    return json.loads((trained / f"artifacts/{model}/network/graph.json").read_text())


@pytest.mark.parametrize("model", FEW_MODELS)
def test_the_layers_have_all_parameters_and_lead_from_the_inputs_to_the_outputs(trained, model):
    graph = graph_of(trained, model)
    measured = json.loads((trained / f"artifacts/{model}/metrics.json").read_text())
    names = [layer["name"] for layer in graph["layers"]]
    assert sum(layer["parameters"] for layer in graph["layers"]) == measured["parameters"]["total"]
    assert sum(layer["trainable"] for layer in graph["layers"]) == measured["parameters"]["trainable"]
    read, reading = {source for source, _ in graph["links"]}, {reader for _, reader in graph["links"]}
    inputs = set(load_params(trained / "params.yaml").models[model].inputs)
    assert set(names) - reading == inputs
    assert {"output"} <= set(names) - read <= {"output", "aux"}
    assert all(names.index(source) < names.index(reader) for source, reader in graph["links"])


def test_a_subclassed_network_is_the_functional_one(trained):
    subclassed, functional = (graph_of(trained, f"housing_wide_deep_{kind}") for kind in ("subclassed", "aux"))

    def key(layer: dict) -> str:
        return layer["name"]

    assert sorted(subclassed["links"]) == sorted(functional["links"])
    assert sorted(subclassed["layers"], key=key) == sorted(functional["layers"], key=key)


@pytest.mark.xdist_group("warm")
def test_filters_and_maps_are_those_of_the_trained_network(trained):
    import keras

    folder = trained / "artifacts/multi_input_cnn"
    shapes = {layer["name"]: layer["shape"] for layer in graph_of(trained, "multi_input_cnn")["layers"]}
    with np.load(folder / "network/filters.npz") as filters, np.load(folder / "network/maps.npz") as maps:
        assert set(filters) == {"grey_convolution_1", "colour_convolution_1"}
        for name, values in maps.items():
            assert [*values.shape[:2]] == shapes[name][:2]
            assert values.min() >= 0  # of a relu
            assert values.max() > 0
        network = keras.saving.load_model(folder / "model.keras", compile=False)
        for name, kernel in filters.items():
            assert np.array_equal(kernel, keras.ops.convert_to_numpy(network.get_layer(name).kernel))
        assert len(maps) == sum(isinstance(layer, keras.layers.Conv2D) for layer in network.layers)
    with np.load(trained / "artifacts/iris_mlp/network/maps.npz") as none:
        assert not none.files


@pytest.mark.parametrize("model", FEW_MODELS)
def test_the_model_card_has_a_head_its_sections_and_every_figure(trained, model):
    card = (trained / f"artifacts/{model}/README.md").read_text()
    measured = json.loads((trained / f"artifacts/{model}/metrics.json").read_text())
    head = YAML(typ="safe").load(card.split("---\n")[1])
    assert head["library_name"] == "keras"
    assert head["datasets"] == [measured["dataset"]]
    assert "sample data" in card
    sections = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert sections[:4] == ["Model details", "How to use it", "Intended use", "Factors"]
    assert sections[-1] == "Ethical considerations and caveats"
    assert len(card.rsplit("caveats\n", 1)[1]) > 50
    for split, figures in measured["metrics"].items():
        row = " | ".join(f"{value:.4f}" for value in figures.values())
        assert f"| {split} | {row} |" in card
    for name, figures in measured["per_class"].items():
        assert f"| {name} | {figures['precision']:.4f} |" in card


def litert_answers(folder, columns):
    return Interpreter(str(folder / "export/model.tflite")).get_signature_runner("serving_default")(**columns)


def onnx_answers(folder, columns):
    session = onnxruntime.InferenceSession(str(folder / "export/model.onnx"))
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, columns), strict=True))


def http_answers(folder, columns):
    served = Served(folder_source(folder.parent, [folder.name]), Settings(limits=Limits(body_bytes=2**28)))
    inputs = [
        {"name": name, "shape": [*values.shape], "datatype": NAMES[values.dtype], "data": values.tolist()}
        for name, values in columns.items()
    ]
    told = served.post(f"/v2/models/{folder.name}/infer", {"inputs": inputs})
    assert told.status_code == 200, told.text
    return {output["name"]: np.reshape(output["data"], output["shape"]) for output in told.json()["outputs"]}


def raw_test_rows(folder: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Return the predictions of the training for the test rows, and the raw columns of these rows."""
    dataset = get_dataset(json.loads((folder / "metrics.json").read_text())["dataset"])
    predictions = pd.read_parquet(folder / "predictions.parquet")
    raw = read_raw(dataset, read_provenance(dataset).sha256).take(predictions["index"].to_numpy())
    inputs = json.loads((folder / "export/export.json").read_text())["inputs"]
    return predictions, {entry["name"]: to_values(raw[entry["name"]]).astype(entry["dtype"]) for entry in inputs}


@pytest.mark.xdist_group("warm")
@pytest.mark.parametrize("answers", [litert_answers, onnx_answers, http_answers])
@pytest.mark.parametrize("model", FEW_MODELS)
def test_each_way_predicts_what_the_training_predicted(trained, monkeypatch, model, answers):
    monkeypatch.chdir(trained)
    folder = trained / "artifacts" / model
    predictions, columns = raw_test_rows(folder)
    for output, found in answers(folder, columns).items():
        start = metric_prefix(output)
        probable = [name for name in predictions if name.startswith(f"{start}probability ")]
        expected = predictions[probable[-found.shape[1] :] if probable else [f"{start}predicted"]].to_numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.xdist_group("warm")
@pytest.mark.parametrize("model", FEW_MODELS)
def test_a_file_of_rows_gets_the_predictions_of_the_training(trained, tmp_path, monkeypatch, model):
    monkeypatch.chdir(trained)
    folder = trained / "artifacts" / model
    predictions, columns = raw_test_rows(folder)
    given, output = tmp_path / "rows.parquet", tmp_path / "out.parquet"
    pq.write_table(pa.table({name: to_column(values) for name, values in columns.items()}), given)
    record = predict(lambda: load_model(folder / "saved_model", model, "v0.0.1"), str(given), output)
    assert (record.rows, record.rejected) == (len(predictions), 0)
    found = pq.read_table(output).to_pandas()
    for name in set(predictions) - {"index", "true"}:
        np.testing.assert_allclose(found[name], predictions[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", FEW_MODELS)
def test_both_formats_are_published(trained, model):
    formats = json.loads((trained / f"artifacts/{model}/export/export.json").read_text())["formats"]
    assert set(formats) == {"litert", "onnx"}
    assert all(entry["file"] and entry["difference"] <= 1e-5 for entry in formats.values())
