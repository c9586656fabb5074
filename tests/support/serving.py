"""Small SavedModels, and the server's application in this process."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from serving.app import make_app
from serving.log import AccessLog
from serving.metrics import Metrics
from serving.models import Models
from serving.settings import Settings
from serving.sources import Source

FACTORS = {"v0.0.1": 2.0, "v0.0.2": 3.0}  # of the versions of the model `line`
HOLE = 13.0  # for which `line` has no finite answer


def save_line(folder: Path, factor: float) -> Path:
    """Write a SavedModel that multiplies x by `factor`."""
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(factor)

    def multiply(x):
        return {"output": tf.where(x == HOLE, np.float32(np.nan), module.weight * x)[:, None]}

    return save(module, folder, multiply, [tf.TensorSpec([None], name="x")])


def save_pair(folder: Path) -> Path:
    """Write a SavedModel with two inputs, a number and a picture of 2 × 3 pixels, and with two outputs."""
    import tensorflow as tf

    def compute(x, image):
        total = tf.reduce_sum(tf.cast(image, tf.float32), axis=[1, 2])
        return {"output": (x + total)[:, None], "corners": image[:, 0, :2]}

    specs = [tf.TensorSpec([None], name="x"), tf.TensorSpec([None, 2, 3], tf.uint8, name="image")]
    return save(tf.Module(), folder, compute, specs)


def save(module: Any, folder: Path, function: Any, specs: list[Any]) -> Path:
    import tensorflow as tf

    module.serve = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    return folder


class Served:
    """An application with its models, and a way to ask it."""

    def __init__(self, source: Source, settings: Settings | None = None, load: bool = True) -> None:
        self.metrics, self.log = Metrics(), AccessLog()
        self.models = Models(source, self.metrics)
        self.app = make_app(self.models, settings or Settings(), self.metrics, self.log)
        if load:
            self.models.load_all()

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1", timeout=60)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            async with self.client() as client:
                return await client.request(method, path, **more)

        return asyncio.run(asked())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **({"content": body} if isinstance(body, bytes) else {"json": body}), **more)

    def lines(self) -> list[str]:
        """Return what the log has about the requests so far."""
        return [text for _, text in self.log.lines]
