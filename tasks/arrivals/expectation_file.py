"""data/expectations/D.yaml: what a batch of new rows must be like. Inferred once from train, reviewed, kept in git."""

import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from config import paths
from config.params import Section, fault_lines, parse_values
from datasets.dataset import SPLIT_COLUMN, Dataset
from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.data.contracts import Number, Source

LINE = 120  # characters of a line of the file
LEAST_WHOLE = 1000  # train rows without a fraction: with fewer, such as six points of a line, it may be chance


def ascending(values: list[float]) -> list[float]:
    if values != sorted(values):
        raise ValueError("the numbers must ascend")
    return values


Range = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(ascending)]
Quartiles = Annotated[list[Number], Field(min_length=3, max_length=3), AfterValidator(ascending)]
Share = Annotated[Number, Field(ge=0, le=1)]


class Spread(Section):
    """How numbers are spread. range: that each must lie in. quartiles: of the train rows."""

    range: Range
    quartiles: Quartiles


class Numbers(Spread):
    """A column of numbers. type: that of Arrow. whole: whether each is a whole number, though the type has others."""

    holds: Literal["numbers"] = "numbers"
    type: str
    whole: bool = False


class Classes(Section):
    """A column of classes. classes: their shares of the train rows, by name, in the order of their numbers."""

    holds: Literal["classes"] = "classes"
    type: str
    classes: dict[str, Share]


class Pictures(Section):
    """A column of pictures. type: of a pixel. The rest describes numbers of `tasks.arrivals.pictures.summarise`."""

    holds: Literal["pictures"] = "pictures"
    type: str
    shape: list[PositiveInt]
    mean: Spread
    brightest: Spread
    dark: Spread


class Text(Section):
    """A column of anything else, of which only the type is checked."""

    holds: Literal["text"] = "text"
    type: str


Column = Annotated[Numbers | Classes | Pictures | Text, Field(discriminator="holds")]


class Rows(Section):
    """How many rows a batch may have."""

    least: PositiveInt
    most: PositiveInt


class Repeats(Section):
    """The greatest share of a batch's rows that repeat another one: of the batch itself, or an earlier one."""

    within: Share
    earlier: Share


class Tolerance(Section):
    """By how much a batch may differ from train beyond what chance explains; see `tasks.arrivals.expectations`."""

    factor: Annotated[Number, Field(ge=1)]
    spreads: Annotated[Number, Field(ge=0)]
    width: Annotated[Number, Field(ge=1)]
    shares: Share


class Expectations(Section):
    """The whole file. train_rows: how many it was inferred from, which bounds how well train is known."""

    dataset: str
    source: Source
    train_rows: PositiveInt
    rows: Rows
    repeats: Repeats
    tolerance: Tolerance
    columns: dict[str, Column]


HEAD = """\
What a batch of new rows of {dataset} must be like to be accepted.
Inferred from {rows:,} {source} train rows by `python -m flows.expectations {dataset}`.
To be reviewed and edited: train shows only what it happened to hold. `--force` infers it anew and discards the edits.

range      each value lies in it. Inferred: train's extremes, moved away from the median by {slack} of their distance
           to it; by factors where all values of a column have one sign.
quartiles  of train. A batch in other units has another median: it may be off by `tolerance.factor` or by
           `tolerance.spreads` standard deviations (interquartile range / 1.349), whichever is more, plus chance.
           Its interquartile range may be `tolerance.width` times train's, plus chance.
whole      true: each value is a whole number. Inferred where all of {least_whole:,} train rows or more have one.
classes    their shares of train. The share of rows that another class has may be `tolerance.shares`, plus chance.
repeats    the greatest share of rows that equal another row of the batch, or an earlier row of the data set.
No value may be missing."""


def to_text(expectations: Expectations, slack: float) -> str:
    """Return the YAML of expectations, with comments for those who review it.

    slack: with which the ranges were inferred, a share.
    """
    values = expectations.model_dump(mode="python")
    root = CommentedMap(values)
    for name in ("rows", "repeats", "tolerance"):
        root[name] = in_one_line(values[name])
    root["columns"] = CommentedMap({name: written(column) for name, column in values["columns"].items()})
    head = HEAD.format(
        dataset=expectations.dataset,
        rows=expectations.train_rows,
        source=expectations.source,
        slack=f"{100 * slack:.0f} %",
        least_whole=LEAST_WHOLE,
    )
    root.yaml_set_start_comment(head)
    stream = io.StringIO()
    yaml = YAML()
    yaml.width = LINE
    yaml.dump(root, stream)
    return "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())


def written(column: dict[str, Any]) -> CommentedMap:
    """Return a column for ruamel: in one line, unless its parts have parts."""
    ordered = {"holds": column["holds"], "type": column["type"], **column}
    if not ordered.get("whole"):
        ordered.pop("whole", None)
    if not any(isinstance(part, dict) for part in column.values()):
        return in_one_line(ordered)
    return CommentedMap({key: in_one_line(part) for key, part in ordered.items()})


def in_one_line(value: Any) -> Any:
    """Return a dictionary or list for ruamel, to be written in braces or brackets; 52.0 is written as 52."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        flow = CommentedMap({key: in_one_line(part) for key, part in value.items()})
    elif isinstance(value, list):
        flow = CommentedSeq([in_one_line(part) for part in value])
    else:
        return value
    flow.fa.set_flow_style()
    return flow


def read_file(dataset: Dataset) -> Expectations | None:
    """Return what data/expectations/D.yaml says; None where there is no such file.

    Raises UserError where it cannot be read, or is not about the columns and classes of the data set.
    """
    path = paths.expectations_file(dataset.name)
    refuse_unless_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    values = parse_values(text, path)
    try:
        expectations = Expectations.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(fault_lines(path, error))) from None
    refuse_others(path, dataset, expectations)
    return expectations


def refuse_others(path: Path, dataset: Dataset, expectations: Expectations) -> None:
    """Raise UserError where expectations are not about this data set.

    Args:
        path: the file that they stand in.
        dataset: whose rows they should be about.
        expectations: what the file says.
    """
    remedy = f"Mend it there, or run `python -m flows.expectations {dataset.name} --force`."
    if expectations.dataset != dataset.name:
        raise UserError(f"{path}: dataset is {expectations.dataset!r}, expected {dataset.name!r}. {remedy}")
    wanted, found = checked_columns(dataset), list(expectations.columns)
    if sorted(found) != sorted(wanted):
        raise UserError(
            f"{path}: columns are {', '.join(found)}; datasets/{dataset.name}.py has {', '.join(wanted)}. {remedy}"
        )
    target = expectations.columns[dataset.target]
    names = list(target.classes) if isinstance(target, Classes) else []
    if names != list(dataset.class_names or []):
        raise UserError(
            f"{path}: columns.{dataset.target}.classes are {', '.join(names) or 'none'}; "
            f"datasets/{dataset.name}.py has {', '.join(dataset.class_names or []) or 'none'}. {remedy}"
        )


def checked_columns(dataset: Dataset) -> list[str]:
    """Return the raw columns that expectations are about: all but that of the source's own splits."""
    return [name for name in dataset.schema.names if name != SPLIT_COLUMN]
