"""JSON of requests and answers."""

import json
from typing import Any

import orjson

from serving.refusal import bad


def parsed(text: bytes | memoryview) -> Any:
    """Return the value of a JSON text; raises Refusal if it is none.

    NaN and Infinity, which JSON lacks and many programs write, are read, so that the refusal can name input and row.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        told = str(error)
    if b"NaN" in bytes(text) or b"Infinity" in bytes(text):
        try:
            return json.loads(bytes(text))
        except (ValueError, RecursionError):
            pass
    raise bad(f"the body is no JSON: {told}.")


def written(value: Any) -> bytes:
    """Return a value as JSON; NumPy's arrays in it must be finite."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
