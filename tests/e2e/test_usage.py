"""The lines of the model card and of the model's page work when they are pasted, and all ways give one answer."""

import html
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration.prefect.server import free_port
from tasks.publishing.export_record import ExportRecord
from tasks.publishing.usage import PORT, ways
from tests.support.processes import wait_for
from tests.support.workspaces import ROOT

MODELS = ("housing_wide_deep_aux", "multi_input_cnn")
# Runs each piece of Python, and prints what it has found.
PASTE = """
import contextlib, io, json, sys
import numpy as np
found = []
for code in json.load(sys.stdin):
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    found.append({name: np.asarray(value).tolist() for name, value in names["answer"].items()})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory, settings):
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "flows.serve", *MODELS, "--models", "artifacts", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen(command, cwd=trained, env=settings, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: "ready at" in log.read_text() or server.poll() is not None, log.read_text)
        assert server.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def code_of(card: str, name: str) -> str:
    """Return the code below a heading of the model card."""
    return re.findall(rf"^### {name}\n.*?```\w+\n(.*?)```", card, re.MULTILINE | re.DOTALL)[0]


def paste(code: str, folder: Path, settings: dict[str, str]) -> str:
    """Run lines of a shell in a folder of the project."""
    command = ["bash", "-euc", code.replace(".venv/bin/python", shlex.quote(sys.executable))]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("model", MODELS)
def test_the_lines_of_the_card_work_and_give_one_answer(trained, address, tmp_path, settings, model):
    card = (trained / f"artifacts/{model}/README.md").read_text()
    here = tmp_path / "a project"
    here.mkdir()
    for entry in trained.iterdir():  # the lines write into the project's folder
        (here / entry.name).symlink_to(entry)
    codes = json.dumps([code_of(card, name) for name in ("TensorFlow", "LiteRT", "ONNX")])
    command = [sys.executable, "-c", PASTE]
    done = subprocess.run(command, cwd=here, env=settings, input=codes, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, *others = json.loads(done.stdout)
    assert set(first) == ({"output", "aux"} if model.endswith("aux") else {"output"})
    for other in others:
        assert other.keys() == first.keys()
        for output, values in first.items():
            np.testing.assert_allclose(other[output], values, rtol=1e-5, atol=1e-5)

    told = json.loads(paste(code_of(card, "HTTP").replace(f"http://127.0.0.1:{PORT}", address), here, settings))
    answer = told["predictions"][0]
    served = answer if isinstance(answer, dict) else {"output": answer}
    for output, values in first.items():
        np.testing.assert_allclose(np.ravel(served[output]), np.ravel(values), rtol=1e-5, atol=1e-5)

    paste(code_of(card, "Files"), here, settings)
    [row] = pq.read_table(here / "predictions.parquet").to_pylist()
    if model.endswith("aux"):
        assert row["predicted"] == pytest.approx(first["output"][0][0], rel=1e-5)
        assert row["aux_predicted"] == pytest.approx(first["aux"][0][0], rel=1e-5)
    else:
        assert row["probability footwear"] == pytest.approx(first["output"][0][0], abs=1e-5)


def test_the_page_of_a_model_has_the_lines_of_its_card(trained):
    page = html.unescape((trained / "reports/models/multi_input_cnn.html").read_text())
    record = ExportRecord.model_validate_json((trained / "artifacts/multi_input_cnn/export/export.json").read_text())
    shown = ways("multi_input_cnn", record)
    assert [way.name for way in shown] == ["TensorFlow", "Files", "HTTP", "LiteRT", "ONNX"]
    for way in shown:
        assert way.code.strip() in page


def test_the_line_of_the_documents_works_when_pasted(address, tmp_path, settings):
    code = re.findall(r"^curl --silent.*?'$", (ROOT / "docs/serving.md").read_text(), re.MULTILINE | re.DOTALL)[0]
    code = code.replace(f"http://127.0.0.1:{PORT}", address).replace("housing_mlp", MODELS[0])  # it takes the same rows
    assert "predictions" in json.loads(paste(code, tmp_path, settings))
