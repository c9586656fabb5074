"""The environment of the user's machine: what it may set, and what of it reaches our processes."""

import json
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from orchestration.environment import exempt_loopback, treated
from tests.support.workspaces import DVC, ROOT

# What a machine behind a proxy, with another project's settings, has set.
ADVERSE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "KERAS_BACKEND": "torch",
    "FORCE_COLOR": "1",
    "TTY_COMPATIBLE": "1",
    "PREFECT_PROFILE": "nonsense",
    "PREFECT_TASKS_DEFAULT_RETRIES": "nonsense",
    "DVC_STAGE": "ingest@iris",
    "HEAVISIDE_PIPELINE_RUN": "nonsense",
    "HEAVISIDE_PIPELINE_PROCESS": "999999999",
}
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
LONG = 600  # seconds after which a test gives up


def seen(environment: dict[str, str], without: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the environment of a process of ours that was started in `environment`."""
    given = {name: value for name, value in os.environ.items() if name not in without} | environment
    code = "import flows, json, os; print(json.dumps(dict(os.environ)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=given, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_every_family_of_variables_is_treated_as_the_table_says():
    given = {
        "KERAS_BACKEND": "jax",
        "KERAS_HOME": "/elsewhere",
        "KERAS_MAX_EPOCHS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "TF_GPU_ALLOCATOR": "cuda_malloc_async",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "ONEDNN_DEFAULT_FPMATH_MODE": "BF16",
        "XLA_FLAGS": "--xla_nonsense --xla_gpu_cuda_data_dir=/cuda",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "error",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_SETTINGS_PATH": "/nonexistent",
        "prefect_results_persist_by_default": "1",
        "DVC_NO_ANALYTICS": "1",
        "GIT_DIR": "/nonexistent",
        "GIT_AUTHOR_NAME": "somebody",
        "COLUMNS": "0",
        "NO_COLOR": "1",
        "TZ": "Nowhere/Nowhere",
        **ADVERSE,
    }
    found = seen(given, without=("NO_PROXY", "no_proxy", "ARROW_DEFAULT_MEMORY_POOL"))
    kept = ("TF_CPP_MIN_LOG_LEVEL", "TF_GPU_ALLOCATOR", "OMP_NUM_THREADS", "PREFECT_LOGGING_LEVEL", "DVC_NO_ANALYTICS")
    kept += ("GIT_AUTHOR_NAME", "NO_COLOR", "TZ", "HTTP_PROXY", "HTTPS_PROXY")
    assert {name: found.get(name) for name in given} == {
        **dict.fromkeys(given),
        **{name: given[name] for name in kept},
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": ".keras",
        "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/cuda",
    }
    assert found["NO_PROXY"] == found["no_proxy"] == "localhost,127.0.0.1,::1"
    assert found["ARROW_DEFAULT_MEMORY_POOL"] == "jemalloc"
    assert found["HEAVISIDE_UNUSED_PROXIES"] == "ALL_PROXY"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "localhost,127.0.0.1,::1"),
        ("*", "*"),
        ("example.org, 127.0.0.1", "example.org,127.0.0.1,localhost,::1"),
    ],
)
def test_this_machine_is_added_to_the_hosts_without_a_proxy(given, expected):
    found = exempt_loopback({"NO_PROXY": given})
    assert found["NO_PROXY"] == found["no_proxy"] == expected


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("127.0.0.1:9", True),
        ("nonsense", True),
        ("", True),
        ("http://user:secret@proxy.example.org:3128/", True),
        ("socks5h://127.0.0.1:9", False),
        ("socks4://127.0.0.1:9", False),
        ("ftp://127.0.0.1:9", False),
        ("http://127.0.0.1:port", False),
        ("http://[", False),
        ("http://", False),
        ("http://a proxy:80", False),
    ],
)
def test_only_a_proxy_with_which_a_client_can_be_made_is_kept(monkeypatch, value, kept):
    names = ("http_proxy", "HTTPS_PROXY", "all_proxy")
    found = {name: treated(name, value) for name in names}
    assert found == dict.fromkeys(names, value if kept else None)
    if kept:
        for name in names:
            monkeypatch.setenv(name, value)
        httpx.Client().close()


def test_what_a_run_left_over_in_a_shell_is_not_believed(run_flow, workspace):
    left = {"HEAVISIDE_PIPELINE_RUN": str(uuid4()), "HEAVISIDE_STAGES_NOT_DONE": "nonsense", "DVC_STAGE": "ingest@line"}
    done = run_flow("ingest", "line", **left, HEAVISIDE_PIPELINE_PROCESS="999999999")
    assert done.returncode == 0, done.stderr
    assert (workspace / "data/raw/line.parquet").exists()
    without_a_process = seen(left, without=("HEAVISIDE_PIPELINE_PROCESS",))
    assert not left.keys() & without_a_process.keys()


def test_a_stage_under_dvc_knows_its_stage(tmp_path, settings, dvc_folder):
    program = "import flows, os; print('STAGE', os.environ.get('DVC_STAGE'))"
    dvc_yaml = {"stages": {"look": {"cmd": shlex.join([sys.executable, "-c", program])}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(dvc_yaml))
    environment = settings | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}  # no pyproject.toml names Prefect's home
    shutil.copytree(dvc_folder, tmp_path / ".dvc")
    done = subprocess.run([*DVC, "repro"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "STAGE look" in done.stdout


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PREFECT_LOGGING_LEVEL", "nonsense", "PREFECT_LOGGING_LEVEL: Input should be 'DEBUG', 'INFO'"),
        ("SSL_CERT_FILE", "/nonexistent", "SSL_CERT_FILE names /nonexistent, which does not exist."),
        ("PYTHONOPTIMIZE", "2", "PYTHONOPTIMIZE=2, or -OO, removes the docstrings that libraries read."),
    ],
)
def test_a_variable_with_which_nothing_can_run_is_named_in_one_message(run_flow, name, value, told):
    done = run_flow("ingest", "line", **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {told}")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def proxy(api_url) -> Iterator[tuple[str, list[str]]]:
    """A proxy that leads everybody to the Prefect server: its address, and the first lines of what it was asked."""
    asked: list[str] = []
    port = int(re.findall(r":(\d+)/", api_url)[0])
    listener = socket.create_server(("127.0.0.1", 0))

    def named(data: bytes) -> bytes:
        """Return what a client sends, with the name that the server answers to."""
        return data.replace(b"prefect.invalid:4200\r\n", f"127.0.0.1:{port}\r\n".encode())

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(named(data))
            target.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        first = client.recv(65536)
        asked.append(first.partition(b"\r\n")[0].decode())
        server = socket.create_connection(("127.0.0.1", port))
        if first.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.sendall(named(first.replace(b" http://prefect.invalid:4200/", b" /")))
        threading.Thread(target=copy, args=(client, server), daemon=True).start()
        copy(server, client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    listener.close()


def test_a_flow_does_not_go_through_a_proxy_to_this_machine(run_flow, workspace, proxy):
    address, asked = proxy
    done = run_flow("ingest", "line", **dict.fromkeys(("HTTP_PROXY", "https_proxy", "ALL_PROXY"), address), NO_PROXY="")
    assert done.returncode == 0, done.stderr
    assert (workspace / "data/raw/line.parquet").exists()
    assert asked == []


def test_a_server_elsewhere_is_reached_through_the_proxy(proxy):
    address, asked = proxy
    code = (
        "import flows, asyncio; from prefect import get_client; from prefect.events.clients import get_events_client;"
        "print(get_client(sync_client=True).hello().json())\n"
        "async def send():\n"
        "    async with get_events_client(): pass\n"
        "asyncio.run(send())\n"
    )
    environment = {**os.environ, "HTTP_PROXY": address, "PREFECT_API_URL": "http://prefect.invalid:4200/api"}
    for name in ("NO_PROXY", "no_proxy"):
        environment.pop(name, None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("GET http://prefect.invalid:4200/api/hello") for line in asked), asked
    assert any(line.startswith("CONNECT prefect.invalid:4200") for line in asked), asked


# What changes results in other programs.
ODD = {
    "KERAS_MAX_STEPS_PER_EPOCH": "1",
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit",
    "XLA_FLAGS": "--xla_nonsense",
    "PYTHONHASHSEED": "7",
}


def check_printed(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stdout + done.stderr
    assert not CONTROL.search(done.stdout.replace("\r", "") + done.stderr.replace("\r", ""))


@pytest.mark.rotates
def test_a_run_where_everything_is_set_otherwise_gives_the_same_results(small, environment):
    metrics = small / "artifacts/iris_mlp/metrics.json"
    expected = metrics.read_bytes()
    metrics.unlink()
    command = [sys.executable, "-m", "flows.pipeline", "--force", "train@iris_mlp"]
    own = environment | ADVERSE | ODD | {"PYTHONWARNINGS": "error"}
    check_printed(subprocess.run(command, cwd=small, env=own, capture_output=True, text=True, check=False))
    assert metrics.read_bytes() == expected


@pytest.mark.rotates
def test_dvc_runs_stages_where_everything_is_set_otherwise(dvc_workspace, environment):
    own = environment | {
        name: value for name, value in ADVERSE.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")
    }
    own["PYTHONWARNINGS"] = "error::UserWarning:flows"
    command = [*DVC, "repro", "ingest@iris"]
    check_printed(subprocess.run(command, cwd=dvc_workspace, env=own, capture_output=True, text=True, check=False))
    assert (dvc_workspace / "data/raw/iris.parquet").exists()


def on_a_terminal(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Return what `command` prints on a terminal of its own."""
    ours, its = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdin=its, stdout=its, stderr=its)
    os.close(its)
    printed = b""
    with suppress(OSError):  # when the process has ended
        while data := os.read(ours, 65536):
            printed += data
    os.close(ours)
    assert process.wait() == 0, printed
    return printed.decode()


