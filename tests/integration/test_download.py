"""Downloads: a source that does not answer is an error in seconds, a slow one is not, and Ctrl-C ends either."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from datasets import get_dataset
from runtime.errors import SourceUnreachableError
from tasks.preparation.download import check_answers, download
from tests.support.namespaces import LOOPBACK_UP, NAMESPACE, NO_NETWORK, needs_namespaces
from tests.support.workspaces import edit_params

# Workspaces begin with the database of a server of their own, which takes longer to make than to start.
pytestmark = pytest.mark.usefixtures("environment")
GIVE_UP = 600  # seconds; the loaders by themselves go on for longer, or for ever
Answer = Callable[[socket.socket, bytes], None]


def silent(client: socket.socket, asked: bytes) -> None:
    time.sleep(GIVE_UP)


def unavailable(client: socket.socket, asked: bytes) -> None:
    client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def garbage(client: socket.socket, asked: bytes) -> None:
    client.sendall(b"hello\r\n\r\n")


def closing(client: socket.socket, asked: bytes) -> None:
    pass


def trickling(client: socket.socket, asked: bytes) -> None:
    """Answer the question at once, and then send a file that never ends."""
    if b"bytes=0-0" in asked:
        client.sendall(b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1\r\n\r\nx")
        return
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    while True:
        client.sendall(b"x" * 1000)
        time.sleep(0.1)


Proxy = Callable[[Answer], tuple[str, list[bytes]]]


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Start a proxy that answers as given; returns its address, and the questions that it gets."""
    listeners = []

    def start(answer: Answer) -> tuple[str, list[bytes]]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        questions: list[bytes] = []

        def serve(client: socket.socket) -> None:
            with suppress(OSError), client:
                asked = client.recv(65536)
                questions.append(asked)
                answer(client, asked)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listener.accept()
                    threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}", questions

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def empty_caches(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace on the real data, whose loaders have nothing in their caches; returns the folder of these."""
    edit_params(workspace, data__source="real")
    for name in ("TFDS_DATA_DIR", "SCIKIT_LEARN_DATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path / "cache"


def ingest(dataset: str, workspace: Path, api_url: str, prefix: tuple[str, ...] = (), **environment: str):
    command = [*prefix, sys.executable, "-m", "flows.ingest", dataset]
    return subprocess.Popen(
        command,
        cwd=workspace,
        env={**os.environ, "PREFECT_API_URL": api_url, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_told(process: subprocess.Popen, dataset: str) -> str:
    told = process.communicate(timeout=GIVE_UP)[1]
    assert process.returncode == 1, told
    assert "Traceback" not in told
    assert told.count(f"error: {dataset}: could not fetch http") == 1
    assert "data.source: sample" in told
    return told


@pytest.mark.parametrize(("dataset", "answer"), [("fashion_mnist", silent), ("california_housing", garbage)])
def test_a_proxy_that_does_not_lead_to_the_source_is_an_error_in_seconds(
    dataset, answer, proxy, empty_caches, workspace, api_url
):
    address, questions = proxy(answer)
    check_told(ingest(dataset, workspace, api_url, HTTP_PROXY=address, HTTPS_PROXY=address), dataset)
    # What does not answer is asked once, what refuses three times.
    assert len(questions) == (1 if answer is silent else 3)


@pytest.mark.parametrize("answer", [unavailable, closing])
def test_a_source_that_refuses_is_told(answer, proxy, empty_caches, monkeypatch):
    address, questions = proxy(answer)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, address)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it would keep an earlier test's proxy
    with pytest.raises(SourceUnreachableError, match=r"^california_housing: could not fetch http"):
        download(get_dataset("california_housing"))
    assert len(questions) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_without_a_network_the_error_comes_in_seconds(empty_caches, workspace):
    needs_namespaces()
    process = ingest("california_housing", workspace, "", NO_NETWORK, NO_PROXY="localhost")
    check_told(process, "california_housing")


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_loopback_interface_that_is_down_is_one_message_with_the_remedy(workspace):
    needs_namespaces()
    process = ingest("line", workspace, "", NAMESPACE)
    told = process.communicate(timeout=GIVE_UP)[1]
    assert process.returncode == 1
    assert told.startswith("error: the loopback interface `lo` is down")
    assert "Run `ip link set lo up` as root first." in told
    assert len(told.splitlines()) == 1


# Runs a command where the server of names, at 127.0.0.1, does not answer.
WITHOUT_NAMES = """
import socket, subprocess, sys
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("127.0.0.1", 53))
sys.exit(subprocess.call(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_server_of_names_that_does_not_answer_is_an_error_in_seconds(empty_caches, workspace, tmp_path):
    needs_namespaces()
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:60\n")
    mount = f"mount --bind '{tmp_path}/resolv.conf' /etc/resolv.conf && exec \"$@\""
    prefix = (*NAMESPACE, "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount (root)")
    process = ingest(
        "california_housing",
        workspace,
        "",
        (*prefix, sys.executable, "-c", LOOPBACK_UP, sys.executable, "-c", WITHOUT_NAMES),
    )
    assert "no answer within 10 s" in check_told(process, "california_housing")


def test_an_address_that_swallows_everything_is_an_error_in_seconds(empty_caches, workspace, api_url):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]  # more than it lets wait; what comes then gets no answer at all
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        process = ingest("california_housing", workspace, api_url, HTTPS_PROXY="http://{}:{}".format(*address))
        assert "no answer within 10 s" in check_told(process, "california_housing")
        for client in waiting:
            client.close()


def test_a_proxy_that_is_not_used_is_named(empty_caches, workspace, api_url):
    silent_proxy = {"ALL_PROXY": "socks5://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    told = check_told(ingest("california_housing", workspace, api_url, **silent_proxy), "california_housing")
    assert "ALL_PROXY is not used, for only HTTP proxies are" in told


def wait_until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + GIVE_UP
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.rotates
@pytest.mark.parametrize("answer", [silent, trickling])
def test_ctrl_c_ends_a_download_that_may_take_longer_than_the_answer_and_leaves_no_process(
    answer, proxy, empty_caches, workspace, api_url
):
    address, questions = proxy(answer)
    process = ingest("fashion_mnist", workspace, api_url, HTTP_PROXY=address)
    wait_until(lambda: len(questions) > (answer is trickling))
    if answer is trickling:
        time.sleep(25)  # twice as long as an answer may take
        assert process.poll() is None
    downloading = psutil.Process(process.pid).children(recursive=True)
    assert bool(downloading) == (answer is trickling)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=GIVE_UP)[1]
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert not any(child.is_running() for child in downloading)


def test_a_download_ends_with_the_flow_that_is_killed(proxy, empty_caches, workspace, api_url):
    address, questions = proxy(trickling)
    process = ingest("fashion_mnist", workspace, api_url, HTTP_PROXY=address)
    wait_until(lambda: len(questions) > 1)
    downloading = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in downloading))


def test_an_answer_of_any_length_is_not_read_to_its_end(proxy, monkeypatch):
    def endless(client: socket.socket, asked: bytes) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            client.sendall(b"x" * 65536)

    address, _ = proxy(endless)
    check_answers(address, 60)
