"""`python -m flows.serve` in a repository with champions: real clients, promotions, kills, and its end."""

import html
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from orchestration import registry
from orchestration.prefect.server import free_port
from tests.support.processes import wait_for
from tests.support.workspaces import DVC, ROOT, clone, commit

pytestmark = pytest.mark.xdist_group("serve")  # one worker starts the server for all

MODELS = ("linear_neuron", "iris_mlp")
SERVE = [sys.executable, "-m", "flows.serve"]
FETCHED = Path(".retrain/champions")


class Running(NamedTuple):
    """A server. log: the file with what it prints."""

    process: subprocess.Popen
    client: httpx.Client
    address: str
    log: Path


@pytest.fixture(scope="module")
def champions(two_models, tmp_path_factory, settings) -> Path:
    """A repository with a champion of each model, and a second version of iris_mlp that answers otherwise."""
    folder = clone(two_models, tmp_path_factory.mktemp("serve") / "two champions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in settings.items():
            patch.setenv(name, value)
        for model in MODELS:
            registry.promote(model, registry.register(model, "HEAD", "the first one").version, "the first one")
        saved_model = folder / "artifacts/iris_mlp/saved_model"
        make_another(saved_model)
        metrics = folder / "artifacts/iris_mlp/metrics.json"
        metrics.unlink()  # it may be a link into DVC's cache
        metrics.write_text('{"epochs": 2}')
        subprocess.run([*DVC, "commit", "--force", "--quiet", "train@iris_mlp"], env=settings, check=True)
        commit(folder, settings)
        assert registry.register("iris_mlp", "HEAD", "another one").version == "v0.0.2"
    return folder


def make_another(saved_model: Path) -> None:
    """Change the weights of a SavedModel."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved_model))
    answer = loaded.signatures["serving_default"]
    for variable in answer.variables:
        variable.assign(variable * 0)
    other = saved_model.with_name("another")
    tf.saved_model.save(loaded, str(other), signatures={"serving_default": answer})
    for file in (path for path in other.rglob("*") if path.is_file()):
        target = saved_model / file.relative_to(other)
        target.unlink(missing_ok=True)  # it may be a link into DVC's cache
        file.rename(target)
    for folder in sorted(other.rglob("*"), reverse=True):
        folder.rmdir()
    other.rmdir()


def start(folder: Path, environment: dict[str, str], port: int, *words: str) -> Running:
    log = folder / f"serve-{port}.log"
    with log.open("a") as output:
        process = subprocess.Popen(
            [*SERVE, "--port", str(port), *words], cwd=folder, env=environment, stdout=output, stderr=output
        )
    address = f"http://127.0.0.1:{port}"
    return Running(process, httpx.Client(base_url=address, timeout=60, trust_env=False), address, log)


def wait_until_ready(server: Running) -> None:
    def ready() -> bool:
        assert server.process.poll() is None, server.log.read_text()
        try:
            return server.client.get("/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(ready, server.log.read_text)


@contextmanager
def running(folder: Path, environment: dict[str, str], *words: str) -> Iterator[Running]:
    server = start(folder, environment, free_port(), *words)
    try:
        wait_until_ready(server)
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.client.close()


@pytest.fixture(scope="module")
def server(champions, settings) -> Iterator[Running]:
    with running(champions, settings) as server:
        yield server


def rows_and_answers(folder: Path, model: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the raw rows of test, by input, and what the trained model has answered for them."""
    predicted = pq.read_table(folder / f"artifacts/{model}/predictions.parquet")
    dataset = {"linear_neuron": "line", "iris_mlp": "iris"}[model]
    raw = pq.read_table(folder / f"data/raw/{dataset}.parquet").take(predicted["index"])
    names = [name for name in predicted.column_names if name.startswith("probability")] or ["predicted"]
    return {name: raw[name].to_numpy() for name in raw.column_names}, np.column_stack(
        [predicted[name].to_numpy() for name in names]
    )


@pytest.mark.parametrize("model", MODELS)
def test_tritons_client_gets_the_predictions_of_the_training(server, champions, model):
    from tritonclient import http as triton

    columns, expected = rows_and_answers(champions, model)
    client = triton.InferenceServerClient(server.address.removeprefix("http://"))
    try:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.get_server_metadata()["name"] == "heaviside"
        about = client.get_model_metadata(model)
        inputs = []
        for given in about["inputs"]:
            values = columns[given["name"]].astype(np.float32)
            inputs.append(triton.InferInput(given["name"], values.shape, given["datatype"]))
            inputs[-1].set_data_from_numpy(values)
        answer = client.infer(model, inputs, request_id="a")
        assert answer.get_response()["model_version"] == "v0.0.1"
        np.testing.assert_allclose(answer.as_numpy("output"), expected, atol=1e-5)
        for given in inputs:
            given.set_data_from_numpy(columns[given.name()].astype(np.float32), binary_data=False)
        wanted = triton.InferRequestedOutput("output", binary_data=False)
        as_json = client.infer(model, inputs, outputs=[wanted], model_version="v0.0.1")
        np.testing.assert_allclose(as_json.as_numpy("output"), expected, atol=1e-5)
        with pytest.raises(triton.InferenceServerException, match="there is no model 'other'"):
            client.infer("other", inputs)
    finally:
        client.close()


@pytest.mark.parametrize("model", MODELS)
def test_rows_of_json_get_the_same(server, champions, model):
    columns, expected = rows_and_answers(champions, model)
    about = server.client.get(f"/v2/models/{model}").json()
    names = [given["name"] for given in about["inputs"]]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(columns[n].tolist() for n in names), strict=True)]
    answer = server.client.post(f"/v1/models/{model}:predict", json={"instances": rows}).json()
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)


