"""The section `gates` of `params.yaml`: what a candidate must keep to replace the champion.

A data set without an entry has the defaults of `Gates`. No stage of dvc.yaml depends on this section: another gate
trains nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError

from config.section import Section

MAX_DRAWS = 100_000
MAX_SECONDS = 86_400
MAX_TRIES = 10
# Of the metrics that a threshold can be set on, those of which less is better.
ERRORS = ("rmse", "mae")
# By task: the main metric, then the others.
GATED_METRICS = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("accuracy", "f1_macro"),
    "multiclass": ("accuracy", "f1_macro"),
}


def parse_size(value: Any) -> Any:
    """Turn a size such as "10 MB" into bytes."""
    try:
        size = int(TypeAdapter(ByteSize).validate_python(value)) if len(str(value)) <= 40 else 0
    except ValidationError:
        size = 0
    if isinstance(value, bool) or size <= 0:
        raise ValueError("expected a size such as 10 MB")
    return size


# Of accuracy: 0.01 is a point of a hundred. Of RMSE: the share by which it may exceed the champion's.
Margin = Annotated[float, Field(gt=0, lt=1)]
Size = Annotated[int, BeforeValidator(parse_size)]
Milliseconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Growth = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS)]
Threshold = Annotated[float, Field(allow_inf_nan=False)]


class SizeLimit(Section):
    """The bytes of a SavedModel: at most `most`, and at most `growth` times the champion's where above `small`."""

    most: Size = 2 * 10**9
    growth: Growth = 2
    small: Size = 10 * 10**6


class LatencyLimit(Section):
    """The milliseconds in which a loaded model answers one row: limited as the size is."""

    most: Milliseconds = 1000
    growth: Growth = 2
    small: Milliseconds = 50


class LoadLimit(Section):
    """How long a SavedModel may take in a clean process.

    seconds: to start the process, load the model and answer one row. scoring: to answer all rows after that.
    tries: a process that takes longer or is killed is started again; wrong answers are not tried twice.
    """

    seconds: Seconds = 300
    scoring: Seconds = 1800
    tries: Annotated[int, Field(gt=0, le=MAX_TRIES)] = 2


class ModelGates(Section):
    """What differs for one model; None: as for its data set. absolute: the worst metrics on valid that pass."""

    margin: Margin | None = None
    slice_margin: Margin | None = None
    absolute: dict[str, Threshold] = Field(default={})


class Gates(Section):
    """The gates of one data set's models, and of its batches.

    drift: of a batch against train: only tell it, or also keep the batch from training.
    margin: by which a candidate may be worse than the champion. slice_margin: likewise in a class or slice.
    slice_rows: classes and slices with fewer rows are not compared.
    confidence: of the intervals; see `tasks.promotion.gates`. draws: of the random tests.
    """

    drift: Literal["warn", "block"] = "warn"
    margin: Margin = 0.01
    slice_margin: Margin = 0.05
    slice_rows: Annotated[int, Field(ge=10)] = 100
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    draws: Annotated[int, Field(ge=1000, le=MAX_DRAWS)] = 5000
    size: SizeLimit = SizeLimit()
    latency: LatencyLimit = LatencyLimit()
    load: LoadLimit = LoadLimit()
    models: dict[str, ModelGates] = Field(default={})

    def of(self, model: str) -> ModelGates:
        """Return the margins and thresholds of `model`; no margin is None."""
        own = self.models.get(model, ModelGates())
        margins = {"margin": own.margin or self.margin, "slice_margin": own.slice_margin or self.slice_margin}
        return own.model_copy(update=margins)
