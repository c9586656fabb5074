"""Ingest a data set: source and data/batches/D -> data/raw/D.parquet and data/raw/D.json."""

from prefect import flow

from config import paths
from config.params import load_params
from datasets import get_dataset
from orchestration.command_line import run
from runtime.atomic_outputs import atomic_files
from tasks.arrivals.batches import refuse_lost_batches
from tasks.preparation.add_batches import add_batches_task
from tasks.preparation.ingest import fetch_task, write_raw_task


@flow(name="ingest", flow_run_name="ingest-{dataset}")
def ingest(dataset: str) -> None:
    """Fetch the rows of `dataset`, a name of params.yaml, from the source that it names, and add the batches."""
    params = load_params()
    params.dataset(dataset)
    chosen = get_dataset(dataset)
    refuse_lost_batches(dataset)
    table, batches = add_batches_task(chosen, fetch_task(chosen, params.data.source))
    with atomic_files(paths.RAW, dataset) as folder:
        write_raw_task(chosen, params.data.source, table, folder, batches)


if __name__ == "__main__":
    run(ingest)
