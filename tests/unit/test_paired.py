"""Statistics of two models on the same rows: what chance alone does is no gain, and what is one is seen."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from config.gates import Gates
from tasks.promotion.gates import Answers, compare, comparison_rule, outcome_of
from tasks.promotion.paired import CHUNK, chunks, compare_accuracy, compare_rmse, holm, sign_flip_test, tango_bound

GATES = Gates(draws=1000)
OWN = GATES.of("any")


def outcome(
    answers: Answers, is_classes: bool, parts: dict[str, np.ndarray] | None = None, gates: Gates = GATES
) -> str:
    comparisons = compare(answers, parts or {}, is_classes, gates, gates.of("any"), seed=0)
    rules = [comparison_rule(found, "accuracy" if is_classes else "rmse", gates) for found in comparisons]
    return outcome_of(comparisons, rules, gates)


def classes(rng: np.random.Generator, rows: int, gained: float, lost: float) -> Answers:
    """Return answers of which shares are right by the candidate alone and by the champion alone; 80 % by both."""
    truth = rng.integers(0, 10, rows)
    kind = rng.choice(4, rows, p=[gained, lost, 0.8, 0.2 - gained - lost])
    wrong = (truth + 1) % 10
    return Answers(
        truth, np.where((kind == 0) | (kind == 2), truth, wrong), np.where(np.isin(kind, (1, 2)), truth, wrong)
    )


def quantities(rng: np.random.Generator, rows: int, worse: float = 0.0) -> Answers:
    """Return answers of two models with errors of a heavy tail in common, and noise of their own."""
    common = rng.standard_t(4, rows) * 0.35
    noise = 0.1 * rng.normal(size=(2, rows))
    return Answers(np.zeros(rows), (common + noise[0]) * (1 + worse), common + noise[1])


def most_of(nights: int) -> float:
    """Return how many of some nights an event of chance 1/20 may fill, with a probability of 0.999."""
    return stats.binom.ppf(0.999, nights, 0.05)


@st.composite
def any_answers(draw):
    rows, is_classes = draw(st.integers(1, 200)), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if is_classes:
        return Answers(*rng.integers(0, draw(st.integers(2, 5)), (3, rows))), True
    scale = draw(st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
    return Answers(*(scale * rng.normal(size=(3, rows)))), False


@given(any_answers())
def test_a_model_is_neither_better_than_itself_nor_worse(given):
    answers, is_classes = given
    same = Answers(answers.truth, answers.champion, answers.champion)
    assert outcome(same, is_classes) == "no measurable change"


@given(any_answers())
def test_what_is_better_one_way_is_worse_the_other_way(given):
    answers, is_classes = given
    swapped = Answers(answers.truth, answers.champion, answers.candidate)
    [there], [back] = (compare(found, {}, is_classes, GATES, OWN, seed=1) for found in (answers, swapped))
    assert (there.better, there.worse) == (back.worse, back.better)
    assert np.sign(there.gain) == -np.sign(back.gain)
    assert there.low <= there.gain <= there.high


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200))
def test_the_interval_of_an_accuracy_holds_its_gain_and_stays_within_its_limits(gained, lost, further):
    rows = max(1, gained + lost + further)
    low, high = tango_bound(gained, lost, rows, 0.95), -tango_bound(lost, gained, rows, 0.95)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1
    assert tango_bound(gained, lost, rows, 0.99) <= low


@pytest.mark.parametrize(("gained", "lost", "rows"), [(12, 2, 50), (0, 6, 28), (3, 3, 300), (43, 1, 44)])
def test_the_interval_ends_where_the_score_test_of_that_gain_is_at_its_limit(gained, lost, rows):
    bound = tango_bound(gained, lost, rows, 0.95)

    def unlikely(share: float) -> float:  # of the rows that are lost, if the gain is `bound`
        kinds = (gained, lost, rows - gained - lost)
        return -stats.multinomial.logpmf(kinds, rows, (share + bound, share, 1 - 2 * share - bound))

    limits = (max(0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9)
    share = optimize.minimize_scalar(unlikely, bounds=limits, method="bounded", options={"xatol": 1e-10}).x
    score = (gained - lost - rows * bound) / np.sqrt(rows * (2 * share + bound - bound**2))
    assert score == pytest.approx(stats.norm.ppf(0.975), abs=1e-3)


@pytest.mark.parametrize(("rows", "differ", "gain"), [(28, 0.2, 0.0), (300, 0.08, 0.0), (5000, 0.08, 0.01)])
def test_the_interval_of_an_accuracy_holds_the_truth_as_often_as_it_says(rows, differ, gain):
    rng = np.random.default_rng(0)
    kinds = rng.multinomial(rows, [(differ + gain) / 2, (differ - gain) / 2, 1 - differ], 600)
    held = [
        tango_bound(int(gained), int(lost), rows, 0.95) <= gain <= -tango_bound(int(lost), int(gained), rows, 0.95)
        for gained, lost, _ in kinds
    ]
    assert 0.92 <= np.mean(held) <= 0.99


def test_an_accuracy_is_compared_by_the_rows_in_which_the_models_differ():
    right = np.zeros(100, bool)
    candidate, champion = right.copy(), right.copy()
    candidate[:12], champion[12:14] = True, True
    found = compare_accuracy(candidate, champion, 0.95)
    assert found.gain == pytest.approx(0.1)
    assert found.better == pytest.approx(stats.binomtest(12, 14, alternative="greater").pvalue)


def test_an_equal_classifier_that_differs_in_eight_percent_of_the_rows_passes_nineteen_nights_of_twenty():
    rng, nights = np.random.default_rng(0), 300
    outcomes = [outcome(classes(rng, 5000, 0.04, 0.04), True) for _ in range(nights)]
    assert outcomes.count("regression") <= most_of(nights)
    assert outcomes.count("better") <= most_of(nights)


def test_an_equal_classifier_passes_its_classes_together_as_often():
    rng, nights, blocked = np.random.default_rng(1), 150, 0
    for _ in range(nights):
        answers = classes(rng, 5000, 0.04, 0.04)
        parts = {f"class {number}": answers.truth == number for number in range(10)}
        blocked += outcome(answers, True, parts) == "regression"
    assert blocked <= most_of(nights)


def test_an_equal_regression_passes_its_slices_together_nineteen_nights_of_twenty():
    rng, nights, blocked = np.random.default_rng(2), 60, 0
    for _ in range(nights):
        answers = quantities(rng, 600)
        order = rng.random((3, 600))
        parts = {f"{column} {k}": (order[column] * 4).astype(int) == k for column in range(3) for k in range(4)}
        blocked += outcome(answers, False, parts) == "regression"
    assert blocked <= most_of(nights)


@pytest.mark.parametrize("lost", [0.065, 0.08])
def test_a_classifier_that_loses_points_is_a_regression(lost):
    rng = np.random.default_rng(3)
    assert all(outcome(classes(rng, 5000, 0.04, lost), True) == "regression" for _ in range(30))


def test_a_regression_that_is_a_twentieth_worse_is_one():
    rng = np.random.default_rng(4)
    assert all(outcome(quantities(rng, 4000, worse=0.05), False) == "regression" for _ in range(10))
    assert all(outcome(quantities(rng, 4000, worse=-0.05), False) == "better" for _ in range(10))


def test_a_loss_within_the_margin_does_not_block():
    rng = np.random.default_rng(5)
    gates = Gates(margin=0.05, draws=1000)
    assert outcome(quantities(rng, 20_000, worse=0.02), False, gates=gates) == "worse within noise"
    assert outcome(quantities(rng, 20_000, worse=0.02), False) == "regression"


def test_one_class_that_got_much_worse_is_a_regression_of_a_model_that_is_better_as_a_whole():
    rng = np.random.default_rng(6)
    answers = classes(rng, 5000, 0.06, 0.03)
    hurt = (answers.truth == 3) & (rng.random(5000) < 0.3)
    answers = Answers(answers.truth, np.where(hurt, 4, answers.candidate), answers.champion)
    parts = {f"class {number}": answers.truth == number for number in range(10)}
    comparisons = compare(answers, parts, True, GATES, OWN, seed=0)
    rules = {found.name: comparison_rule(found, "accuracy", GATES) for found in comparisons}
    assert [name for name, rule in rules.items() if not rule.passed] == ["class 3"]
    assert outcome_of(comparisons, list(rules.values()), GATES) == "regression"


def test_one_slice_of_a_hundred_that_got_much_worse_is_caught_with_few_draws():
    answers = quantities(np.random.default_rng(8), 10_000)
    part = np.arange(10_000) // 100
    answers = Answers(answers.truth, answers.candidate + (part == 7), answers.champion)
    parts = {f"slice {number}": part == number for number in range(100)}
    gates = Gates(margin=0.05, draws=1000)
    comparisons = compare(answers, parts, False, gates, gates.of("any"), seed=0)
    assert [found.name for found in comparisons if not comparison_rule(found, "rmse", gates).passed] == ["slice 7"]


@given(st.integers(1, 12), st.integers(0, 1000))
def test_the_p_value_of_few_rows_is_that_of_all_their_signs(rows, seed):
    differences = np.random.default_rng(seed).normal(size=rows)
    signs = np.array(list(itertools.product([-1, 1], repeat=rows)))
    exact = np.mean(signs @ differences >= differences.sum() - 1e-9)
    [found], _ = sign_flip_test(differences, np.ones((rows, 1)), 5000, seed)
    assert found == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_a_handful_of_rows_never_blocks_a_candidate(rows):
    errors = np.full(rows, 1.0)
    assert outcome(Answers(np.zeros(rows), 100 * errors, errors), False) == "worse within noise"
    assert outcome(Answers(np.zeros(rows, int), np.ones(rows, int), np.zeros(rows, int)), True) == "worse within noise"


@pytest.mark.parametrize(("lost", "expected"), [(5, "worse within noise"), (6, "regression")])
def test_of_28_rows_six_that_are_lost_block_a_candidate(lost, expected):
    wrong = np.arange(28) < lost
    assert outcome(Answers(np.zeros(28, int), wrong.astype(int), np.zeros(28, int)), True) == expected


def test_a_champion_without_any_error_can_be_compared_with():
    perfect, poor = np.zeros(200), np.full(200, 0.1)
    [worse] = compare_rmse(poor, perfect, [np.ones(200, bool)], 0.95, 1000, 0)
    [better] = compare_rmse(perfect, poor, [np.ones(200, bool)], 0.95, 1000, 0)
    assert (worse.gain, better.gain) == (-1000, 1)
    assert worse.worse < 0.01
    assert better.better < 0.01


def test_a_comparison_is_the_same_again():
    answers = quantities(np.random.default_rng(7), 500)
    parts = {"some": np.arange(500) < 200}
    assert compare(answers, parts, False, GATES, OWN, 3) == compare(answers, parts, False, GATES, OWN, 3)
    assert compare(answers, parts, False, GATES, OWN, 3) != compare(answers, parts, False, GATES, OWN, 4)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_corrected_p_values_keep_their_order_and_are_no_smaller(values):
    corrected = holm(values)
    assert all(value <= after <= 1 for value, after in zip(values, corrected, strict=True))
    assert [corrected[number] for number in np.argsort(values, kind="stable")] == sorted(corrected)


def test_the_correction_is_the_published_one():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(st.integers(1, 2 * CHUNK), st.integers(1, 50))
def test_the_draws_of_all_chunks_are_those_asked_for(rows, draws):
    sizes = list(chunks(rows, draws))
    assert sum(sizes) == draws
    assert all(size * rows <= CHUNK or size == 1 for size in sizes)
