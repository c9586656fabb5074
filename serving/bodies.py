"""The body of a request: whole, within its limits, and before the request gets a turn to compute."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request

from serving.limits import Limits
from serving.refusal import Refusal

DRAIN_SECONDS = 1.0  # for the rest of a body that is too long: a client that still sends may not see the answer
CLOSE = {"Connection": "close"}


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the body; raises Refusal if it is compressed, too long, or does not arrive in time.

    What it says of its length is only a first check, so the bytes are counted as they come.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is compressed; send it as it is.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise await too_long(request, limits)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise await too_long(request, limits)
                parts.append(part)
    except TimeoutError:
        told = f"the body did not arrive within {limits.body_seconds:g} s."
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, told, CLOSE) from None
    return b"".join(parts)


async def too_long(request: Request, limits: Limits) -> Refusal:
    if "expect" not in request.headers:  # else the client waits for leave to send
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                while (await request.receive()).get("more_body"):
                    pass
    told = f"the body has more than {limits.body_bytes} bytes."
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, told, CLOSE)
