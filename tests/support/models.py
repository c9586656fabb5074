"""Models to predict with that need no TensorFlow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from tasks.prediction.saved_model import LoadedModel, Tensor
from tasks.publishing.origin import Origin

NUMBER, OUTPUT = Tensor(np.dtype(np.float32), ()), Tensor(np.dtype(np.float32), (1,))
PICTURE = Tensor(np.dtype(np.uint8), (4, 4))
Answer = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class FakeModel(LoadedModel):
    """A model whose answers are those of a function; `calls` counts the rows of each call."""

    function: Answer
    calls: list[int]

    def answer(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert set(columns) == set(self.inputs)
        assert all(columns[name].dtype == tensor.dtype for name, tensor in self.inputs.items())
        self.calls.append(len(next(iter(columns.values()))))
        return self.function(columns)


def weighted(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"output": (2 * columns["a"] + columns["b"])[:, None]}


def fake_model(
    function: Answer = weighted,
    inputs: Mapping[str, Tensor] | None = None,
    outputs: Mapping[str, Tensor] | None = None,
    origin: Origin | None = None,
) -> FakeModel:
    """Return a model.

    Args:
        function: its answers; 2 a + b unless given.
        inputs: by name; the numbers a and b unless given.
        outputs: by name; a quantity unless given.
        origin: what the export says of it.
    """
    large = [SimpleNamespace(shape=(1_000_000,))]  # not compiled, so that `calls` has every call
    signature = SimpleNamespace(variables=large)
    return FakeModel(
        name="a_model",
        version="v0.0.1",
        sha256="0" * 64,
        inputs=dict(inputs or {"b": NUMBER, "a": NUMBER}),
        outputs=dict(outputs or {"output": OUTPUT}),
        origin=origin,
        signature=signature,
        largest_layer=1,
        function=function,
        calls=[],
    )
