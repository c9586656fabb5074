"""A trial in TensorBoard: its values for the page HParams, and the objective of each epoch."""

import shutil

import keras

from config import paths
from tasks.search.records import Job, TrialRecord, trial_name


def log_trial(job: Job, record: TrialRecord) -> None:
    """Write the logs of a trial to logs/search/M, with TensorFlow alone; they replace those of an earlier try."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hparams

    name = trial_name(job.number)
    folder = paths.search_logs_folder(job.model) / name
    shutil.rmtree(folder, ignore_errors=True)
    with tf.summary.create_file_writer(str(folder)).as_default():
        shown = {key: "none" if value is None else value for key, value in job.parameters.items()}
        hparams.hparams(shown, trial_id=name)
        for epoch, value in enumerate(record.epochs, start=1):
            tf.summary.scalar(f"{job.objective} on valid", value, step=epoch)