def test_colours_are_for_terminals(workspace, settings, run_flow):
    forced = {
        "FORCE_COLOR": "1",
        "CLICOLOR_FORCE": "1",
        "TTY_COMPATIBLE": "1",
        "TTY_INTERACTIVE": "1",
        "PY_COLORS": "1",
    }
    done = run_flow("ingest", "line", COLUMNS="0", **forced)
    assert done.returncode == 0
    assert "Finished in state Completed()" in done.stderr
    assert not CONTROL.search(done.stdout + done.stderr)
    printed = on_a_terminal([sys.executable, "-m", "flows.ingest", "line"], workspace, {**settings, "TERM": "xterm"})
    assert "\x1b[" in printed


@pytest.mark.rotates
def test_a_flow_trains_with_its_standard_streams_closed(prepared, settings):
    def run(words: str, closed: str) -> int:
        command = ["sh", "-c", f'exec "$0" -m flows.{words} {closed}', sys.executable]
        return subprocess.run(command, cwd=prepared, env=settings, capture_output=True, check=False).returncode

    assert run("train iris_perceptron", "<&- >&- 2>&-") == 0
    assert json.loads((prepared / "artifacts/iris_perceptron/metrics.json").read_text())
    assert run("train iri_perceptron", "<&- >&- 2>&-") == 1
    for closed in ("2>&-", ">&- 2>&-"):
        (prepared / "data/raw/line.parquet").unlink()
        assert run("ingest line", closed) == 0
        assert (prepared / "data/raw/line.parquet").exists()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_standard_stream(tmp_path, closed):
    code = (
        "import sys; from orchestration.streams import open_standard_streams; open_standard_streams();"
        "file = open(sys.argv[1], 'w'); file.write(str(file.fileno()))"
    )
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {closed}', sys.executable, code, str(tmp_path / "number")]
    subprocess.run(command, cwd=ROOT, check=True)
    assert int((tmp_path / "number").read_text()) > 2


