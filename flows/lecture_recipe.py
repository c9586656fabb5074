"""Train a model by the lecture notes' recipe with several seeds: data/raw/D -> artifacts/lecture_recipes/M."""

import time

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run
from runtime.errors import unknown_name
from runtime.stderr import quiet_stderr


@flow(name="lecture recipe", flow_run_name="lecture-recipe-{model}")
def lecture_recipe(model: str) -> None:
    """Fit and measure `model`, a name in `lecture_recipes` of params.yaml, with each seed and normalization."""
    params = load_params()
    recipe = params.model(model)
    if model not in params.lecture_recipes:
        raise unknown_name(
            "lecture recipe", model, params.lecture_recipes, f"The models in `lecture_recipes` of {paths.PARAMS}"
        )
    chosen = params.lecture_recipes[model]
    recipe = chosen.of(recipe)

    with quiet_stderr():
        import keras

        from datasets import get_dataset
        from tasks.training.hardware import use_device

        dataset = get_dataset(recipe.dataset)
        use_device(params.hardware.device, params.hardware.training_threads(dataset.has_pictures))
        keras.ops.zeros(())  # TensorFlow prints at its first operation, too

    from runtime.atomic_outputs import atomic_folder
    from tasks.reference.lecture_recipe import read_raw_splits_task, train_once_task, write_lecture_recipe_task
    from tasks.training.recipe_checks import check_recipe_task

    check_recipe_task(model, recipe)
    tail = params.dataset(recipe.dataset).tail
    began = time.monotonic()
    with atomic_folder(paths.lecture_recipe_folder(model)) as folder:
        data = read_raw_splits_task(dataset)
        runs = [
            train_once_task(model, recipe, data, normalization, tail, seed, params.hardware)
            for normalization in chosen.normalizations
            for seed in chosen.seeds
        ]
        write_lecture_recipe_task(model, data.schema, runs, time.monotonic() - began, folder)


if __name__ == "__main__":
    run(lecture_recipe)
