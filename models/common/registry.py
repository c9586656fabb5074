"""Find a family by its name and build a network."""

import inspect
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import keras
from pydantic import ConfigDict, ValidationError, validate_call

from config.names import GIVEN_BY_CODE
from models.common.outputs import Shapes, named_outputs, network_input
from runtime.errors import UserError, unknown_name


def family_names() -> list[str]:
    folder = Path(__file__).parents[1]
    return sorted(module.name for module in iter_modules([str(folder)]) if not module.ispkg)


def build_model(
    family: str,
    inputs: Shapes,
    name: str,
    arguments: dict[str, Any],
    network: str | None = None,
    train_rows: int = 0,
) -> keras.Model:
    """Build a model without compiling it.

    Args:
        family: the file of models/ that builds it.
        inputs: the shape of a row of each input, by name.
        name: of the model, for messages.
        arguments: of the family's `build`.
        network: the name of the network; None: `name`.
        train_rows: rows of the train split, for a family that keeps them.

    Raises:
        UserError: the family is unknown, or its `build` refuses an argument.
    """
    if family not in family_names():
        raise unknown_name("family", family, family_names(), f"models.{name}.family, the files of models/")
    build = import_module(f"models.{family}").build
    takes = inspect.signature(build).parameters
    valid = [argument for argument in takes if argument not in GIVEN_BY_CODE]
    for argument in arguments:
        if argument not in valid:
            raise unknown_name(f"parameter models.{name}.build", argument, valid, "Valid here")
    try:
        typed_build = validate_call(config=ConfigDict(strict=True))(build)
        given = {"train_rows": train_rows} if "train_rows" in takes else {}
        return typed_build(inputs, network or name, **given, **arguments)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UserError(f"params.yaml: models.{name}.build: {'; '.join(faults)}.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"params.yaml: models.{name}.build does not fit family {family!r}: {error}") from error


def output_shapes(model: keras.Model, inputs: Shapes) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each output of `model` by name, with the batch. The layer that computes it has its name."""
    given = {key: keras.KerasTensor((None, *shape), name=key) for key, shape in inputs.items()}
    spec = model.compute_output_spec(network_input(given))
    return {name: tuple(output.shape) for name, output in named_outputs(spec).items()}


def network_name(name: str, source: str) -> str:
    """Return the name of the network of a model; it ends with the source of the rows unless that is "real"."""
    return name if source == "real" else f"{name}_{source}"
