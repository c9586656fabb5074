"""Train a model: data/prepared/D -> artifacts/M (model, export, metrics, model card) and logs/M (TensorBoard)."""

from prefect import flow

from config import paths
from config.params import load_params
from config.quiet import quiet_stderr
from flows.command_line import run


@flow(name="train", flow_run_name="train-{model}")
def train(model: str) -> None:
    """Fit, export and evaluate `model`, a name of params.yaml; publish it when all of that succeeded."""
    params = load_params()
    recipe = params.model(model)

    with quiet_stderr():
        import keras

        from datasets import get_dataset
        from tasks.hardware import memory_limit, use_device

        threads = params.hardware.training_threads(get_dataset(recipe.dataset).has_pictures)
        use_device(params.hardware.device, threads)
        keras.ops.zeros(())  # the first operation prints too

    from tasks.card import write_card_task
    from tasks.evaluate import evaluate_task
    from tasks.examples import read_schema_task
    from tasks.export import (
        describe_origin,
        export_task,
        read_statistics_task,
        sample_outputs,
        verify_export_task,
    )
    from tasks.files import staged_folder
    from tasks.fit import fit_task
    from tasks.logs import run_logs
    from tasks.network import write_network_task
    from tasks.recipe import check_recipe_task
    from tasks.record import Stopwatch, metrics, run_facts, write_record_task
    from tasks.stream import open_split_task

    check_recipe_task(model, recipe)
    watch = Stopwatch()
    with staged_folder(paths.artifacts_folder(model)) as folder, run_logs(model, watch.began) as logs:
        schema = read_schema_task(recipe.dataset)
        statistics = read_statistics_task(recipe.dataset)
        memory = memory_limit(params.hardware)
        examples = {split: open_split_task(recipe, split, memory) for split in ("train", "valid")}
        watch.lap("read")
        fitted = fit_task(
            model,
            recipe,
            params.seed,
            params.hardware,
            **examples,
            source=schema["source"],
            logs=logs,
            checkpoints=paths.checkpoints_folder(model),
        )
        watch.lap("fit")
        export_task(fitted.model, recipe, statistics, describe_origin(schema, params.seed), folder)
        sample = sample_outputs(fitted.model, examples["valid"])
        verified = verify_export_task.submit(sample, recipe, schema["raw_sha256"], folder)  # in a process beside this
        write_network_task(fitted.model, examples["valid"], folder)
        watch.lap("export")
        evaluation = evaluate_task(fitted.model, recipe, schema, memory, **examples)
        probes = verified.result()
        watch.lap("evaluate")
        measured = metrics(model, recipe, params.seed, schema, fitted, evaluation, probes)
        write_card_task(measured, recipe, folder)
        facts = run_facts(recipe, watch.began, watch.seconds(), fitted)
        write_record_task(measured, facts, fitted, evaluation, folder)


if __name__ == "__main__":
    run(train)
