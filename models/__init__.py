"""The networks: one file a family, found by its name.

A family's file defines `build(inputs, name, ...) -> keras.Model`: `inputs` maps the name of each input
to the shape of one row, the other arguments are `models.M.build` of params.yaml. The model comes back
uncompiled; nothing here reads files, sets seeds or logs.
"""

import inspect
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import keras

from config.errors import UserError, unknown_name

NOT_FAMILIES = {"losses", "views"}

Shapes = dict[str, tuple[int, ...]]


def family_names() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if module.name not in NOT_FAMILIES)


def build_model(family: str, inputs: Shapes, name: str, arguments: dict[str, Any]) -> keras.Model:
    """Build model `name` of `family`, uncompiled; raises UserError for an unknown family or argument."""
    if family not in family_names():
        raise unknown_name("family", family, family_names(), f"models.{name}.family, the files of models/")
    build = import_module(f"models.{family}").build
    valid = list(inspect.signature(build).parameters)[2:]
    for argument in arguments:
        if argument not in valid:
            raise unknown_name(f"parameter models.{name}.build", argument, valid, "Valid here")
    try:
        return build(inputs, name, **arguments)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}: {value!r}" for key, value in arguments.items())
        raise UserError(
            f"params.yaml: models.{name}.build ({given}) does not fit family {family!r}: {error}"
        ) from error


def adapt_normalization(model: keras.Model, inputs: dict[str, Any]) -> None:
    """Give every layer `normalize_INPUT` the mean and variance of that input's rows."""
    for name, rows in inputs.items():
        for layer in model.layers:
            if layer.name == f"normalize_{name}":
                layer.adapt(rows)


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return what a model returned as a dictionary; the only output of a model is called "output"."""
    return outputs if isinstance(outputs, dict) else {"output": outputs}
