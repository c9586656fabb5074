"""Spaces of params.yaml: what is refused, and what their values are."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from config.params import load_params
from config.search import Interval, Search, Space
from runtime.errors import UserError
from tasks.search.space import distributions, rounded, values_of
from tests.support.workspaces import ROOT, edit_params

SPACE = TypeAdapter(Space)
whole = st.integers(1, 300)
numbers = st.floats(1e-6, 1e3)


@st.composite
def intervals(draw, values):
    low, high = sorted((draw(values), draw(values)))
    return {"low": low, "high": high, "log": draw(st.booleans())}


kinds = st.one_of(
    intervals(whole),
    intervals(numbers),
    st.fixed_dictionaries({"layers": intervals(st.integers(1, 8)), "units": intervals(whole)}),
    st.fixed_dictionaries({"choices": st.lists(st.sampled_from(["a", 1, 0.5, True, None]), min_size=1, max_size=1)}),
    st.just({"choices": [[50, 50], {"filters": 3}, [10]]}),
)


@given(
    st.dictionaries(st.sampled_from(["build.hidden", "compile.rate", "fit.a.b", "preparation.tail"]), kinds),
    st.integers(0, 99),
)
def test_every_value_that_optuna_draws_lies_in_the_space(given_space, seed):
    space = SPACE.validate_python(given_space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    values = values_of(space, study.ask(distributions(space)).params)
    assert values.keys() == space.keys()
    for key, value in values.items():
        given_kind = given_space[key]
        if "choices" in given_kind:
            assert value in given_kind["choices"]
        elif "layers" in given_kind:
            assert given_kind["layers"]["low"] <= len(value) <= given_kind["layers"]["high"]
            assert all(given_kind["units"]["low"] <= units <= given_kind["units"]["high"] for units in value)
        else:
            assert given_kind["low"] <= value <= given_kind["high"]


@given(numbers, numbers, numbers)
def test_a_number_is_rounded_within_its_interval(low, high, value):
    low, value, high = sorted((low, value, high))
    found = rounded(Interval(low=low, high=high), value)
    assert low <= found <= high
    assert found == pytest.approx(value, rel=5e-3)


def notes(**keys: object) -> dict:
    return {"search_spaces__notes": {key.replace("__", "."): value for key, value in keys.items()}}


def extra(**keys: object) -> dict:
    """Return another space that the search varies, too."""
    space = {key.replace("__", "."): value for key, value in keys.items()}
    return {"search_spaces__extra": space, "search__housing_mlp__spaces": ["notes", "training", "extra"]}


def own(**values: object) -> dict:
    return {f"search__housing_mlp__{key}": value for key, value in values.items()}


FAULTS = {
    "an unknown key": (notes(compil__rate={"low": 1, "high": 2}), "'compil.rate' is no hyperparameter"),
    "an argument that the family lacks": (extra(build__hiden={"choices": [1]}), "Did you mean 'hidden'?"),
    "a value out of range": (
        extra(compile__average={"low": 0.5, "high": 1.5}),
        "compile.average: Input should be less",
    ),
    "a choice that does not exist": (extra(compile__schedule={"choices": ["cosine", "line"]}), "compile.schedule"),
    "bounds the wrong way": (notes(fit__epochs={"low": 5, "high": 2}), "low, 5, is above high, 2"),
    "a logarithm of zero": (notes(fit__epochs={"low": 0, "high": 2, "log": True}), "low is greater than 0"),
    "a choice twice": (notes(fit__epochs={"choices": [1, 1]}), "names 1 twice"),
    "two spaces with a key": (own(spaces=["notes", "notes"]), "two of them vary build.hidden"),
    "an unknown space": (own(spaces=["note"]), "unknown space 'note'. Did you mean 'notes'?"),
    "an objective of another task": (own(objective="accuracy"), "unknown objective 'accuracy'"),
    "more finalists than trials": (own(trials=2, finalists=3), "3 finalists of 2 trials"),
    "a recipe that lacks a value": (own(spaces=["notes"], fit={"epochs": 3}), "fit.batch_size: Field required"),
    "a preparation that does not exist": (extra(preparation__normalization={"choices": ["a"]}), "normalization"),
    "a seed twice": (own(seeds=[1, 1]), "names one twice"),
    "an unknown sampler": (own(sampler="tpee"), "search.housing_mlp.sampler"),
    "a reference that the notes lack": (own(reference="housing"), "unknown reference 'housing'"),
    "another data set": (own(dataset="iris"), "search.housing_mlp.dataset is 'iris'"),
}


@pytest.mark.parametrize(("values", "told"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_search_is_refused_in_words(workspace, values, told):
    edit_params(workspace, search={"housing_mlp": searched()})
    edit_params(workspace, **values)
    with pytest.raises(UserError) as error:
        load_params()
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def searched() -> dict:
    return load_params(ROOT / "params.yaml").search["housing_mlp_tuned"].model_dump(mode="json", exclude_none=True)


def test_values_are_put_into_the_recipe_and_the_rest_stays():
    search = Search(dataset="d", family="mlp", spaces=["s"], trials=1, finalists=1, fit={"epochs": 3}, build={"a": [1]})
    values = {"fit.early_stopping.patience": 4, "build.b": 2, "preparation.tail": 0.1}
    assert search.recipe(values) == {
        "build": {"a": [1], "b": 2},
        "compile": {},
        "fit": {"epochs": 3, "early_stopping": {"patience": 4}},
    }
    assert search.fit == {"epochs": 3}
