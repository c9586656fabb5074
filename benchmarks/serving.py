"""The server under load, while champions change and after it was killed.

    python -m benchmarks.serving [--seconds 60] [--model housing_mlp] [--artifacts artifacts] [--out FILE]

A temporary registry has three versions of a model, whose answers differ by 1. Some connections ask a real server
without a pause. Meanwhile two versions are promoted, and the server is killed by SIGKILL and started again at once, as
a service manager would. Each answer is compared with that of the version which it names. Beside it stand the times of
the same client at a bare FastAPI application, which parses the same body and gives it back, and of a bare call of the
SavedModel.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from config import paths
from orchestration.command_line import exit_on_user_error
from orchestration.prefect.server import free_port
from runtime.errors import UserError
from tasks.data.files import read_json, write_json
from tasks.prediction.saved_model import SIGNATURE, LoadedModel, load_model

RESULTS = Path("benchmarks/results.json")
ROOT = Path(__file__).parents[1]
MODEL = "housing_mlp"
SECONDS = 60.0
CONNECTIONS = 16
SHIFTS = {"v0.0.1": 0.0, "v0.0.2": 1.0, "v0.0.3": 2.0}  # of the last bias
BODIES = 200
MANY_ROWS = 8  # of each tenth request; one whose rows had two models would be seen
TOLERANCE = 1e-5  # relative to the answer, at least absolute
BARE_CALLS = 2000
READY_SECONDS = 240.0
# When, as shares of the time, the versions are promoted and the server is killed.
PROMOTED, KILLED = {0.1: "v0.0.2", 0.6: "v0.0.3"}, 0.35
AUTHOR = {f"GIT_{role}_{what}": "benchmark" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@dataclass
class Asked:
    """A request, and the right answers by version. content: its head and its body."""

    content: bytes
    rows: int
    answers: dict[str, np.ndarray]


@dataclass
class Seen:
    """What the clients saw. seconds: of the answers to one row."""

    seconds: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)


def make_registry(folder: Path, model: str, saved_model: Path) -> None:
    """Make a repository of git and DVC with a version of the model for each of SHIFTS; the first is the champion."""
    from orchestration import registry

    output = paths.artifacts_folder(model) / "saved_model"
    folder.mkdir()
    with contextlib.chdir(folder):
        for words in (["git", "init"], [sys.executable, "-m", "dvc", "init"]):
            subprocess.run([*words, "--quiet"], check=True)
        subprocess.run([sys.executable, "-m", "dvc", "config", "core.analytics", "false"], check=True)
        paths.PARAMS.write_text(f"models:\n  {model}: {{}}\n")
        Path("dvc.yaml").write_text(f"stages:\n  train:\n    cmd: 'true'\n    outs:\n    - {output}\n")
        Path(".gitignore").write_text(f"/{paths.RETRAIN}/\n")
        for version, shift in SHIFTS.items():
            shutil.rmtree(output, ignore_errors=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            shifted(saved_model, output, shift)
            (output.parent / "metrics.json").write_text(json.dumps({"shift": shift}))
            commit = ["git", "commit", "--quiet", "-m", version]
            for words in ([sys.executable, "-m", "dvc", "commit", "--force", "--quiet"], ["git", "add", "."], commit):
                subprocess.run(words, check=True)
            assert registry.register(model, "HEAD", "a benchmark").version == version
        registry.promote(model, next(iter(SHIFTS)), "a benchmark")


def shifted(saved_model: Path, folder: Path, shift: float) -> None:
    """Write a SavedModel to `folder` whose answers are greater by `shift`; 0 copies it.

    Args:
        saved_model: of a regression.
        folder: must not exist.
        shift: is added to the last bias.

    Raises:
        UserError: the model has no such bias.
    """
    if not shift:
        shutil.copytree(saved_model, folder)
        return
    import tensorflow as tf

    loaded = tf.saved_model.load(str(saved_model))
    answer = loaded.signatures[SIGNATURE]
    biases = [variable for variable in answer.variables if variable.shape == (1,)]
    if not biases:
        raise UserError(f"{saved_model}: no layer has one bias, so there are no versions to tell apart.")
    biases[-1].assign_add([shift])
    tf.saved_model.save(loaded, str(folder), signatures={SIGNATURE: answer})


def make_requests(models: dict[str, LoadedModel]) -> list[Asked]:
    """Return requests with random rows, and what each version answers to them."""
    some = next(iter(models.values()))
    generator, made = np.random.default_rng(0), []
    for number in range(BODIES):
        rows = MANY_ROWS if number % 10 == 9 else 1
        columns = {
            name: generator.uniform(0, 10, (rows, *tensor.shape)).astype(tensor.dtype)
            for name, tensor in some.inputs.items()
        }
        answers = {
            version: np.concatenate([values.reshape(-1) for _, values in sorted(model.answer(columns).items())])
            for version, model in models.items()
        }
        inputs = [
            {"name": name, "shape": [*values.shape], "datatype": "FP32", "data": values.reshape(-1).tolist()}
            for name, values in columns.items()
        ]
        body = json.dumps({"inputs": inputs}).encode()
        head = (
            f"POST /v2/models/{some.name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(Asked(head.encode() + body, rows, answers))
    return made


def bare_calls(model: LoadedModel) -> list[float]:
    """Return the seconds of each of many calls of the SavedModel with one row."""
    row, taken = model.zeros(1), []
    for _ in range(BARE_CALLS):
        began = time.perf_counter()
        model.answer(row)
        taken.append(time.perf_counter() - began)
    return taken


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> tuple[int, bytes]:
    """Send a request and return the status and the body of its answer."""
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def ask_until(
    end: float, port: int, asked: list[Asked], check: Callable[[Asked, int, bytes, float], None]
) -> int:
    """Ask on one connection until the time is over, and return how often it broke or was refused.

    Args:
        end: of `time.perf_counter`.
        port: of the server.
        asked: the requests, in turn.
        check: takes the request, status and body of its answer, and the seconds that it took.
    """
    broken, turn = 0, itertools.cycle(asked)
    while time.perf_counter() < end:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            broken += 1
            await asyncio.sleep(0.05)
            continue
        try:
            while time.perf_counter() < end:
                request, began = next(turn), time.perf_counter()
                status, body = await exchange(reader, writer, request.content)
                check(request, status, body, time.perf_counter() - began)
                if status != 200:
                    await asyncio.sleep(0.05)
        except (OSError, asyncio.IncompleteReadError):
            broken += 1
        finally:
            writer.close()
    return broken


async def load(port: int, seconds: float, asked: list[Asked], compare: bool, also: list[Awaitable[None]]) -> Seen:
    """Ask on all connections at once.

    Args:
        port: of the server.
        seconds: how long.
        asked: the requests; each connection begins with another one.
        compare: whether the answers are predictions.
        also: what happens meanwhile.
    """
    seen = Seen()

    def check(request: Asked, status: int, body: bytes, taken: float) -> None:
        if status != 200:
            seen.counts[f"status {status}"] += 1
            return
        seen.counts["answers"] += 1
        if request.rows == 1:
            seen.seconds.append(taken)
        if compare:
            answer = json.loads(body)
            version = answer["model_version"]
            seen.versions[version] += 1
            outputs = sorted(answer["outputs"], key=lambda output: output["name"])
            values = np.concatenate([output["data"] for output in outputs])
            if not close(values, request.answers[version]):
                of_others = any(
                    np.isclose(value, others[number], rtol=TOLERANCE, atol=TOLERANCE)
                    for number, value in enumerate(values)
                    for others in request.answers.values()
                )
                seen.counts["mixed" if of_others else "wrong"] += 1

    end = time.perf_counter() + seconds
    turns = [
        asked[number * len(asked) // CONNECTIONS :] + asked[: number * len(asked) // CONNECTIONS]
        for number in range(CONNECTIONS)
    ]
    broken, _ = await asyncio.gather(
        asyncio.gather(*[ask_until(end, port, turn, check) for turn in turns]), asyncio.gather(*also)
    )
    seen.counts["broken"] += sum(broken)
    return seen


def close(values: np.ndarray, wanted: np.ndarray) -> bool:
    return values.shape == wanted.shape and np.allclose(values, wanted, rtol=TOLERANCE, atol=TOLERANCE)


class Process:
    """A server that is started, killed and started again. log: the file with what it prints."""

    def __init__(self, words: list[str], port: int, folder: Path) -> None:
        self.words, self.port, self.folder = words, port, folder
        self.log = folder / "server.log"
        self.process = self.start()

    def start(self) -> subprocess.Popen:
        given = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("a") as log:
            return subprocess.Popen(self.words, cwd=self.folder, env=given, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def wait(self, path: str) -> float:
        """Return the seconds until the server answers 200; raises UserError if it ends before or takes too long."""
        began = time.perf_counter()
        question = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while self.process.poll() is None and time.perf_counter() - began < READY_SECONDS:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    if (await exchange(reader, writer, question))[0] == 200:
                        return time.perf_counter() - began
                finally:
                    writer.close()
            await asyncio.sleep(0.05)
        raise UserError(f"the server did not become ready:\n{self.log.read_text()[-1500:]}")


async def echoed(seconds: float, asked: list[Asked], folder: Path) -> Seen:
    port = free_port()
    server = Process([sys.executable, "-m", "benchmarks.serving", "--echo", str(port)], port, folder)
    try:
        await server.wait("/openapi.json")
        return await load(port, seconds, asked, False, [])
    finally:
        server.kill()


async def served(model: str, seconds: float, asked: list[Asked], folder: Path) -> dict[str, Any]:
    """Return what the clients saw of a server whose champion changes, and which is killed once."""
    port = free_port()
    server = Process([sys.executable, "-m", "flows.serve", "--port", str(port), "--quiet"], port, folder)
    restart: list[float] = []

    async def promote(at: float, version: str) -> None:
        await asyncio.sleep(at * seconds)
        words = [sys.executable, "-m", "flows.registry", "promote", f"{model}@{version}"]
        given = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = await asyncio.create_subprocess_exec(
            *words, cwd=folder, env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if await process.wait():
            raise UserError(f"{' '.join(words[1:])} failed.")

    async def kill() -> None:
        await asyncio.sleep(KILLED * seconds)
        server.kill()
        server.process = server.start()
        restart.append(await server.wait("/v2/health/ready"))

    try:
        start = await server.wait("/v2/health/ready")
        events = [promote(at, version) for at, version in PROMOTED.items()]
        seen = await load(port, seconds, asked, True, [*events, kill()])
    finally:
        server.kill()
    unanswered = sum(number for name, number in seen.counts.items() if name.startswith("status"))
    return {
        "answers": seen.counts["answers"],
        "answers_by_version": dict(sorted(seen.versions.items())),
        "wrong": seen.counts["wrong"],
        "mixed": seen.counts["mixed"],
        "broken_connections": seen.counts["broken"],
        "told_to_come_back": seen.counts["status 503"],
        "other_failures": unanswered - seen.counts["status 503"],
        "answers_per_second": seen.counts["answers"] / (seconds - restart[0]),
        "start_seconds": start,
        "restart_seconds": restart[0],
        **percentiles(seen.seconds),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}_ms": 1000 * float(np.percentile(seconds, share)) for share in (50, 99)}


def measure(model: str, seconds: float, artifacts: Path) -> dict[str, Any]:
    """Return the results.

    Args:
        model: a regression with inputs that are numbers.
        seconds: of the load.
        artifacts: the folder with MODEL/saved_model.

    Raises:
        UserError: there is no such SavedModel, or a server does not start.
    """
    saved_model = (artifacts / model / "saved_model").resolve()
    os.environ.update(AUTHOR)
    with tempfile.TemporaryDirectory(prefix="heaviside-serving-") as place:
        folder = Path(place) / "a registry"
        load_model(saved_model, model, "")  # before anything is made: it says what is wrong
        make_registry(folder, model, saved_model)
        models = {}
        for version, shift in SHIFTS.items():
            shifted(saved_model, Path(place) / version, shift)
            models[version] = load_model(Path(place) / version, model, version)
        asked = make_requests(models)
        bare = bare_calls(next(iter(models.values())))
        echo = asyncio.run(echoed(seconds / 6, asked, Path(place)))
        result = asyncio.run(served(model, seconds, asked, folder))
    return {
        "model": model,
        "seconds": seconds,
        "connections": CONNECTIONS,
        **result,
        "echo": {"answers_per_second": echo.counts["answers"] / (seconds / 6), **percentiles(echo.seconds)},
        "bare_call": percentiles(bare),
    }


def show(row: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{row['model']}: {row['connections']} connections for {row['seconds']:g} s, one row a request")
    for name, part in (("server", row), ("FastAPI echo", row["echo"]), ("SavedModel, in process", row["bare_call"])):
        rate = f"{part['answers_per_second']:8.0f} answers/s" if "answers_per_second" in part else ""
        print(f"  {name:<22} p50 {part['p50_ms']:7.2f} ms  p99 {part['p99_ms']:7.2f} ms {rate}")
    by_version = ", ".join(f"{number} by {version}" for version, number in row["answers_by_version"].items())
    print(f"  {row['answers']} answers ({by_version}): {row['wrong']} wrong, {row['mixed']} mixed")
    print(
        f"  after SIGKILL ready in {row['restart_seconds']:.1f} s: {row['broken_connections']} connections broken or "
        f"refused, {row['told_to_come_back']} answers 503; {row['other_failures']} other failures"
    )


def run_echo(port: int) -> None:
    """Serve an application that parses a body and gives it back."""
    import uvicorn
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/v2/models/{_}/infer")
    async def echo(body: dict[str, Any]) -> dict[str, Any]:
        return body

    uvicorn.run(app, port=port, log_level="error")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of the load; default: {SECONDS:g}")
    parser.add_argument("--model", default=MODEL, help=f"a regression on numbers; default: {MODEL}")
    parser.add_argument("--artifacts", type=Path, default=paths.ARTIFACTS, metavar="FOLDER", help="with trained models")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE", help=f"default: {RESULTS}")
    parser.add_argument("--echo", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.echo:
        run_echo(given.echo)
        return 0
    with exit_on_user_error("interrupted."):
        row = measure(given.model, given.seconds, given.artifacts)
        results: dict[str, Any] = read_json(given.out, "bench") if given.out.exists() else {}
        write_json(given.out, {**results, "serving": {**results.get("serving", {}), **row}})
        show(row)
        print(f"\nWritten to {given.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
