"""Charts: Vega-Lite specifications, each drawn as SVG, and kept beside it for the page's script.

The SVG needs no script, prints, and follows the page's colours, which are CSS variables; its `description` is the text
alternative. Where the script runs, a chart that is pointed at is drawn again from its specification and tells values.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import altair as alt
import pandas as pd
import vl_convert
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from runtime.process_pool import process_pool

WIDTH, HEIGHT = 400, 220
SMALL_WIDTH, SMALL_HEIGHT = 220, 120
INK, FAINT, TRAIN, VALID, TEST = "var(--ink)", "var(--faint)", "var(--train)", "var(--valid)", "var(--test)"
SPLITS = alt.Scale(domain=["train", "valid", "test"], range=[TRAIN, VALID, TEST])
BINS = 40
FEW = 200  # rows that are drawn one by one
MOST_PROCESSES = 4  # that draw; there is not enough to draw for more
UNSEEN = {"size": 60, "opacity": 0}  # a point of a line, which tells its values all the same

_drawing: ContextVar[Executor] = ContextVar("drawing")


@dataclass(frozen=True)
class Figure:
    """A chart of a page.

    drawn: its SVG. told: its text alternative. title: of a small one, without axis titles. zooms: because a part of it
    shows more than the whole.
    """

    specification: dict
    drawn: Future[str]
    told: str
    title: str
    zooms: bool

    def __html__(self) -> str:
        kept = json.dumps(self.specification, separators=(",", ":")).replace("<", "\\u003c")  # no tag within a script
        caption = Markup("<figcaption>{}</figcaption>").format(self.title) if self.title else ""
        drawn = self.drawn.result().replace("<svg ", '<svg aria-hidden="true" ', 1)  # its frame has the text
        picture = Markup('<div class="picture" role="img" tabindex="0" aria-label="{}">{}</div>').format(
            self.told, Markup(drawn)
        )
        zooms = Markup(" data-zooms") if self.zooms else ""
        return Markup('<figure class="chart"{}>{}{}<script type="application/json">{}</script></figure>').format(
            zooms, caption, picture, Markup(kept)
        )


@contextmanager
def drawn_beside() -> Iterator[Executor]:
    """Draw the figures that the block makes in processes beside it, for a conversion lets no other thread go on."""
    # What Altair looks at otherwise, chart by chart, is of our own making.
    with process_pool(MOST_PROCESSES) as processes, debug_mode(False):
        token = _drawing.set(processes)
        try:
            yield processes
        finally:
            _drawing.reset(token)


def figure(
    chart: alt.Chart | alt.LayerChart, width: int = WIDTH, height: int = HEIGHT, title: str = "", zooms: bool = False
) -> Figure:
    """Return the chart as a figure of the page, which is being drawn; see `Figure` and `drawn_beside`."""
    styled = (
        chart.properties(width=width, height=height, background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor=FAINT,
            domainColor=FAINT,
            tickColor=FAINT,
            labelFontSize=11,
            titleFontSize=12,
            titleFontWeight="normal",
            tickCount=6,
        )
        .configure_legend(labelColor=INK, titleColor=INK, orient="top", title=None, labelFontSize=12)
    )
    with alt.data_transformers.disable_max_rows():  # the limit is for charts that carry their data
        specification = styled.to_dict(validate=False)
    told = next(filter(None, (part.get("description") for part in [specification, *specification.get("layer", [])])))
    drawn = _drawing.get().submit(vl_convert.vegalite_to_svg, still(specification))
    return Figure(specification, drawn, told, title, zooms)


def still(specification: dict) -> dict:
    """Leave out what a picture has no use for, and what most of it would be: points that are not seen, and a text for
    each mark, as the whole has one.
    """

    def seen(part: dict) -> dict:
        mark = {key: value for key, value in part["mark"].items() if (key, value) != ("point", UNSEEN)}
        return {**part, "mark": mark}

    plain = {**specification, "config": {**specification["config"], "aria": False}}
    return {**plain, "layer": [seen(part) for part in plain["layer"]]} if "layer" in plain else seen(plain)


def learning_curves(history: pd.DataFrame, column: str) -> Figure:
    """Draw `column` on train and valid after each epoch. history: columns epoch, column, val_column."""
    curves = history.rename(columns={column: "train", f"val_{column}": "valid"})
    curves = curves.melt("epoch", ["train", "valid"], var_name="split", value_name="value").dropna()
    last = history.iloc[-1]
    chart = (
        alt.Chart(
            curves,
            description=f"{column} by epoch; after {len(history)} epochs {last[column]:.4g} on train and "
            f"{last[f'val_{column}']:.4g} on valid",
        )
        .mark_line(strokeWidth=2, point={"size": 16} if len(history) <= 60 else UNSEEN)
        .encode(
            alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
            alt.Y("value:Q", title=column, scale=scale_of(curves["value"])),
            alt.Color("split:N", scale=alt.Scale(domain=["train", "valid"], range=[TRAIN, VALID])),
            tooltip=[
                alt.Tooltip("split:N"),
                alt.Tooltip("epoch:Q"),
                alt.Tooltip("value:Q", title=column, format=".5g"),
            ],
        )
    )
    return figure(chart, zooms=True)


def lecture_recipe_curves(history: pd.DataFrame, column: str, settled: int) -> Figure:
    """Draw `column` on valid by epoch, a line a seed, coloured by preparation.

    history: columns normalization, seed, epoch, val_column. settled: the epochs after which the highest counts.
    """
    kinds = list(history["normalization"].unique())
    values = history.rename(columns={f"val_{column}": "value"})[["normalization", "seed", "epoch", "value"]]
    highest = values[values["epoch"] > settled].groupby("normalization")["value"].max()
    told = ", ".join(f"{highest[kind]:.3g} with {kind}" for kind in kinds if kind in highest) or "none"
    chart = (
        alt.Chart(
            values,
            description=f"{column} on valid by epoch for each seed; highest after epoch {settled}: {told}",
        )
        .mark_line(strokeWidth=1.5, opacity=0.75, point={"size": 10} if len(values) <= 400 else UNSEEN)
        .encode(
            alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
            alt.Y("value:Q", title=f"{column} on valid", scale=alt.Scale(zero=False)),
            alt.Color("normalization:N", scale=alt.Scale(domain=kinds, range=[VALID, TRAIN][: len(kinds)])),
            alt.Detail("seed:N"),
            tooltip=[
                alt.Tooltip("normalization:N"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("epoch:Q"),
                alt.Tooltip("value:Q", title=column, format=".5g"),
            ],
        )
    )
    return figure(chart, zooms=True)


def scale_of(values: pd.Series) -> alt.Scale:
    """Return a logarithmic scale for positive values over more than two orders of magnitude, else a linear one."""
    logarithmic = values.min() > 0 and values.max() > 100 * values.min()
    return alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)


def predicted_against_true(predictions: pd.DataFrame, unit: str) -> Figure:
    """Draw where predictions lie against the truth, binned when there are many. Columns: true, predicted."""
    values = predictions[["true", "predicted"]].astype(float)
    low, high = float(values.min().min()), float(values.max().max())
    diagonal = pd.DataFrame({"true": [low, high], "predicted": [low, high]})
    line = alt.Chart(diagonal).mark_line(color=VALID, strokeDash=[4, 3]).encode(alt.X("true:Q"), alt.Y("predicted:Q"))
    description = f"predicted against true for {len(values)} test rows; the dashed line is perfect"
    x_title, y_title = f"true{unit}", f"predicted{unit}"
    if len(values) <= FEW:
        marks = (
            alt.Chart(values, description=description)
            .mark_circle(color=TRAIN, size=50)
            .encode(
                alt.X("true:Q", title=x_title, scale=alt.Scale(zero=False)),
                alt.Y("predicted:Q", title=y_title, scale=alt.Scale(zero=False)),
                tooltip=[alt.Tooltip("true:Q", format=".4g"), alt.Tooltip("predicted:Q", format=".4g")],
            )
        )
        return figure(marks + line, zooms=True)
    width = (high - low) / BINS
    cells = ((values - low) // width).clip(upper=BINS - 1) * width + low
    counted = cells.value_counts().reset_index(name="rows")
    counted[["true_to", "predicted_to"]] = counted[["true", "predicted"]] + width
    marks = (
        alt.Chart(counted.round(6), description=description)
        .mark_rect(fill=TRAIN)
        .encode(
            alt.X("true:Q", title=x_title),
            alt.X2("true_to:Q"),
            alt.Y("predicted:Q", title=y_title),
            alt.Y2("predicted_to:Q"),
            alt.FillOpacity("rows:Q", scale=alt.Scale(type="sqrt", range=[0.12, 1]), legend=None),
            tooltip=[
                alt.Tooltip("true:Q", format=".3g"),
                alt.Tooltip("predicted:Q", format=".3g"),
                alt.Tooltip("rows:Q"),
            ],
        )
    )
    return figure(marks + line, zooms=True)


def residuals(errors: pd.Series, unit: str) -> Figure:
    """Draw how the residuals, predicted - true, are distributed."""
    binned = pd.cut(errors, min(BINS, max(5, len(errors) // 5)))
    counted = binned.value_counts(sort=False)
    frame = pd.DataFrame(
        {"from": [b.left for b in counted.index], "to": [b.right for b in counted.index], "rows": counted.to_numpy()}
    )
    chart = (
        alt.Chart(
            frame,
            description=f"residuals of {len(errors)} test rows: mean {errors.mean():.4g}, "
            f"standard deviation {errors.std():.4g}",
        )
        .mark_bar(color=TRAIN)
        .encode(
            alt.X("from:Q", title=f"predicted − true{unit}"),
            alt.X2("to:Q"),
            alt.Y("rows:Q", title="test rows"),
            alt.Y2Datum(0),
            tooltip=[alt.Tooltip("from:Q", format=".3g"), alt.Tooltip("to:Q", format=".3g"), alt.Tooltip("rows:Q")],
        )
    )
    return figure(chart)


def error_map(cells: pd.DataFrame, size: float, unit: str) -> Figure:
    """Draw the mean residual of each cell of the map. cells: of `regression.on_map`; size: of a cell in degrees."""
    most = float(cells["residual"].abs().quantile(0.98)) or 1.0
    frame = cells.assign(east=cells["longitude"] + size, north=cells["latitude"] + size).round(4)
    worst = cells.iloc[int(cells["residual"].abs().to_numpy().argmax())]
    chart = (
        alt.Chart(
            frame,
            description=f"mean residual by place in {len(cells)} cells of {size:g} degrees; the greatest is "
            f"{worst['residual']:.3g} at {worst['latitude']:g} N, {-worst['longitude']:g} W",
        )
        .mark_rect()
        .encode(
            alt.X("longitude:Q", title="longitude", scale=alt.Scale(zero=False, nice=False)),
            alt.X2("east:Q"),
            alt.Y("latitude:Q", title="latitude", scale=alt.Scale(zero=False, nice=False)),
            alt.Y2("north:Q"),
            alt.Color(
                "residual:Q",
                scale=alt.Scale(scheme="blueorange", domain=[-most, 0, most], clamp=True),
                legend=alt.Legend(title=f"predicted − true{unit}", titleColor=INK, titleLimit=300),
            ),
            tooltip=[
                alt.Tooltip("longitude:Q"),
                alt.Tooltip("latitude:Q"),
                alt.Tooltip("residual:Q", format="+.3f"),
                alt.Tooltip("rows:Q"),
            ],
        )
    )
    return figure(chart, 340, 360, zooms=True)


def calibration(bins: list[dict], error: float) -> Figure:
    """Draw accuracy against confidence. bins: of `classification.calibration`."""
    line = (
        alt.Chart(pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]}))
        .mark_line(color=VALID, strokeDash=[4, 3])
        .encode(alt.X("confidence:Q"), alt.Y("accuracy:Q"))
    )
    marks = (
        alt.Chart(
            pd.DataFrame(bins),
            description=f"accuracy by confidence in {len(bins)} bins, larger where there are more rows; "
            f"expected calibration error {error:.4f}; the dashed line is perfect",
        )
        .mark_circle(color=TRAIN, opacity=1)
        .encode(
            alt.X("confidence:Q", scale=alt.Scale(domain=[0, 1])),
            alt.Y("accuracy:Q", scale=alt.Scale(domain=[0, 1])),
            alt.Size("rows:Q", scale=alt.Scale(type="sqrt", range=[20, 300]), legend=None),
            tooltip=[
                alt.Tooltip("confidence:Q", format=".3f"),
                alt.Tooltip("accuracy:Q", format=".3f"),
                alt.Tooltip("rows:Q"),
            ],
        )
    )
    return figure(line + marks)


def distribution(bins: list[dict], name: str) -> Figure:
    """Draw how a column is distributed in each split. bins: of `drift.histogram`."""
    frame = pd.DataFrame(bins)
    ends = frame.groupby("split", sort=False).tail(1)
    frame = pd.concat([frame, ends.assign(**{"from": ends["to"]})])  # so that the last bin has its width
    chart = (
        alt.Chart(frame, description=f"distribution of {name} by split")
        .mark_line(interpolate="step-after", strokeWidth=1.5, point=UNSEEN)
        .encode(
            alt.X("from:Q", title=None, axis=alt.Axis(tickCount=4)),
            alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3)),
            alt.Color("split:N", scale=SPLITS, legend=None),
            tooltip=[
                alt.Tooltip("split:N"),
                alt.Tooltip("from:Q", format=".4g"),
                alt.Tooltip("to:Q", format=".4g"),
                alt.Tooltip("share:Q", format=".2%"),
            ],
        )
    )
    return figure(chart, SMALL_WIDTH, SMALL_HEIGHT, title=name)


def class_balance(counts: dict[str, dict[str, int]]) -> Figure:
    """Draw each class's share of each split. counts: split: class: rows."""
    frame = pd.DataFrame(
        [
            {"split": split, "class": name, "rows": rows, "share": rows / max(1, sum(classes.values()))}
            for split, classes in counts.items()
            for name, rows in classes.items()
        ]
    )
    names = list(dict.fromkeys(frame["class"]))
    chart = (
        alt.Chart(frame, description=f"share of each of {len(names)} classes in each split")
        .mark_bar()
        .encode(
            alt.Y("class:N", sort=names, title=None),
            alt.X("share:Q", title="share of the split", axis=alt.Axis(format="%")),
            alt.YOffset("split:N", sort=["train", "valid", "test"]),
            alt.Color("split:N", scale=SPLITS),
            tooltip=[
                alt.Tooltip("split:N"),
                alt.Tooltip("class:N"),
                alt.Tooltip("rows:Q"),
                alt.Tooltip("share:Q", format=".2%"),
            ],
        )
    )
    return figure(chart, height=max(90, 34 * len(names)))
