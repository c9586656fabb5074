"""Spaces of params.yaml as distributions of Optuna, and Optuna's parameters as values of a recipe."""

import json
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from config.search import Choices, Interval, Space

Parameters = dict[str, Any]  # as Optuna has them: by name, numbers, text, bool or None
DIGITS = 3  # of a number that is no whole one
SCALARS = (str, bool, int, float, type(None))


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the distributions of a space by parameter, in a fixed order.

    A hyperparameter KEY of kind `layers` has two parameters, KEY.layers and KEY.units.
    """
    found: dict[str, BaseDistribution] = {}
    for key, varied in space.items():
        if isinstance(varied, Choices):
            found[key] = CategoricalDistribution([to_scalar(choice) for choice in varied.choices])
        elif isinstance(varied, Interval):
            found[key] = of_interval(varied)
        else:
            found[f"{key}.layers"] = of_interval(varied.layers)
            found[f"{key}.units"] = of_interval(varied.units)
    return found


def of_interval(interval: Interval) -> BaseDistribution:
    if interval.whole:
        return IntDistribution(int(interval.low), int(interval.high), log=interval.log, step=int(interval.step or 1))
    return FloatDistribution(float(interval.low), float(interval.high), log=interval.log, step=interval.step)


def values_of(space: Space, parameters: Parameters) -> dict[str, Any]:
    """Return the values of the hyperparameters, by dotted key, that parameters of Optuna stand for."""
    values: dict[str, Any] = {}
    for key, varied in space.items():
        if isinstance(varied, Choices):
            chosen = [to_scalar(choice) for choice in varied.choices].index(parameters[key])
            values[key] = varied.choices[chosen]
        elif isinstance(varied, Interval):
            values[key] = parameters[key] if varied.whole else rounded(varied, parameters[key])
        else:
            values[key] = [parameters[f"{key}.units"]] * parameters[f"{key}.layers"]
    return values


def rounded(interval: Interval, value: float) -> float:
    """Return a number with few digits, so that the recipe of a winner can be read, within its interval."""
    return float(min(max(float(f"{value:.{DIGITS}g}"), interval.low), interval.high))


def to_scalar(choice: Any) -> Any:
    """Return a choice as Optuna stores it: a list or mapping as JSON."""
    return choice if isinstance(choice, SCALARS) else json.dumps(choice, sort_keys=True)
