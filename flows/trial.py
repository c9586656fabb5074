"""Train one job of a search, in a process of its own: checkpoints/search/M/jobs/JOB.json -> records/JOB.json.

`python -m flows.search M` starts it.
"""

import argparse
import logging
import os
import sys

from config.params import Hardware, ModelParams
from orchestration.command_line import end_with, exit_on_user_error, prepare_process
from runtime.stderr import quiet_stderr
from runtime.variables import PIPELINE_PROCESS
from tasks.data.contracts import read_contract
from tasks.search.records import TEST, Job, job_file


def train(model: str, name: str) -> None:
    """Train the job `name` of a search; raises UserError where a file is missing or damaged."""
    job = read_contract(job_file(model, name), Job, f"search@{model}")
    with quiet_stderr():
        import keras

        from datasets import get_dataset
        from tasks.training.hardware import use_device

        hardware = Hardware.model_validate(job.hardware)
        recipe = ModelParams.model_validate(job.recipe)
        use_device(hardware.device, hardware.training_threads(get_dataset(recipe.dataset).has_pictures))
        keras.ops.zeros(())  # TensorFlow prints at its first operation, too

    from tasks.search.run_trial import run_finalist, run_test, run_trial

    if name == TEST:
        run_test(job)
    elif name.startswith("final"):
        run_finalist(job)
    else:
        run_trial(job)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.trial", description=__doc__.partition("\n")[0])
    parser.add_argument("model", metavar="M", help="a name in `search` of params.yaml")
    parser.add_argument("job", metavar="JOB", help="a file in checkpoints/search/M/jobs, without .json")
    given = parser.parse_args()
    prepare_process()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.ERROR)
    with exit_on_user_error("interrupted; the search trains this again."):
        if pid := os.environ.get(PIPELINE_PROCESS):  # on this machine
            end_with(int(pid), "the search that trained this")
        train(given.model, given.job)
    return 0


if __name__ == "__main__":
    sys.exit(main())
