"""Receive new rows of a data set: data/incoming/D -> data/batches/D, or data/rejected/D with the reasons."""

from prefect import flow

from config.params import load_params
from datasets import get_dataset
from orchestration.command_line import run
from tasks.arrivals.receive import Received, receive_task


@flow(name="receive", flow_run_name="receive-{dataset}")
def receive(dataset: str) -> Received:
    """Check the arrivals of `dataset`, a name of params.yaml, and keep the sound ones as batches."""
    load_params().dataset(dataset)
    return receive_task(get_dataset(dataset))


if __name__ == "__main__":
    run(receive)
