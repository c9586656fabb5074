"""The page at `/`: which models are served, and a line for each that works when it is pasted into a shell."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from serving.models import Models, Served
from serving.settings import HOST, PORT, TOKEN, Settings
from serving.tensors import NAMES
from tasks.prediction.saved_model import Tensor

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
MANY = 8  # values; a longer row is made by Python


def page(models: Models, settings: Settings, host: str) -> str:
    """Return the page as HTML.

    Args:
        models: that are served.
        settings: whether a token is needed.
        host: under which name the server was asked.
    """
    known = host if re.fullmatch(r"[\w.\-:\[\]]+", host, re.ASCII) else f"{HOST}:{PORT}"
    entries = [
        {
            "name": name,
            "version": served.model.version,
            "inputs": shown(served.model.inputs),
            "outputs": shown(served.model.outputs),
            "classes": served.model.classes,
            "sample": served.model.origin is not None and served.model.origin.source == "sample",
            "line": curl_line(served, f"http://{known}", bool(settings.token)),
        }
        for name, served in sorted(models.current.items())
    ]
    return TEMPLATES.get_template("page.html.jinja").render(
        models=entries, ready=models.ready, token=settings.token and TOKEN
    )


def shown(tensors: dict[str, Tensor]) -> list[str]:
    return [
        f"{name} {NAMES[tensor.dtype]}{' ' + ' × '.join(map(str, tensor.shape)) if tensor.shape else ''}"
        for name, tensor in tensors.items()
    ]


def example_instances(served: Served) -> list[dict[str, Any]]:
    """Return one row for a model: examples where its export has them, else zeros."""
    return [{name: value_of(served, name, tensor) for name, tensor in served.model.inputs.items()}]


def value_of(served: Served, name: str, tensor: Tensor) -> Any:
    if tensor.shape:
        return served.model.zeros(1)[name][0].tolist()
    example = served.examples.get(name, 0.0)
    return bool(example) if tensor.dtype.kind == "b" else int(example) if tensor.dtype.kind in "iu" else example


def curl_line(served: Served, address: str, token: bool) -> str:
    """Return a command that asks a model for the answer to one row.

    Args:
        served: the model.
        address: of the server.
        token: whether the server asks for one.
    """
    shows = f' --header "Authorization: Bearer ${TOKEN}"' if token else ""
    asked = f"curl --silent{shows} {shlex.quote(f'{address}/v1/models/{served.model.name}:predict')}"
    large = {name: tensor for name, tensor in served.model.inputs.items() if sum(tensor.shape) > MANY}
    if not large:
        return f"{asked} --data {shlex.quote(json.dumps({'instances': example_instances(served)}))}"
    row = ", ".join(
        f'"{name}": {zeros(tensor.shape) if name in large else json.dumps(value_of(served, name, tensor))}'
        for name, tensor in served.model.inputs.items()
    )
    program = f'import json; print(json.dumps({{"instances": [{{{row}}}]}}))'
    return f"python3 -c {shlex.quote(program)} | {asked} --data @-"


def zeros(shape: tuple[int, ...]) -> str:
    """Return the Python text of nested lists of zeros."""
    return f"[0] * {shape[0]}" if len(shape) == 1 else f"[{zeros(shape[1:])}] * {shape[0]}"
