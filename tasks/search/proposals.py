"""Propose the parameters of trials.

Every trial has a sampler of its own, whose seed follows from the trial's number; and it knows the results of earlier
rounds only. So neither an interruption nor the number of workers changes a proposal. One sampler for all trials would
repeat its first proposals after a resume (optuna/optuna issue 3255).
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from config.search import MAXIMIZED, Search, Space
from tasks.search.gaussian_process import GaussianProcessSampler
from tasks.search.space import Parameters, distributions

STARTUP = 8  # random trials before a sampler uses results

optuna.logging.set_verbosity(optuna.logging.WARNING)


def seed_of(seed: int, number: int) -> int:
    """Return the seed of trial `number` of a search with `seed`, of 32 bits."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def direction_of(objective: str) -> Literal["minimize", "maximize"]:
    """Return Optuna's name of the direction in which an objective is better."""
    return "maximize" if objective in MAXIMIZED else "minimize"


def make_sampler(kind: str, seed: int, startup: int) -> BaseSampler:
    """Return a sampler.

    Args:
        kind: "random", "tpe" (tree-structured Parzen estimators; J. Bergstra et al., "Algorithms for hyper-parameter
            optimization", NIPS 2011), or "gp" (Gaussian process).
        seed: of its random numbers.
        startup: random trials before it uses their results.
    """
    if kind == "random":
        return RandomSampler(seed=seed)
    if kind == "gp":
        return GaussianProcessSampler(seed, startup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # multivariate: of all parameters at once. constant_liar: away from the other trials of the round.
        return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=startup)


def propose(
    search: Search, space: Space, objective: str, earlier: Sequence[FrozenTrial], numbers: Sequence[int]
) -> list[Parameters]:
    """Return the parameters of the trials of a round.

    Args:
        search: how to search.
        space: what to vary.
        objective: what is compared.
        earlier: the trials of all earlier rounds.
        numbers: of the trials of the round.
    """
    study = optuna.create_study(direction=direction_of(objective))
    study.add_trials(earlier)
    startup = max(search.round, STARTUP)
    varied = distributions(space)
    proposals = []
    for number in numbers:
        study.sampler = make_sampler(search.sampler, seed_of(search.seed, number), startup)
        proposals.append(study.ask(varied).params)
    return proposals
