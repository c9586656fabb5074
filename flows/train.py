"""Train a model: data/prepared/D -> artifacts/M (model, export, metrics, model card) and logs/M (TensorBoard)."""

from prefect import flow

from config import paths
from config.params import load_params
from orchestration.command_line import run
from runtime.stderr import quiet_stderr


@flow(name="train", flow_run_name="train-{model}")
def train(model: str) -> None:
    """Fit, export and evaluate `model`, a name of params.yaml, and publish it if all of that succeeds."""
    params = load_params()
    recipe = params.model(model)
    seed = recipe.seeds[0] if recipe.seeds else params.seed  # of an ensemble: that of the first member

    with quiet_stderr():
        import keras

        from datasets import get_dataset
        from models.common.registry import network_name
        from tasks.training.hardware import memory_limit, use_device

        threads = params.hardware.training_threads(get_dataset(recipe.dataset).has_pictures)
        use_device(params.hardware.device, threads)
        keras.ops.zeros(())  # TensorFlow prints at its first operation, too

    from runtime.atomic_outputs import atomic_folder
    from tasks.data.normalization import read_normalization_task
    from tasks.data.schema import read_schema_task
    from tasks.data.streaming import open_split_task
    from tasks.evaluation.evaluate import evaluate_members_task, evaluate_task
    from tasks.publishing.architecture import write_network_task
    from tasks.publishing.export import describe_origin, export_task, sample_outputs, verify_export_task
    from tasks.publishing.formats import convert_task
    from tasks.publishing.model_card import write_card_task
    from tasks.publishing.run_record import Stopwatch, describe_metrics, describe_run, write_record_task
    from tasks.training.ensemble import fit_model_task
    from tasks.training.recipe_checks import check_recipe_task
    from tasks.training.tensorboard_logs import run_logs

    check_recipe_task(model, recipe)
    watch = Stopwatch()
    with atomic_folder(paths.artifacts_folder(model)) as folder, run_logs(model, watch.began) as logs:
        schema = read_schema_task(recipe.dataset)
        normalization = read_normalization_task(recipe.dataset)
        memory = memory_limit(params.hardware)
        examples = {split: open_split_task(recipe, split, memory) for split in ("train", "valid")}
        watch.lap("read")
        trained = fit_model_task(
            model,
            recipe,
            seed,
            params.hardware,
            examples,
            network=network_name(model, schema.source),
            logs=logs,
            checkpoints=paths.checkpoints_folder(model),
        )
        fitted = trained.whole
        watch.lap("fit", fitted.earlier_seconds)
        export_task(fitted.model, recipe, normalization, describe_origin(model, recipe, schema, seed), folder)
        formats = convert_task(recipe.export, folder)
        sample = sample_outputs(fitted.model, examples["valid"])
        # In processes of their own.
        verified = verify_export_task.submit(sample, recipe, schema.raw_sha256, formats, folder)
        members = {seed: member.model for seed, member in trained.members.items()}
        write_network_task(next(iter(members.values()), fitted.model), examples["valid"], folder)
        watch.lap("export")
        evaluation = evaluate_task(fitted.model, recipe, schema, memory, **examples)
        alone = evaluate_members_task(members, recipe, schema, memory, examples["valid"])
        exported, probes = verified.result()
        watch.lap("evaluate")
        measured = describe_metrics(model, recipe, seed, schema, fitted, evaluation, probes, alone)
        write_card_task(measured, recipe, exported, model in params.notes, folder)
        facts = describe_run(recipe, watch.began, watch.seconds(), fitted)
        write_record_task(measured, facts, fitted, evaluation, folder)


if __name__ == "__main__":
    run(train)
