"""A sampler of Optuna: a Gaussian process and the expected improvement. Optuna's own needs PyTorch.

J. Snoek, H. Larochelle, R. P. Adams, "Practical Bayesian optimization of machine learning algorithms", NIPS 2012.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

CANDIDATES = 1000  # random points of which the best is proposed
NEAR = 0.1  # standard deviation, in the unit cube, of the candidates around the best trial


class GaussianProcessSampler(BaseSampler):
    """Proposes what improves most on the best trial, as a Gaussian process of the finished ones expects.

    The process has a Matérn 5/2 kernel with a length for each parameter, on parameters scaled to 0 to 1; a category is
    a column of 0 and 1 for each of its values. A pruned trial counts with its last value.
    """

    def __init__(self, seed: int, startup: int):
        self.random = RandomSampler(seed=seed)
        self.generator = np.random.default_rng(seed)
        self.seed, self.startup = seed, startup

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return intersection_search_space(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
        done = [known for known in done if known.value is not None and search_space.keys() <= known.params.keys()]
        if len(done) < max(2, self.startup) or not search_space:
            return {}
        sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
        values = np.array([sign * known.value for known in done])  # type: ignore[operator]
        points = np.array([encode(search_space, known.params) for known in done])
        # The trials of this round have no values yet: take the mean, so that the next proposal is elsewhere.
        running = [known.params for known in study.get_trials(deepcopy=False, states=[TrialState.RUNNING])]
        pending = [encode(search_space, params) for params in running if search_space.keys() <= params.keys()]
        choices = self.candidates(search_space, done[int(values.argmin())].params)
        encoded = np.array([encode(search_space, choice) for choice in choices])
        improvement = expected_improvement(points, values, np.array(pending), encoded, self.seed)
        return choices[int(improvement.argmax())]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self.random.sample_independent(study, trial, param_name, param_distribution)

    def candidates(self, space: Mapping[str, BaseDistribution], best: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return points of a space: half of them anywhere, half of them around the best trial."""
        found = []
        for number in range(CANDIDATES):
            point = {}
            for name, distribution in space.items():
                if isinstance(distribution, CategoricalDistribution):
                    stays = number % 2 and self.generator.random() < 1 - NEAR
                    point[name] = best[name] if stays else self.generator.choice(np.array(distribution.choices, object))
                    continue
                centre = to_unit(distribution, best[name])
                share = self.generator.normal(centre, NEAR) if number % 2 else self.generator.random()
                point[name] = from_unit(distribution, float(np.clip(share, 0, 1)))
            found.append(point)
        return found


def expected_improvement(
    points: np.ndarray, values: np.ndarray, pending: np.ndarray, candidates: np.ndarray, seed: int
) -> np.ndarray:
    """Return by how much each candidate is expected to fall below the smallest value.

    Args:
        points: [trials, columns], encoded.
        values: [trials], smaller is better.
        pending: [running trials, columns], whose values are not known yet.
        candidates: [candidates, columns].
        seed: of the restarts by which the kernel is fitted.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.ones(points.shape[1])
    kernel = ConstantKernel(1, (1e-2, 1e2)) * Matern(lengths, (5e-2, 1e2), nu=2.5) + WhiteKernel(1e-2, (1e-5, 1))
    scaled = (values - values.mean()) / (values.std() or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length at its bound
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=seed).fit(points, scaled)
        if len(pending):
            believed = process.predict(pending)
            process = GaussianProcessRegressor(process.kernel_, optimizer=None)
            process.fit(np.concatenate([points, pending]), np.concatenate([scaled, believed]))
        mean, deviation = process.predict(candidates, return_std=True)
    gain = scaled.min() - mean
    z = gain / np.maximum(deviation, 1e-9)
    return gain * norm.cdf(z) + deviation * norm.pdf(z)


def encode(space: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> list[float]:
    """Return parameters as numbers from 0 to 1; a category has a number for each of its values."""
    numbers: list[float] = []
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            numbers += [float(choice == params[name]) for choice in distribution.choices]
        else:
            numbers.append(to_unit(distribution, params[name]))
    return numbers


def bounds(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    return (np.log(low), np.log(high)) if distribution.log else (low, high)


def to_unit(distribution: BaseDistribution, value: float) -> float:
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = bounds(distribution)
    return ((np.log(value) if distribution.log else value) - low) / ((high - low) or 1)


def from_unit(distribution: BaseDistribution, share: float) -> Any:
    """Return the value at a share of the range, rounded as the distribution demands."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = bounds(distribution)
    value = low + share * (high - low)
    value = float(np.exp(value)) if distribution.log else value
    if distribution.step and not distribution.log:
        value = distribution.low + round((value - distribution.low) / distribution.step) * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return round(value) if isinstance(distribution, IntDistribution) else value
