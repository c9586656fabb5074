"""What the server answers in each protocol, and what it says of a request that is not valid."""

import json
from pathlib import Path

import numpy as np
import pytest

from serving.sources import folder_source
from tasks.prediction import chunks
from tasks.prediction.saved_model import LoadedModel
from tests.support.serving import HOLE, Served, save_line, save_pair

pytestmark = pytest.mark.xdist_group("serving")

LINE, PAIR = "/v2/models/line/infer", "/v2/models/pair/infer"
IMAGES = [[[1, 2, 3], [4, 5, 6]], [[7, 8, 9], [0, 0, 255]]]
X = {"name": "x", "shape": [2], "datatype": "FP32", "data": [0.5, -1]}
IMAGE = {"name": "image", "shape": [2, 2, 3], "datatype": "UINT8", "data": IMAGES}
PREDICT_LINE, PREDICT_PAIR = "/v1/models/line:predict", "/v1/models/pair:predict"
ROWS = [{"x": 0.5, "image": IMAGES[0]}, {"x": -1, "image": IMAGES[1]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_line(folder / "line/v0.0.2/saved_model", 2.0)
    save_pair(folder / "pair/v0.0.10/saved_model")
    return folder


@pytest.fixture(scope="module")
def served(folder) -> Served:
    return Served(folder_source(folder, []))


def test_the_open_inference_protocol_answers_names_shapes_and_types(served):
    assert served.get("/v2").json() | {"version": ""} == {
        "name": "heaviside",
        "version": "",
        "extensions": ["binary_tensor_data"],
    }
    about = {
        "name": "pair",
        "versions": ["v0.0.10"],
        "platform": "tensorflow_savedmodel",
        "inputs": [
            {"name": "image", "datatype": "UINT8", "shape": [-1, 2, 3]},
            {"name": "x", "datatype": "FP32", "shape": [-1]},
        ],
        "outputs": [
            {"name": "corners", "datatype": "UINT8", "shape": [-1, 2]},
            {"name": "output", "datatype": "FP32", "shape": [-1, 1]},
        ],
    }
    for path in ("/v2/models/pair", "/v2/models/pair/versions/v0.0.10"):
        found = served.get(path).json()
        for kind in ("inputs", "outputs"):
            found[kind].sort(key=lambda tensor: tensor["name"])
        assert found == about
    assert served.get("/v2/models/pair/ready").json() == {"name": "pair", "ready": True}
    answer = served.post(PAIR, {"id": "a", "inputs": [X, IMAGE], "outputs": [{"name": "output"}]})
    assert answer.json() == {
        "model_name": "pair",
        "model_version": "v0.0.10",
        "id": "a",
        "outputs": [{"name": "output", "shape": [2, 1], "datatype": "FP32", "data": [21.5, 278.0]}],
    }
    assert answer.headers["x-model-version"] == "v0.0.10"
    both = served.post("/v2/models/pair/versions/v0.0.10/infer", {"inputs": [IMAGE, X]}).json()
    assert {output["name"]: output["data"] for output in both["outputs"]} == {
        "output": [21.5, 278.0],
        "corners": [1, 2, 7, 8],
    }


def test_a_long_request_is_computed_in_calls_that_fit_the_memory(served, monkeypatch):
    request = {
        "inputs": [{"name": "x", "shape": [40], "datatype": "FP32", "data": [HOLE + 0.5 + row for row in range(40)]}]
    }
    at_once = served.post(LINE, request).json()
    calls = []
    answer = LoadedModel.answer

    def counted(self, columns):
        calls.append(len(columns["x"]))
        return answer(self, columns)

    monkeypatch.setattr(LoadedModel, "answer", counted)
    monkeypatch.setattr(chunks, "CALL_BYTES", 1)
    assert served.post(LINE, request).json() == at_once
    assert at_once["outputs"][0]["shape"] == [40, 1], at_once
    assert calls == [16, 16, 8]


@pytest.mark.parametrize(
    "given",
    [
        {"shape": [2, 1], "data": [[0.5], [-1]]},
        {"shape": [2, 1], "data": [0.5, -1]},
        {"shape": [2], "datatype": "FP64", "data": [0.5, -1.0]},
    ],
)
def test_a_number_may_come_as_a_column_and_in_another_type_that_fits(served, given):
    answer = served.post(LINE, {"inputs": [{**X, **given}]})
    assert answer.json()["outputs"][0]["data"] == [1.0, -2.0]


def test_pictures_may_be_flat_and_whole_floats(served):
    flat = np.ravel(IMAGES).astype(float).tolist()
    answer = served.post(PAIR, {"inputs": [X, {**IMAGE, "datatype": "FP32", "data": flat}]}).json()
    assert answer["outputs"][0]["shape"][0] == 2
    assert [21.5, 278.0] in [output["data"] for output in answer["outputs"]]


def binary(*inputs: tuple[str, np.ndarray, str], **more: object) -> tuple[bytes, dict[str, str]]:
    tensors = [
        {"name": name, "shape": [*values.shape], "datatype": kind, "parameters": {"binary_data_size": values.nbytes}}
        for name, values, kind in inputs
    ]
    head = json.dumps({"inputs": tensors, **more}).encode()
    return head + b"".join(values.tobytes() for _, values, _ in inputs), {
        "Inference-Header-Content-Length": str(len(head))
    }


def test_binary_tensors_in_and_out(served):
    x, image = np.float32([0.5, -1]), np.uint8(IMAGES)
    outputs = [{"name": "corners"}, {"name": "output", "parameters": {"binary_data": False}}]
    body, headers = binary(
        ("image", image, "UINT8"), ("x", x, "FP32"), parameters={"binary_data_output": True}, outputs=outputs
    )
    answer = served.post(PAIR, body, headers=headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    corners, output = json.loads(answer.content[:length])["outputs"]
    assert corners == {
        "name": "corners",
        "shape": [2, 2],
        "datatype": "UINT8",
        "parameters": {"binary_data_size": 4},
    }
    assert answer.content[length:] == bytes([1, 2, 7, 8])
    assert output["data"] == [21.5, 278.0]
    mixed, headers = binary(("x", x.astype(np.float64), "FP64"))
    assert served.post(LINE, mixed, headers=headers).json()["outputs"][0]["data"] == [1.0, -2.0]


def test_tensorflow_servings_interface_answers_in_its_shapes(served):
    status = {"version": "v0.0.2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert served.get("/v1/models/line").json() == {"model_version_status": [status]}
    assert served.get("/v1/models/line/versions/v0.0.2").json() == {"model_version_status": [status]}
    about = served.get("/v1/models/line/metadata").json()
    assert about["model_spec"] == {"name": "line", "signature_name": "", "version": "v0.0.2"}
    signature = about["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert signature["inputs"]["x"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    for body in ({"instances": [0.5, -1]}, {"instances": [{"x": 0.5}, {"x": -1}]}, {"instances": [[0.5], [-1]]}):
        assert served.post(PREDICT_LINE, body).json() == {"predictions": [[1.0], [-2.0]]}
    named = {"signature_name": "serving_default", "inputs": {"x": [0.5, -1]}}
    for body in (named, {"inputs": [0.5, -1]}):
        answer = served.post("/v1/models/line/versions/v0.0.2:predict", body)
        assert answer.json() == {"outputs": [[1.0], [-2.0]]}
        assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == ("line", "v0.0.2")
    assert served.post(PREDICT_PAIR, {"instances": ROWS}).json() == {
        "predictions": [{"output": [21.5], "corners": [1, 2]}, {"output": [278.0], "corners": [7, 8]}]
    }
    columns = {"x": [0.5, -1], "image": IMAGES}
    assert served.post(PREDICT_PAIR, {"inputs": columns}).json() == {
        "outputs": {"output": [[21.5], [278.0]], "corners": [[1, 2], [7, 8]]}
    }


BIG = 2**70


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        (LINE, b"{", "the body is no JSON"),
        (LINE, b'["NaN', "the body is no JSON"),
        (LINE, b"[" * 100_000, "the body is no JSON"),
        (LINE, b"[]", "the body: "),
        (LINE, {}, "inputs: field required"),
        (LINE, {"inputs": []}, "inputs: it is empty"),
        (LINE, {"inputs": [{**X, "shape": [True]}]}, "inputs.0.shape.0: "),
        (LINE, {"inputs": [{**X, "name": "y"}]}, "line has no input 'y'. Its inputs: x."),
        (LINE, {"inputs": [X, X]}, "'x' is given twice"),
        (PAIR, {"inputs": [X]}, "pair also needs the input 'image'"),
        (PAIR, {"inputs": [{**X, "shape": [1], "data": [1]}, IMAGE]}, "rows, but"),
        (LINE, {"inputs": [{**X, "shape": [2, 2]}]}, "input 'x' has the shape [2, 2]; [rows] is needed."),
        (LINE, {"inputs": [{**X, "shape": [3]}]}, "input 'x' has data of the shape [2], but says [3]"),
        (LINE, {"inputs": [{**X, "shape": [0], "data": []}]}, "input 'x' has no row"),
        (LINE, {"inputs": [{**X, "shape": []}]}, "input 'x' has the shape []"),
        (LINE, {"inputs": [{**X, "datatype": "BYTES"}]}, "the datatype 'BYTES' is none of"),
        (LINE, {"inputs": [{**X, "data": None}]}, "input 'x' has no data"),
        (LINE, {"inputs": [{**X, "data": [1, "2"]}]}, "input 'x', row 1: a text is given, and a number is needed"),
        (LINE, {"inputs": [{**X, "data": [True, 2]}]}, "input 'x', row 0: a boolean is given"),
        (LINE, {"inputs": [{**X, "data": [1, None]}]}, "input 'x', row 1: null is given"),
        (LINE, {"inputs": [{**X, "data": [1, [2]]}]}, "input 'x', row 1: lists and other values are mixed"),
        (LINE, {"inputs": [{**X, "data": [1, 1e39]}]}, "input 'x', row 1: the value is too large for FP32"),
        (LINE, {"inputs": [{**X, "data": [1, BIG**9]}]}, "input 'x', row 1: "),
        (
            LINE,
            b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN]}]}',
            "'x', row 0: the value is N",
        ),
        (LINE, b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1e999]}]}', "no JSON"),
        (PAIR, {"inputs": [X, {**IMAGE, "data": [0] * 11 + [256]}]}, "'image', row 1: the value is no whole number"),
        (PAIR, {"inputs": [X, {**IMAGE, "data": [0] * 6 + [0.5] * 6}]}, "'image', row 1: the value is no whole number"),
        (
            PAIR,
            {"inputs": [X, {**IMAGE, "data": [0] * 11 + [-1]}]},
            "row 1: the value is no whole number from 0 to 255",
        ),
        (LINE, {"inputs": [X], "outputs": [{"name": "y"}]}, "line has no output 'y'. Its outputs: output."),
        (LINE, {"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, "but 0 bytes follow"),
        (LINE, {"inputs": [X], "parameters": {"binary_data_output": 1}}, "binary_data_output is 1"),
        (LINE, {"inputs": [{**X, "parameters": {"shared_memory_region": "a"}}]}, "is not offered"),
        (PREDICT_LINE, {}, "either `instances` or `inputs`"),
        (PREDICT_LINE, {"instances": [1], "inputs": [1]}, "either `instances` or `inputs`"),
        (PREDICT_LINE, {"instances": []}, "has no row"),
        (PREDICT_LINE, {"instances": 1}, "instances: "),
        (PREDICT_LINE, {"instances": [1], "signature_name": "other"}, "signature_name is 'other'"),
        (PREDICT_LINE, {"instances": [{"x": 1}, 2]}, "instances, row 1: an object is needed"),
        (PREDICT_LINE, {"instances": [{"x": 1}, {}]}, "instances, row 1 lacks the input 'x'"),
        (PREDICT_LINE, {"instances": [{"x": 1, "y": 1}]}, "instances, row 0 has the unknown input 'y'"),
        (PREDICT_LINE, {"instances": [1, {"b64": "aa"}]}, "input 'x', row 1: an object is given"),
        (PREDICT_LINE, {"inputs": {"x": 1}}, "input 'x': a list with a value for each row"),
        (PREDICT_PAIR, {"instances": [1]}, "pair has several inputs, so each needs its name: image, x"),
        (PREDICT_PAIR, {"inputs": {"x": [1, 2], "image": IMAGES[:1]}}, "rows, but"),
        (
            PREDICT_PAIR,
            {"instances": [ROWS[0], {**ROWS[1], "image": [[1, 2, 3], [4, 5]]}]},
            "'image', row 1: its lists",
        ),
        (PREDICT_LINE, b'{"instances": [1, Infinity]}', "input 'x', row 1: the value is NaN or infinite"),
    ],
)
def test_a_wrong_request_is_told_its_input_and_row(served, path, body, told):
    answer = served.post(path, body)
    assert (answer.status_code, [*answer.json()]) == (400, ["error"])
    assert told in answer.json()["error"]


