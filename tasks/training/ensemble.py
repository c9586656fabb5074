"""Train a model, or the members of an ensemble one after another."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
from prefect import task

from config.params import Hardware, ModelParams
from models.common.ensemble import average
from models.common.registry import output_shapes
from tasks.data.streaming import Split
from tasks.training.fit import Fitted, compile_model, fit

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model, and the members by their seed if it is an ensemble."""

    whole: Fitted
    members: dict[int, Fitted]


def fit_model(
    name: str,
    params: ModelParams,
    seed: int,
    hardware: Hardware,
    splits: dict[str, Split],
    network: str,
    logs: Path,
    checkpoints: Path,
) -> Trained:
    """Train a model by its recipe: one network, or one with each of `params.seeds` and their average.

    A member is the network that `fit` gives for its seed alone. With `fit.resume`, an interrupted training continues in
    the member that it was in.

    Args:
        name: of the model, for messages.
        params: its recipe.
        seed: of the network; an ensemble has seeds of its own.
        hardware: how training uses the machine.
        splits: the rows of train and valid.
        network: the name of the network.
        logs: folder for TensorBoard; members have folders in it.
        checkpoints: folder for the checkpoints of the recipe; members have folders in it.

    Raises:
        UserError: as `fit` does.
    """
    rows = splits["train"], splits["valid"]
    if not params.seeds:
        return Trained(fit(name, params, seed, hardware, *rows, network, logs, checkpoints), {})
    alone = params.model_copy(update={"seeds": None})  # a further seed leaves the checkpoints of the others as they are
    members = {}
    for number, own in enumerate(params.seeds, start=1):
        logger.info("%s: member %d of %d, seed %d", name, number, len(params.seeds), own)
        part = f"seed_{own}"
        members[own] = fit(name, alone, own, hardware, *rows, f"{network}_{part}", logs / part, checkpoints / part)
    return Trained(combine(list(members.values()), params, splits["train"], network), members)


def combine(members: list[Fitted], params: ModelParams, train: Split, network: str) -> Fitted:
    """Return the average of trained networks; its history is the mean of theirs.

    Args:
        members: of the same recipe, which all had the same number of epochs.
        params: the recipe.
        train: the rows, for their shapes.
        network: the name of the average.
    """
    shapes = {key: rows.shape[1:] for key, rows in train.first_rows().inputs.items()}
    model = average([member.model for member in members], shapes, network)
    compile_model(model, params, list(output_shapes(model, shapes)), steps=1, execution="batches")
    history = {
        metric: [float(np.mean(values)) for values in zip(*(member.history[metric] for member in members), strict=True)]
        for metric in members[0].history
    }
    return dataclasses.replace(
        members[0],
        model=model,
        history=history,
        epoch_ends=[end for member in members for end in member.epoch_ends],
        earlier_seconds=sum(member.earlier_seconds for member in members),
    )


fit_model_task = task(fit_model)
