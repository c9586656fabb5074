"""The inputs and outputs of a network, by name. Nothing here imports Keras."""

from collections.abc import Iterable
from typing import Any

# The layer that makes an output has the output's name; this is the main one's.
MAIN_OUTPUT = "output"

Shapes = dict[str, tuple[int, ...]]


def network_input(inputs: dict[str, Any]) -> Any:
    """Return what Keras takes: the value itself where there is one input, else the values by name, in its order."""
    return next(iter(inputs.values())) if len(inputs) == 1 else dict(sorted(inputs.items()))


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return what a model returned as a dictionary, the main output first; an only output has the name of that."""
    return {MAIN_OUTPUT: outputs[MAIN_OUTPUT], **outputs} if isinstance(outputs, dict) else {MAIN_OUTPUT: outputs}


def broadcast_target(target: Any, outputs: Iterable[str]) -> Any:
    """Return what Keras compares with the outputs: the target, or it by name where there are several outputs."""
    names = list(outputs)
    return dict.fromkeys(names, target) if len(names) > 1 else target


def metric_prefix(output: str) -> str:
    """Return what stands before the figures of `output`: nothing for the main one."""
    return "" if output == MAIN_OUTPUT else f"{output}_"
