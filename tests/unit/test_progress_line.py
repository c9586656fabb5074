"""The progress line of a training: what the stage writes is what the run reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.progress_line import StepProgress, parse_progress

numbers = st.integers(1, 10**6)
details = st.lists(st.from_regex(r"[a-z_]+ -?[0-9a-z.+]+( [a-z%]+)?", fullmatch=True), min_size=1).map(tuple)


@given(
    st.builds(StepProgress, st.sampled_from(["epoch", "trial"]), numbers, numbers, details),
    st.sampled_from(["", "09:15:01.123 | INFO    | Task run - "]),
)
def test_a_line_is_read_as_it_was_written(progress, prefix):
    assert parse_progress(f"{prefix}{progress}") == progress


def test_a_line_is_written_for_a_person():
    progress = StepProgress("epoch", 3, 20, ("loss 0.1234", "val_loss 0.2345", "12 s left"))
    assert str(progress) == "epoch 3/20  loss 0.1234  val_loss 0.2345  12 s left"


@pytest.mark.parametrize("line", ["", "going on after epoch 3, from checkpoints/iris_mlp", "epoch 3", "epoch 3/20"])
def test_another_line_is_none(line):
    assert parse_progress(line) is None