def test_the_lines_of_the_page_work_when_pasted(server):
    lines = re.findall("<pre>(.*?)</pre>", server.client.get("/").text, re.DOTALL)
    assert len(lines) == len(MODELS)
    for line in lines:
        done = subprocess.run(html.unescape(line), shell=True, capture_output=True, text=True, check=True)
        assert done.stdout.startswith('{"predictions":[[')


def test_no_generated_request_gets_an_error_of_the_server_or_an_undocumented_answer(server, tmp_path):
    checks = (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.address}/openapi.json"]
    options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--warnings", "off"]
    done = subprocess.run(
        [*command, "--checks", ",".join(checks), *options, "--suppress-health-check", "all"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert "No issues found" in done.stdout


def test_a_body_that_is_too_long_is_cut_off_whatever_its_head_says(server):
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        head = b"POST /v1/models/iris_mlp:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    in_parts = server.client.post("/v1/models/iris_mlp:predict", content=(b" " * 2**20 for _ in range(33)))
    assert (in_parts.status_code, [*in_parts.json()]) == (413, ["error"])


def test_a_promotion_is_taken_up_without_a_failed_request(server, champions, settings):
    rows = {"instances": [{"sepal_length": 5.0, "sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}]}
    path = "/v1/models/iris_mlp:predict"
    before = server.client.post(path, json=rows)
    assert before.headers["x-model-version"] == "v0.0.1"
    seen: list[tuple[int, str, str]] = []
    ending = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.address, timeout=60, trust_env=False) as client:
            while not ending.is_set():
                answer = client.post(path, json=rows)
                seen.append((answer.status_code, answer.headers.get("x-model-version", ""), answer.text))
                time.sleep(0.02)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for words in (["promote", "iris_mlp@v0.0.2"], ["rollback", "iris_mlp"]):
            subprocess.run([sys.executable, "-m", "flows.registry", *words], cwd=champions, env=settings, check=True)
            wanted = "v0.0.2" if words[0] == "promote" else "v0.0.1"
            wait_for(lambda wanted=wanted: seen[-1][1] == wanted, server.log.read_text)
    finally:
        ending.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in seen} == {200}
    answers = {version: {text for _, by, text in seen if by == version} for version in ("v0.0.1", "v0.0.2")}
    assert {version: len(texts) for version, texts in answers.items()} == {"v0.0.1": 1, "v0.0.2": 1}
    assert answers["v0.0.1"] == {before.text} != answers["v0.0.2"]
    assert "iris_mlp v0.0.2 is served instead of v0.0.1" in server.log.read_text()


def test_the_log_has_a_line_for_each_request_and_no_value(server):
    server.client.post("/v1/models/linear_neuron:predict", json={"instances": [98765.25]})
    pattern = r"\d\d:\d\d:\d\d POST /v1/models/linear_neuron:predict 200 [\d.]+ ms 1 rows by v0\.0\.1"
    wait_for(lambda: re.search(pattern, server.log.read_text()), server.log.read_text)
    assert "98765" not in server.log.read_text()


def test_a_port_in_use_is_one_message(server, champions, settings):
    port = server.address.rpartition(":")[2]
    done = subprocess.run(
        [*SERVE, "--port", port], cwd=champions, env=settings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: port {port} of 127.0.0.1 is not to be had (Address already in use).")
    assert len(done.stderr.splitlines()) == 1


def test_after_a_kill_it_answers_the_same_and_ends_in_order(champions, settings):
    rows = {"instances": [1.5]}
    server = start(champions, {**settings, "HEAVISIDE_SERVE_TOKEN": "s3cret"}, free_port(), "linear_neuron")
    port = int(server.address.rpartition(":")[2])
    token = {"Authorization": "Bearer s3cret"}
    path = "/v1/models/linear_neuron:predict"
    lived: list[int] = []

    def alive() -> bool:
        try:
            lived.append(server.client.get("/v2/health/ready").status_code)
        except httpx.TransportError:
            return False
        return lived[-1] == 200

    wait_for(alive, server.log.read_text)
    assert lived[0] == 503  # it lived before it was ready
    assert server.client.post(path, json=rows).status_code == 401
    assert server.client.get("/v2/models/iris_mlp", headers=token).status_code == 404
    first = server.client.post(path, json=rows, headers=token)
    server.process.kill()
    server.process.wait()
    server = start(champions, {**settings, "HEAVISIDE_SERVE_TOKEN": "s3cret"}, port, "linear_neuron")
    wait_until_ready(server)
    again = server.client.post(path, json=rows, headers=token)
    assert (again.text, again.headers["x-model-version"]) == (first.text, first.headers["x-model-version"])
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=60) == 130
    printed = server.log.read_text()
    assert printed.splitlines()[-1] == "error: the server has ended."
    assert "Traceback" not in printed
    assert "s3cret" not in printed


def test_a_container_needs_no_git_and_only_the_files_that_its_recipe_copies(champions, settings, tmp_path):
    """The steps of the Dockerfile by hand: its COPY lines, its user's rights, and its command."""
    recipe = (ROOT / "Dockerfile").read_text()
    copied = [line.split()[1:-1] for line in recipe.splitlines() if line.startswith("COPY")]
    root = tmp_path / "app"
    root.mkdir()
    for name in (name for names in copied for name in names if name not in ("requirements.lock", "champions")):
        subprocess.run(["cp", "--recursive", str(ROOT / name), str(root)], check=True)
    for model in MODELS:
        target = tmp_path / "champions" / model / "v0.0.1"
        target.parent.mkdir(parents=True)
        subprocess.run(
            ["cp", "--recursive", "--dereference", str(champions / FETCHED / model / "v0.0.1"), str(target)], check=True
        )
    command = re.search(r'CMD \["python", "-m", "flows.serve", (.*)\]', recipe)
    assert command
    words = [word.strip('"') for word in command[1].split(", ")]
    assert words == ["--models", "/champions", "--host", "0.0.0.0"]
    outside = {**settings, "PATH": str(Path(sys.executable).parent), "HEAVISIDE_SERVE_TOKEN": "s3cret"}
    with running(root, outside, "--models", str(tmp_path / "champions"), "--host", "0.0.0.0") as server:
        token = {"Authorization": "Bearer s3cret"}
        assert server.client.get("/v2/models/iris_mlp", headers=token).json()["versions"] == ["v0.0.1"]
        answer = server.client.post("/v1/models/linear_neuron:predict", json={"instances": [1]}, headers=token)
        assert answer.status_code == 200
        check = re.search(r"HEALTHCHECK.*?CMD python -c (.*)", recipe, re.DOTALL)
        assert check
        healthy = check[1].splitlines()[0].replace("8500", server.address.rpartition(":")[2])
        subprocess.run(f"python -c {healthy}", shell=True, env=outside, check=True)
