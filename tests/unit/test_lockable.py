"""What params.yaml may hold comes back from dvc.lock as it was; what would not is refused before a stage runs."""

import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from config.lockable import MAX_DEPTH, refuse_unwritable
from config.params import load_params
from orchestration.dvc.lockfile import difference
from runtime.errors import UserError
from tests.support.workspaces import ROOT, put_in

# Much of what YAML has a meaning for, lengths around those at which lines are broken, and anything else.
ODD = st.sampled_from(
    [
        *("yes", "no", "on", "null", "~", "1e5", "0o7", "1_0", "12:30", "2020-01-01", ".inf", ".nan", "-", "?", "- a"),
        *("? a", ": ", "a: b", "a #b", "#", "&a", "*a", "!a", "%a", "@a", "`a", "{", "[", '"', "'", "|", ">", "\ufeff"),
        *("1", "0x1f", "=", "<<", "---", "...", "true", "", " ", "\\", "0b1", "a\tb", "a\nb\n", "\r", "\x85", "\u2028"),
    ]
)
PIECES = st.text(st.sampled_from("abz '\"\\:#-\xe9\U0001f600{,"), min_size=1, max_size=20)
TEXTS = ODD | st.lists(PIECES, max_size=8).map(" ".join) | st.text()
SCALARS = TEXTS | st.none() | st.booleans() | st.integers() | st.floats()
KEYS = TEXTS | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def in_lock(section: str, values: object) -> dict:
    return {"schema": "2.0", "stages": {"train@a_model": {"params": {"params.yaml": {section: values}}}}}


def deep(values: object, levels: int) -> object:
    return deep({"a": values}, levels - 1) if levels else values


@example(values={0: {"0" * 57 + " 0": []}}, levels=4)
@given(values=st.dictionaries(KEYS, VALUES, max_size=3), levels=st.integers(0, MAX_DEPTH))
def test_whatever_is_not_refused_comes_back_from_what_dvc_writes(values, levels):
    models = {"models": {"a_model": deep(values, levels)}}
    try:
        refuse_unwritable(models)
    except ValueError:
        return
    for lock in (in_lock("models.a_model", models["models"]["a_model"]), in_lock("models", models["models"])):
        text = dumps_yaml(lock)
        for kind in ("safe", "rt"):  # for reading, and for changing a part of it
            assert difference(lock, loads_yaml(text, typ=kind), "") is None


@pytest.mark.parametrize("length", [70, 90, 118])
def test_a_label_that_dvc_would_break_is_refused_with_its_name(workspace, length):
    label = ("petals of a long name " * 10)[:length].strip()
    put_in(workspace, "petals 2 x 0.5 cm:", f"{label}:")
    with pytest.raises(UserError, match=rf"params\.yaml: models\.iris_perceptron\.probes: the key '{label[:50]}"):
        load_params()


LONG = "a key of some length with spaces in it that is longer than a line of dvc.lock"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{hidden: [10],", "{hidden: [.inf],", r"models\.iris_mlp\.build\.hidden\.0: expected a finite number"),
        ("{hidden: [10],", "{hidden: 2020-01-01,", r"models\.iris_mlp\.build\.hidden: expected a text"),
        ("activation: softmax", 'activation: "\\x85"', r"models\.iris_mlp\.build\.output_activation: DVC cannot"),
        (
            "batch_size: 8}",
            f"batch_size: 8, class_weight: {{{LONG}: 2}}}}",
            r"models\.iris_mlp\.fit\.class_weight: the key",
        ),
        ("{random_state: 42}", f"{{{LONG}: 42}}", r"baselines\.sklearn_perceptron\.arguments: the key"),
        ("{random_state: 42}", "{? [1, 2] : 42}", r"baselines\.sklearn_perceptron\.arguments: the key"),
        ("probes: {f(10): 18", f"probes: {{{LONG}: 18", r"notes\.linear_neuron\.probes: the key"),
    ],
)
def test_every_free_key_and_value_is_looked_at(workspace, old, new, told):
    put_in(workspace, old, new)
    with pytest.raises(UserError, match=rf"params\.yaml: {told}"):
        load_params()


def test_the_labels_of_this_project_are_kept():
    assert load_params(ROOT / "params.yaml").models["iris_perceptron"].probes


def test_an_alias_of_itself_is_one_message(workspace):
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text + "\nextra: &a {b: *a}\n")
    with pytest.raises(UserError, match=r"the alias \*a refers to what it is in") as told:
        load_params()
    assert len(str(told.value)) < 500