def test_wrong_binary_requests_are_told(served):
    x = np.float32([0.5, -1])
    body, headers = binary(("x", x, "FP32"))
    for wrong, more, told in (
        (body + b"1234", headers, "4 bytes follow the last tensor"),
        (body[:-1], headers, "but 7 bytes follow"),
        (body, {"Inference-Header-Content-Length": "9999"}, "Inference-Header-Content-Length is '9999'"),
        (body, {"Inference-Header-Content-Length": "-1"}, "Inference-Header-Content-Length is '-1'"),
        (*binary(("x", np.float32([1, np.inf]), "FP32")), "input 'x', row 1: the value is NaN or infinite"),
        (*binary(("x", x, "FP64")), "input 'x' has 8 bytes; its shape and FP64 need 16"),
        (*binary(("x", np.bool_([True]), "BOOL")), "input 'x': FP32 is needed, not BOOL"),
    ):
        answer = served.post(LINE, wrong, headers=more)
        assert answer.status_code == 400
        assert told in answer.json()["error"]


def test_an_answer_that_is_not_finite_is_no_json_with_nan(served):
    answer = served.post(PREDICT_LINE, {"instances": [1, HOLE]})
    assert answer.status_code == 422
    assert "line v0.0.2 has no finite answer for row 1: 'output'" in answer.json()["error"]


@pytest.mark.parametrize(
    "path", ["/v2/models/lime", "/v1/models/lime", "/v2/models/line/versions/v9", "/v1/models", "/x"]
)
def test_what_is_not_there_is_404_in_the_form_of_all_errors(served, path):
    answer = served.get(path)
    assert (answer.status_code, [*answer.json()]) == (404, ["error"])
    for predict in (f"{path}/infer", f"{path}:predict"):
        assert served.post(predict, {}).status_code in (404, 405)


def test_another_version_is_named_with_the_one_that_is_served(served):
    answer = served.post("/v2/models/line/versions/v0.0.1/infer", {"inputs": [X]})
    assert (answer.status_code, answer.json()["error"]) == (404, "line 'v0.0.1' is not served; v0.0.2 is.")
