"""What stands before every request: who may ask, under which name, and what is counted and logged afterwards.

A page of another site could have its name resolve to 127.0.0.1; the browser would then take that page and this server
for the same origin. So a server for this machine alone refuses a request that names another host.
"""

import hmac
import sys
import time
import traceback
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.json_text import written
from serving.log import AccessLog, line
from serving.metrics import OTHER, Metrics
from serving.settings import Settings

LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN = ("/v2/health/live", "/v2/health/ready")  # without a token, for what watches the server
TOLD = "heaviside"  # the key of a scope


@dataclass
class Told:
    """What a request is about, as far as its handler has found out."""

    model: str = ""
    version: str = ""
    protocol: str = OTHER
    rows: int = 0
    status: int = 0


def guarded(app: ASGIApp, settings: Settings, metrics: Metrics, log: AccessLog) -> ASGIApp:
    """Return the application with checks before it, counts and a line of the log after it.

    Args:
        app: that answers.
        settings: the token, and whether the server is for this machine alone.
        metrics: that count.
        log: of the requests.
    """

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.perf_counter()
        told = scope[TOLD] = Told()

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.status = message["status"]
            await send(message)

        try:
            if refused := refusal(scope, settings):
                await answer(noted, *refused)
            else:
                await app(scope, receive, noted)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - the handler of the application has answered
            report(error)
        finally:
            seconds = time.perf_counter() - began
            metrics.count(told.model, told.version, told.protocol, told.status, seconds, told.rows)
            if settings.access_log:
                path = scope.get("raw_path") or scope["path"].encode()
                shown = path.partition(b"?")[0].decode("ascii", "replace")
                log.add(line(scope["method"], shown, told.status, seconds, told.rows, told.version))

    return guard


def refusal(scope: Scope, settings: Settings) -> tuple[HTTPStatus, str, dict[str, str]] | None:
    """Return why a request is refused before anything of it is read; None: it is not."""
    headers = dict(scope["headers"])
    if settings.local and host_of(headers.get(b"host", b"")) not in LOCAL:
        return HTTPStatus.BAD_REQUEST, "the header Host names another machine than this one.", {}
    if settings.token and scope["path"] not in OPEN:
        scheme, _, shown = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(shown.strip(), settings.token.encode()):
            told = "a token is needed: the header `Authorization: Bearer TOKEN`."
            return HTTPStatus.UNAUTHORIZED, told, {"WWW-Authenticate": "Bearer"}
    return None


def host_of(header: bytes) -> str:
    """Return the name in a header Host, without the port."""
    text = header.decode("latin-1").lower()
    return text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]


async def answer(send: Send, status: HTTPStatus, message: str, headers: dict[str, str]) -> None:
    body = written({"error": message})
    every = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in every.items()]
    await send({"type": "http.response.start", "status": int(status), "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def report(error: Exception) -> None:
    """Print where a defect is, without the error's message, which may have values of a row."""
    frames = traceback.extract_tb(error.__traceback__)
    places = "\n".join(f"  {Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-5:])
    print(f"error: {type(error).__name__} while a request was answered:\n{places}", file=sys.stderr, flush=True)
