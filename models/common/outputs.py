"""The inputs and outputs of a network, by name. Nothing here imports Keras."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# An output has the name of the layer that computes it; this is the name of the main one.
MAIN_OUTPUT = "output"

Shapes = dict[str, tuple[int, ...]]


def network_input(inputs: dict[str, Any]) -> Any:
    """Return inputs as Keras takes them: the value of a single input, or the values by name, sorted as Keras does."""
    return next(iter(inputs.values())) if len(inputs) == 1 else dict(sorted(inputs.items()))


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return the outputs of a model by name, the main one first; a single output is the main one."""
    return {MAIN_OUTPUT: outputs[MAIN_OUTPUT], **outputs} if isinstance(outputs, dict) else {MAIN_OUTPUT: outputs}


def broadcast_target(target: Any, outputs: Iterable[str], own: Mapping[str, Any] | None = None) -> Any:
    """Return the target as Keras takes it: itself for one output, or one by name for each of several outputs.

    Args:
        target: of the main output, and of each that has none of its own.
        outputs: their names.
        own: the targets of outputs that have their own, by name.
    """
    names = list(outputs)
    return {**dict.fromkeys(names, target), **(own or {})} if len(names) > 1 else target


def metric_prefix(output: str) -> str:
    """Return the prefix of the metrics of `output`; none for the main one."""
    return "" if output == MAIN_OUTPUT else f"{output}_"


def predicted_class(output: np.ndarray) -> np.ndarray:
    """Return int64 [rows]: the most probable of several classes, or whether the only output is at least 0.5."""
    return output.argmax(axis=1) if output.shape[1] > 1 else (output[:, 0] >= 0.5).astype(np.int64)


def class_probabilities(output: np.ndarray) -> np.ndarray:
    """Return [rows, classes]; the only output of a network of two classes is the probability of the second."""
    if output.shape[1] > 1:
        return output
    second = np.clip(output, 0, 1)  # a unit with the sign for a threshold says -1
    return np.concatenate([1 - second, second], axis=1)
