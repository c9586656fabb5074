"""Proposals depend on the seed, the number of the trial and the results of earlier rounds alone."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestration.search import work
from tasks.search.proposals import propose, seed_of
from tasks.search.records import FinalRecord, TrialRecord
from tasks.search.results import best_trials, importance, rank, trials_table
from tasks.search.store import frozen
from tests.support.searches import record, small_search, small_space

SPACE = small_space()


def value_of(parameters: dict) -> float:
    """A smooth function with its minimum at a learning rate of 0.1, a layer and adam."""
    rate = math.log10(parameters["compile.learning_rate"]) + 1
    return rate**2 + (parameters["build.hidden.layers"] - 1) ** 2 + (parameters["compile.optimizer"] == "sgd")


def run(trials: int, round: int, sampler: str, seed: int = 1) -> list[TrialRecord]:
    search = small_search(trials=trials, round=round, sampler=sampler, seed=seed)
    records: list[TrialRecord] = []
    for first in range(0, trials, round):
        numbers = range(first, min(first + round, trials))
        earlier = [frozen(known, SPACE) for known in records]
        for number, parameters in zip(numbers, propose(search, SPACE, "loss", earlier, numbers), strict=True):
            records.append(record(number, parameters, value_of(parameters)))
    return records


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_search_that_was_interrupted_proposes_the_same_and_a_longer_one_goes_on(sampler):
    whole = run(11, 4, sampler)
    assert run(8, 4, sampler) == whole[:8]
    assert run(11, 4, sampler) == whole
    assert len({str(known.parameters) for known in whole}) == 11


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 10_000), unique=True, min_size=2, max_size=50))
def test_trials_have_seeds_of_their_own(seed, numbers):
    seeds = [seed_of(seed, number) for number in numbers]
    assert len({*seeds}) == len(numbers)
    assert all(0 <= value < 2**32 for value in seeds)


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_sampler_that_learns_comes_closer_than_random_trials(sampler):
    def best(kind: str) -> float:
        return sum(min(known.value or 0 for known in run(16, 4, kind, seed)) for seed in range(2))

    assert best(sampler) < best("random")


def test_the_best_are_those_that_were_trained_to_their_end():
    known = [record(0, {}, 0.4), record(1, {}, 0.1, state="pruned"), record(2, {}, None), record(3, {}, 0.3)]
    known.append(record(4, {}, 0.3))
    assert [found.number for found in best_trials(known, "loss", 2)] == [3, 4]
    assert [found.number for found in best_trials(known, "accuracy", 9)] == [0, 3, 4]


def test_finalists_are_compared_by_their_mean():
    def final(number: int, seed: int, value: float) -> FinalRecord:
        return FinalRecord(number=number, seed=seed, epochs=1, metrics={"valid": {"loss": value}}, seconds=1.0)

    ranked = rank({1: [final(1, 0, 0.1), final(1, 1, 0.5)], 2: [final(2, 0, 0.25), final(2, 1, 0.2)]}, "loss")
    assert [(found.trial, found.mean) for found in ranked] == [(2, 0.225), (1, 0.3)]


def test_the_table_has_the_best_so_far_and_what_matters_most_is_found():
    known = run(24, 4, "random")
    table = trials_table(known, small_search(trials=24, round=4), SPACE, "loss")
    assert table["best"].tolist() == [min(table["value"][: n + 1]) for n in range(24)]
    assert table["round"].tolist() == [n // 4 for n in range(24)]
    shares = importance(known, SPACE, "loss")
    assert sum(shares.values()) == pytest.approx(1)
    assert [*shares][-1] == "build.hidden.units"  # which the function ignores


def test_a_failed_trial_is_neither_the_best_nor_in_its_way():
    table = trials_table([record(0, {}, None), record(1, {}, 0.5), record(2, {}, None)], small_search(), SPACE, "loss")
    assert table["best"].tolist()[1:] == [0.5, 0.5]
    assert math.isnan(table["best"][0])
    assert importance([record(0, {}, None)], SPACE, "loss") == {}


@pytest.mark.parametrize(
    "longer",
    [
        {"build": {"hidden": [100, 100]}},
        {"build": {"hidden": [50] * 5}},
        {"fit": {"epochs": 20, "batch_size": 32}},
        {"fit": {"epochs": 10, "batch_size": 16}},
    ],
)
def test_a_training_with_more_epochs_steps_or_weights_is_expected_to_take_longer(longer):
    recipe = {"build": {"hidden": [50, 50]}, "fit": {"epochs": 10, "batch_size": 32}}
    assert work(recipe) < work({**recipe, **longer})
    assert work({**recipe, "build": {"filters": [4]}}) > 0  # of a network without hidden layers
