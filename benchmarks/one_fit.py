"""A process that fits one model in one variant. Each line on standard input starts a fit, whose results are printed.

    python -m benchmarks.one_fit MODEL VARIANT EPOCHS ROWS

| variant | how the model is fitted |
|---|---|
| notes | as in the lecture notes: `model.fit` on NumPy arrays |
| keras | the same, with the fastest settings of Keras |
| ours | as the pipeline does it |
| ours_exact | the same, in float32 |
| loop | the batches of the pipeline, by Keras' own loop |
| nudged | with the bits of `loop`, but one number of one train row is greater by one ULP |
| gpu | as `ours`, on the GPU; all others run on the processor |

ROWS: of the train split; 0: all; more than there are: they repeat.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from config.params import ModelParams, Params, load_params
from datasets import get_dataset
from models.common.outputs import broadcast_target
from models.common.registry import build_model, output_shapes
from runtime.stderr import quiet_stderr
from tasks.data.examples import Examples, read_examples
from tasks.publishing.run_record import peak_memory_bytes
from tasks.training.callbacks import EpochClock
from tasks.training.fit import STEPS_PER_EXECUTION, adapt, fit, losses_of, make_optimizer, metrics_of
from tasks.training.hardware import has_convolutions, use_device


def recipe_of(params: Params, name: str, epochs: int) -> ModelParams:
    """Return the recipe of the lecture notes, without early stopping and checkpoints.

    Args:
        params: of params.yaml.
        name: of the model.
        epochs: instead of those of the recipe.
    """
    recipe = params.model(name)
    if name in params.lecture_recipes:
        recipe = params.lecture_recipes[name].of(recipe)
    plain = {"epochs": epochs, "early_stopping": None, "checkpoint": None, "resume": False, "loss_ratio": False}
    return recipe.model_copy(update={"fit": recipe.fit.model_copy(update=plain)})


FitResult = tuple[dict[str, list[float]], list[float], str]  # history, end of each epoch, precision


def fit_as_tutorial(
    params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, fastest: bool
) -> FitResult:
    """Fit a model as the lecture notes do.

    Args:
        params: of params.yaml.
        name: of the model.
        recipe: of the model.
        train, valid: the rows.
        fastest: use the fastest settings of Keras.
    """
    keras.utils.set_random_seed(params.seed)
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(recipe.family, shapes, name, recipe.build, train_rows=train.rows)
    adapt(model, train)
    outputs = list(output_shapes(model, shapes))
    settings = (
        {"steps_per_execution": STEPS_PER_EXECUTION, "jit_compile": not has_convolutions(model)} if fastest else {}
    )
    steps = math.ceil(train.rows / recipe.fit.batch_size)
    model.compile(
        optimizer=make_optimizer(recipe.compile, steps * recipe.fit.epochs),
        loss=losses_of(recipe, outputs),
        loss_weights=recipe.compile.loss_weights if len(outputs) > 1 else None,
        metrics=metrics_of(recipe, outputs),
        **settings,
    )
    clock = EpochClock()
    history = model.fit(
        train.x,
        broadcast_target(train.target, outputs, train.own),
        epochs=recipe.fit.epochs,
        batch_size=recipe.fit.batch_size,
        validation_data=(valid.x, broadcast_target(valid.target, outputs, valid.own)),
        verbose=0,
        callbacks=[clock],
    )
    return history.history, clock.ends, "float32"


def fit_as_pipeline(
    params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, **hardware
) -> FitResult:
    """Fit a model as the pipeline does.

    Args:
        params: of params.yaml.
        name: of the model.
        recipe: of the model.
        train, valid: the rows.
        hardware: settings instead of those of params.yaml.
    """
    chosen = params.hardware.model_copy(update=hardware)
    fitted = fit(name, recipe, params.seed, chosen, train, valid)
    return fitted.history, fitted.epoch_ends, fitted.precision


VARIANTS: dict[str, Callable[..., FitResult]] = {
    "notes": partial(fit_as_tutorial, fastest=False),
    "keras": partial(fit_as_tutorial, fastest=True),
    "ours": fit_as_pipeline,
    "ours_exact": partial(fit_as_pipeline, precision="float32"),
    "gpu": fit_as_pipeline,
    "loop": partial(fit_as_pipeline, precision="float32", execution="batches"),
    "nudged": partial(fit_as_pipeline, precision="float32", execution="graph"),
}

REFERENCES = ("notes", "keras")  # TensorFlow chooses their threads


def nudge(train: Examples) -> Examples:
    """Return the rows with the greatest number in the first input of the first row made greater by one ULP.

    The difference that this makes in the metrics is a scale for differences by rounding.
    """
    name, values = next(iter(train.inputs.items()))
    moved = values.copy()
    numbers = moved[0].reshape(-1)  # a view
    greatest = numbers.argmax()
    numbers[greatest] = np.nextafter(numbers[greatest], np.float32(np.inf))
    return replace(train, inputs={**train.inputs, name: moved})


def measure(params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, variant: str) -> dict:
    """Fit once; return the seconds, with tracing and compiling, and the results.

    Args:
        params: of params.yaml.
        name: of the model.
        recipe: of the model.
        train, valid: the rows.
        variant: of VARIANTS.
    """
    keras.backend.clear_session()
    began = time.perf_counter()
    history, ends, precision = VARIANTS[variant](params, name, recipe, train, valid)
    return {
        "seconds": time.perf_counter() - began,
        "precision": precision,
        "epoch_ends": [end - began for end in ends],
        "history": {metric: [float(value) for value in values] for metric, values in history.items()},
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> None:
    name, variant, epochs, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with quiet_stderr():
        params = load_params()
        recipe = recipe_of(params, name, epochs)
        threads = params.hardware.training_threads(get_dataset(recipe.dataset).has_pictures)
        use_device("gpu" if variant == "gpu" else "cpu", None if variant in REFERENCES else threads)
        keras.ops.zeros(())
    train, valid = read_examples(recipe, "train"), read_examples(recipe, "valid")
    if rows:
        train = train.take(np.arange(rows) % train.rows)
    if variant == "nudged":
        train = nudge(train)
    print(json.dumps({"rows": train.rows, "multiply_adds": multiply_adds(recipe, train)}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(params, name, recipe, train, valid, variant)), flush=True)


def multiply_adds(recipe: ModelParams, train: Examples) -> int:
    """Return the multiplications of a forward pass of one row through the Dense and Conv2D layers."""
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(recipe.family, shapes, "counted", recipe.build, train_rows=train.rows)
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Conv2D):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
    return total


if __name__ == "__main__":
    main()