def test_a_run_goes_on_when_nobody_reads_what_it_prints(workspace, settings):
    command = [sys.executable, "-m", "flows.ingest", "line"]
    process = subprocess.Popen(command, cwd=workspace, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    process.stderr.readline()
    process.stderr.close()
    assert process.wait(LONG) == 0
    assert (workspace / "data/raw/line.parquet").exists()


def test_a_list_that_nobody_reads_to_its_end_is_no_error(workspace, settings):
    command = [sys.executable, "-m", "flows.pipeline", "--help"]
    process = subprocess.Popen(command, cwd=workspace, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(LONG) == 0


def test_a_locale_without_the_characters_is_no_error(run_flow):
    done = run_flow("train", "möwe", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "unknown model" in done.stderr


@pytest.mark.rotates
def test_a_flow_trains_without_a_folder_that_the_user_names_and_where_warnings_are_errors(prepared, run_flow):
    done = run_flow("train", "iris_perceptron", TMPDIR="/nonexistent", HOME="/proc", PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "epoch 1/1" in done.stderr
    assert "Finished in state Completed()" in done.stderr
    written = {path.name for path in (prepared / "artifacts/iris_perceptron").iterdir()}
    assert written >= {"model.keras", "model.weights.h5", "saved_model", "metrics.json", "run.json", "history.csv"}
    assert "predictions.parquet" in written
    done = run_flow("ingest", "line", HOME="")
    assert done.returncode == 0, done.stderr


def test_the_makefile_hides_what_hides_the_workspace():
    show = "--eval=show: ; @echo [$$PYTHONSAFEPATH]"
    command = ["make", "--no-print-directory", show, "show"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> str:
    """A Python whose environment has the line that the Makefile writes there, and all that is installed here."""
    line = re.search(r"^VENV_FIRST := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert line
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "venv_first.pth").write_text(line[1] + "\n")
    return str(venv / "bin/python")


def test_a_stage_runs_under_dvc_with_the_standard_streams_closed(dvc_workspace, settings, python):
    command = ["sh", "-c", 'exec "$0" -m dvc repro ingest@line <&- >&- 2>&-', python]
    done = subprocess.run(command, cwd=dvc_workspace, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (dvc_workspace / "data/raw/line.parquet").exists()
    assert "ingest@line:" in (dvc_workspace / "dvc.lock").read_text()


def test_a_stage_finds_the_workspace_where_python_is_told_not_to_look_there(dvc_workspace, settings, python):
    command = [python, "-m", "dvc", "repro", "receive@line"]
    environment = settings | {"PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=dvc_workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
