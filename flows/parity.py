"""Train a model by the notes' own recipe with several seeds: data/raw/D -> artifacts/parity/M."""

from prefect import flow

from config import paths
from config.errors import unknown_name
from config.params import load_params
from config.quiet import quiet_stderr
from flows.command_line import run


@flow(name="parity", flow_run_name="parity-{model}")
def parity(model: str) -> None:
    """Fit and measure `model`, a name in `parity` of params.yaml, with each seed and preparation given there."""
    params = load_params()
    recipe = params.model(model)
    if model not in params.parity:
        raise unknown_name("parity", model, params.parity, f"The models in `parity` of {paths.PARAMS}")
    chosen = params.parity[model]
    recipe = recipe.model_copy(update={"compile": chosen.compile, "fit": chosen.fit})

    with quiet_stderr():
        import keras

        from datasets import get_dataset
        from tasks.hardware import use_device

        dataset = get_dataset(recipe.dataset)
        use_device(params.hardware.device, params.hardware.training_threads(dataset.has_pictures))
        keras.ops.zeros(())  # the first operation prints too

    from tasks.files import staged_folder
    from tasks.parity import train_once_task, write_parity_task
    from tasks.raw import read_provenance_task, read_raw_task
    from tasks.recipe import check_recipe_task

    check_recipe_task(model, recipe)
    with staged_folder(paths.parity_folder(model)) as folder:
        provenance = read_provenance_task(dataset)
        table = read_raw_task(dataset, provenance["sha256"])
        runs = [
            train_once_task(
                model, recipe, params.dataset(recipe.dataset), normalization, seed, params.hardware, table, provenance
            )
            for normalization in chosen.normalizations
            for seed in chosen.seeds
        ]
        write_parity_task(model, provenance, runs, folder)


if __name__ == "__main__":
    run(parity)
