"""Prepare a data set: data/raw/D.parquet -> data/prepared/D/{train,valid,test}.parquet."""

from prefect import flow

from config import paths
from config.params import load_params
from datasets import get_dataset
from orchestration.command_line import run
from runtime.atomic_outputs import atomic_folder
from tasks.data.raw import read_provenance_task, read_raw_task
from tasks.preparation.prepare import prepare_task, write_prepared_task


@flow(name="prepare", flow_run_name="prepare-{dataset}")
def prepare(dataset: str) -> None:
    """Split the raw rows of `dataset`, a name of params.yaml, and compute their normalization."""
    params = load_params().dataset(dataset)
    chosen = get_dataset(dataset)
    provenance = read_provenance_task(chosen)
    table = read_raw_task(chosen, provenance.sha256)
    prepared = prepare_task(chosen, params, table, provenance)
    with atomic_folder(paths.prepared_folder(dataset), others="refuse") as folder:
        write_prepared_task(prepared, folder)


if __name__ == "__main__":
    run(prepare)
