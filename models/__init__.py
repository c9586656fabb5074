"""The networks: one file a family, found by its name.

A family's file defines `build(inputs, name, ...) -> keras.Model`: `inputs` maps the name of each input
to the shape of one row, the other arguments are `models.M.build` of params.yaml. The model comes back
uncompiled; nothing here reads files, sets seeds or logs.
"""

import inspect
from collections.abc import Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from random import Random
from typing import Any

import keras
from pydantic import ConfigDict, ValidationError, validate_call

from config.errors import UserError, unknown_name

NOT_FAMILIES = {"layers", "losses", "views"}

# The layer that makes an output has the output's name; this is the main one's.
MAIN_OUTPUT = "output"

Shapes = dict[str, tuple[int, ...]]


def family_names() -> list[str]:
    return sorted(module.name for module in iter_modules(__path__) if module.name not in NOT_FAMILIES)


def build_model(family: str, inputs: Shapes, name: str, arguments: dict[str, Any], source: str = "real") -> keras.Model:
    """Build model `name` of `family`, uncompiled; a source other than "real" stands in the network's own name.

    Raises UserError for an unknown family and for an argument that its `build` does not take.
    """
    if family not in family_names():
        raise unknown_name("family", family, family_names(), f"models.{name}.family, the files of models/")
    build = import_module(f"models.{family}").build
    valid = list(inspect.signature(build).parameters)[2:]
    for argument in arguments:
        if argument not in valid:
            raise unknown_name(f"parameter models.{name}.build", argument, valid, "Valid here")
    try:
        typed_build = validate_call(config=ConfigDict(strict=True))(build)
        return typed_build(inputs, name if source == "real" else f"{name}_{source}", **arguments)
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise UserError(f"params.yaml: models.{name}.build: {'; '.join(faults)}.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"params.yaml: models.{name}.build does not fit family {family!r}: {error}") from error


def draw_weights(model: keras.Model, seed: int) -> None:
    """Draw the initial weights of `model` anew, from `seed` and the order of its layers alone.

    Keras seeds an initializer that has no seed from Python's global `random`, from which other threads draw as well:
    those that talk to Prefect's server do, for each ping. Now and then a model would begin with other weights.
    """
    draws = Random(seed)
    for layer in all_layers(model):
        for weight, initializer in initializers(layer):
            seeded = type(initializer).from_config({**initializer.get_config(), "seed": draws.randint(1, 10**9)})
            weight.assign(seeded(weight.shape, dtype=weight.dtype))
        if isinstance(generator := getattr(layer, "seed_generator", None), keras.random.SeedGenerator):
            generator.state.assign([draws.randint(1, 10**9), 0])


def all_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Yield the layers of `model` that hold no others, in their order."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
        else:
            yield layer


def initializers(layer: keras.Layer) -> Iterator[tuple[keras.Variable, keras.Initializer]]:
    """Yield each weight of `layer` that is drawn at random, with what draws it."""
    for key in layer.get_config():
        weight = getattr(layer, key.removesuffix("_initializer"), None)
        if key.endswith("_initializer") and weight is not None:
            initializer = getattr(layer, key)
            if "seed" in initializer.get_config():
                yield weight, initializer


def network_input(inputs: dict[str, Any]) -> Any:
    """Return what Keras takes: the value itself where there is one input, else the values by name, in its order."""
    return next(iter(inputs.values())) if len(inputs) == 1 else dict(sorted(inputs.items()))


def adapt_normalization(model: keras.Model, inputs: dict[str, Any]) -> None:
    """Give every layer `normalize_INPUT` the mean and variance of that input's rows.

    inputs: name of an input: its rows, one array or several after another.
    """
    for name, rows in inputs.items():
        for layer in model.layers:
            if layer.name == f"normalize_{name}":
                layer.adapt(rows)


def output_shapes(model: keras.Model, inputs: Shapes) -> dict[str, tuple[int | None, ...]]:
    """Return the shape of each output of `model`, batch first, by name. The layer that makes it has the same name."""
    given = {key: keras.KerasTensor((None, *shape), name=key) for key, shape in inputs.items()}
    spec = model.compute_output_spec(network_input(given))
    return {name: tuple(output.shape) for name, output in named_outputs(spec).items()}


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return what a model returned as a dictionary, the main output first; an only output has the name of that."""
    return {MAIN_OUTPUT: outputs[MAIN_OUTPUT], **outputs} if isinstance(outputs, dict) else {MAIN_OUTPUT: outputs}


def spread(target: Any, outputs: Iterable[str]) -> Any:
    """Return what Keras compares with the outputs: the target, or it by name where there are several outputs."""
    names = list(outputs)
    return dict.fromkeys(names, target) if len(names) > 1 else target


def figure_prefix(output: str) -> str:
    """Return what stands before the figures of `output`: nothing for the main one."""
    return "" if output == MAIN_OUTPUT else f"{output}_"
