"""Charts: Vega-Lite specifications, each rendered as SVG and kept for the page's script.

The SVG needs no script, prints, and follows the page's colors, which are CSS variables; its `description` is the text
alternative. When a reader points at a chart, the script renders it again from its specification, with tooltips.
"""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
from altair.utils.schemapi import debug_mode
from markupsafe import Markup

from runtime.process_pool import process_pool
from tasks.promotion.verdict import Verdict as PromotionVerdict
from tasks.report.formatting import number
from tasks.report.verdict import Verdict

WIDTH, HEIGHT = 400, 220
SMALL_WIDTH, SMALL_HEIGHT = 220, 120
RESULTS_WIDTH, RESULT_HEIGHT = 310, 24
INK, FAINT, TRAIN, VALID, TEST = "var(--ink)", "var(--faint)", "var(--train)", "var(--valid)", "var(--test)"
SPLITS = alt.Scale(domain=["train", "valid", "test"], range=[TRAIN, VALID, TEST])
# Color and shape of the marks in the charts by task; the page has the legend.
KINDS = {
    "network": (TRAIN, "circle"),
    "baseline": (VALID, "square"),
    "lecture notes, test": (TEST, "diamond"),
    "lecture notes, valid": (TEST, "cross"),
}
MAX_SPREADS = 2  # of the models and references; a baseline farther from them lies beyond the axis
BINS = 40
MAX_POINTS = 200  # more rows than these are binned
MAX_PARTS = 8  # of the rows, in the chart of a promotion
MIN_SPREAD = 8  # trials of which the worst are drawn on the edge
AXIS_WIDTH = 160  # between two axes of parallel coordinates
MAX_PROCESSES = 4  # there are not enough charts for more
INVISIBLE_POINT = {"size": 60, "opacity": 0}  # a point of a line that only its tooltip needs

_pool: ContextVar[Executor] = ContextVar("pool")


@dataclass(frozen=True)
class Chart:
    """A chart of a page.

    svg: its rendering. description: its text alternative. title: of a small one, which has no axis titles.
    zooms: whether a reader can zoom, because a part of it shows more than the whole.
    """

    specification: dict
    svg: Future[str]
    description: str
    title: str
    zooms: bool

    def __html__(self) -> str:
        kept = json.dumps(self.specification, separators=(",", ":")).replace("<", "\\u003c")  # no tag within a script
        caption = Markup("<figcaption>{}</figcaption>").format(self.title) if self.title else ""
        svg = self.svg.result().replace("<svg ", '<svg aria-hidden="true" ', 1)  # its frame has the text
        frame = Markup('<div class="image" role="img" tabindex="0" aria-label="{}">{}</div>').format(
            self.description, Markup(svg)
        )
        zooms = Markup(" data-zooms") if self.zooms else ""
        return Markup('<figure class="chart"{}>{}{}<script type="application/json">{}</script></figure>').format(
            zooms, caption, frame, Markup(kept)
        )


@contextmanager
def chart_pool() -> Iterator[Executor]:
    """Render the charts that the block makes in a process pool, because vl-convert holds the GIL."""
    # Altair would validate each chart against the schema of Vega-Lite; the charts are ours, so that is skipped.
    with process_pool(MAX_PROCESSES) as processes, debug_mode(False):
        token = _pool.set(processes)
        try:
            yield processes
        finally:
            _pool.reset(token)


def render(
    chart: alt.Chart | alt.LayerChart, width: int = WIDTH, height: int = HEIGHT, title: str = "", zooms: bool = False
) -> Chart:
    """Return the chart for a page; the pool of `chart_pool` renders it meanwhile.

    Args:
        chart: what to render; it or its first described layer has the text alternative.
        width: of the plot in pixels, without axes.
        height: likewise.
        title: a caption above it.
        zooms: whether a reader can zoom into it.
    """
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
    parts = [specification, *specification.get("layer", [])]
    description = next(filter(None, (part.get("description") for part in parts)))
    svg = _pool.get().submit(vl_convert.vegalite_to_svg, static(specification))
    return Chart(specification, svg, description, title, zooms)


def static(specification: dict) -> dict:
    """Leave out what a static image does not need and what would be most of it: invisible points, and a text for each
    mark, because the whole chart has one.
    """

    def visible(part: dict) -> dict:
        mark = {key: value for key, value in part["mark"].items() if (key, value) != ("point", INVISIBLE_POINT)}
        return {**part, "mark": mark}

    plain = {**specification, "config": {**specification["config"], "aria": False}}
    return {**plain, "layer": [visible(part) for part in plain["layer"]]} if "layer" in plain else visible(plain)


@dataclass(frozen=True)
class Result:
    """A row of the chart of a task: what a model reached on test, and how that compares with the notes, if it does."""

    name: str
    kind: str
    value: float
    verdict: Verdict | None


def results(rows: list[Result], title: str, axis: str) -> Chart:
    """Draw what models and baselines reach on a task, and what the lecture notes print, on one axis.

    Args:
        rows: the results, the best first.
        title: the task, for the text alternative.
        axis: the title of the axis: the metric, its unit and its better direction.
    """
    low, high = axis_range(rows)
    points: list[dict[str, Any]] = []
    for row in rows:
        place = {"label": f"{row.name}\u2003{number(row.value)}", "name": row.name}
        points.append(place | {"kind": row.kind, "value": row.value})
        if row.verdict:
            points.append(place | {"kind": f"lecture notes, {row.verdict.split}", "value": row.verdict.reference})
    frame = pd.DataFrame(points)
    beyond = frame[(frame["value"] < low) | (frame["value"] > high)]
    beyond = beyond.assign(text=["◀" if value < low else "▶" for value in beyond["value"]])
    within = frame.drop(beyond.index)
    values = ", ".join(f"{row.name} {number(row.value)}" for row in rows)
    notes = ", ".join(
        f"{row.name} {number(row.verdict.reference)} ({row.verdict.split})" for row in rows if row.verdict
    )
    description = f"{title}. {axis}: {values}." + (f" The lecture notes print: {notes}." if notes else "")
    colors, shapes = zip(*KINDS.values(), strict=True)
    color = alt.Color("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(colors)), legend=None)
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=list(KINDS), range=list(shapes)), legend=None)
    order = list(dict.fromkeys(frame["label"]))
    y = alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=320, ticks=False, domain=False, grid=True))
    logarithmic = low > 0 and high > 100 * low
    scale = alt.Scale(type="log") if logarithmic else alt.Scale(domain=[low, high], zero=False)
    x = alt.X("value:Q", title=axis, scale=scale, axis=alt.Axis(labelOverlap=True, grid=not logarithmic))
    tooltip = [
        alt.Tooltip("name:N"),
        alt.Tooltip("kind:N"),
        alt.Tooltip("value:Q", format=".5g"),
    ]
    from_notes = within["kind"].str.startswith("lecture notes")
    layers = [
        alt.Chart(within[within["kind"] != "lecture notes, valid"])
        .mark_line(color=FAINT, strokeWidth=4)
        .encode(x, y, alt.Detail("name:N")),
        *(
            alt.Chart(part).mark_point(filled=True, size=size, opacity=1).encode(x, y, color, shape, tooltip=tooltip)
            for part, size in ((within[from_notes], 170), (within[~from_notes], 60))
            if len(part)
        ),
    ]
    if len(beyond):
        edges = beyond.assign(edge=beyond["value"].clip(low, high))
        layers.append(
            alt.Chart(edges).mark_text(size=14).encode(alt.X("edge:Q"), y, color, alt.Text("text:N"), tooltip=tooltip)
        )
    return render(alt.layer(*layers, description=description), RESULTS_WIDTH, RESULT_HEIGHT * len(rows))


def axis_range(rows: list[Result]) -> tuple[float, float]:
    """Return the least and the greatest value on the axis of a task.

    A baseline far from all models and references would squeeze them into one point, so it lies beyond the axis.
    """
    compared = [row.value for row in rows if row.kind == "network"]
    compared += [row.verdict.reference for row in rows if row.verdict]
    values = [row.value for row in rows] + compared
    spread = max(compared) - min(compared) if compared else 0
    if spread:
        near = (min(compared) - MAX_SPREADS * spread, max(compared) + MAX_SPREADS * spread)
        values = [value for value in values if near[0] <= value <= near[1]]
    margin = 0.08 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 1.0
    logarithmic = min(values) > 0 and max(values) > 100 * min(values)
    return (min(values), max(values)) if logarithmic else (min(values) - margin, max(values) + margin)


def learning_curves(history: pd.DataFrame, column: str) -> Chart:
    """Draw `column` on train and validation after each epoch. history: columns epoch, column and val_column."""
    curves = history.rename(columns={column: "train", f"val_{column}": "valid"})
    curves = curves.melt("epoch", ["train", "valid"], var_name="split", value_name="value").dropna()
    last = history.iloc[-1]
    chart = (
        alt.Chart(
            curves,
            description=f"{column} by epoch; after {len(history)} epochs {last[column]:.4g} on train and "
            f"{last[f'val_{column}']:.4g} on valid",
        )
        .mark_line(strokeWidth=2, point={"size": 16} if len(history) <= 60 else INVISIBLE_POINT)
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
    return render(chart, zooms=True)


def lecture_recipe_curves(history: pd.DataFrame, column: str, settled: int) -> Chart:
    """Draw `column` on validation by epoch, a line for each seed, colored by normalization.

    Args:
        history: columns normalization, seed, epoch and val_column.
        column: the metric to draw.
        settled: the epoch after which the highest value counts.
    """
    kinds = list(history["normalization"].unique())
    values = history.rename(columns={f"val_{column}": "value"})[["normalization", "seed", "epoch", "value"]]
    highest = values[values["epoch"] > settled].groupby("normalization")["value"].max()
    peaks = ", ".join(f"{highest[kind]:.3g} with {kind}" for kind in kinds if kind in highest) or "none"
    chart = (
        alt.Chart(
            values,
            description=f"{column} on valid by epoch for each seed; highest after epoch {settled}: {peaks}",
        )
        .mark_line(strokeWidth=1.5, opacity=0.75, point={"size": 10} if len(values) <= 400 else INVISIBLE_POINT)
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
    return render(chart, zooms=True)


def scale_of(values: pd.Series) -> alt.Scale:
    """Return a logarithmic scale for positive values over more than two orders of magnitude, else a linear one."""
    logarithmic = values.min() > 0 and values.max() > 100 * values.min()
    return alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)


def predicted_against_true(predictions: pd.DataFrame, unit: str) -> Chart:
    """Draw predictions against true values, binned if there are many. predictions: columns true and predicted."""
    values = predictions[["true", "predicted"]].astype(float)
    low, high = float(values.min().min()), float(values.max().max())
    diagonal = pd.DataFrame({"true": [low, high], "predicted": [low, high]})
    line = alt.Chart(diagonal).mark_line(color=VALID, strokeDash=[4, 3]).encode(alt.X("true:Q"), alt.Y("predicted:Q"))
    description = f"predicted against true for {len(values)} test rows; the dashed line is perfect"
    x_title, y_title = f"true{unit}", f"predicted{unit}"
    if len(values) <= MAX_POINTS:
        marks = (
            alt.Chart(values, description=description)
            .mark_circle(color=TRAIN, size=50)
            .encode(
                alt.X("true:Q", title=x_title, scale=alt.Scale(zero=False)),
                alt.Y("predicted:Q", title=y_title, scale=alt.Scale(zero=False)),
                tooltip=[alt.Tooltip("true:Q", format=".4g"), alt.Tooltip("predicted:Q", format=".4g")],
            )
        )
        return render(marks + line, zooms=True)
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
    return render(marks + line, zooms=True)


def residuals(errors: pd.Series, unit: str) -> Chart:
    """Draw the distribution of the residuals, predicted - true."""
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
    return render(chart)


def error_map(cells: pd.DataFrame, size: float, unit: str) -> Chart:
    """Draw the mean residual of each cell of the map.

    Args:
        cells: of `regression.on_map`.
        size: the size of a cell in degrees.
        unit: of the residuals, as the legend has it.
    """
    limit = float(cells["residual"].abs().quantile(0.98)) or 1.0
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
                scale=alt.Scale(scheme="blueorange", domain=[-limit, 0, limit], clamp=True),
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
    return render(chart, 340, 360, zooms=True)


def calibration(bins: list[dict], error: float) -> Chart:
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
    return render(line + marks)


def distribution(bins: list[dict], name: str) -> Chart:
    """Draw the distribution of a column in each split. bins: of `drift.histogram`."""
    frame = pd.DataFrame(bins)
    ends = frame.groupby("split", sort=False).tail(1)
    frame = pd.concat([frame, ends.assign(**{"from": ends["to"]})])  # so that the last bin has its width
    chart = (
        alt.Chart(frame, description=f"distribution of {name} by split")
        .mark_line(interpolate="step-after", strokeWidth=1.5, point=INVISIBLE_POINT)
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
    return render(chart, SMALL_WIDTH, SMALL_HEIGHT, title=name)


def class_balance(counts: dict[str, dict[str, int]]) -> Chart:
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
    return render(chart, height=max(90, 34 * len(names)))


def gains(verdict: PromotionVerdict) -> Chart:
    """Draw by how much a candidate is better than the champion, with intervals, and the margins.

    Of the parts, the new rows are drawn, and those whose interval comes closest to the margin or passes it.
    """
    parts = [found for found in verdict.comparisons if found.kind == "part"]
    parts = sorted(parts, key=lambda found: (found.name != "new rows", found.low + (found.margin or 0)))[:MAX_PARTS]
    shown = [found for found in verdict.comparisons if found.kind == "valid"] + parts
    shown += [found for found in verdict.comparisons if found.kind == "test"]
    failed = {rule.name for rule in verdict.failed}
    frame = pd.DataFrame(
        [
            {
                "rows": found.name,
                "count": found.rows,
                "margin": None if found.margin is None else -found.margin,
                "rule": "none" if found.margin is None else "failed" if found.name in failed else "kept",
                **{key: getattr(found, key) for key in ("gain", "low", "high")},
            }
            for found in shown
        ]
    )
    unit = "accuracy, candidate minus champion" if verdict.metric == "accuracy" else "share of the RMSE saved"
    told = ", ".join(f"{found.name} {found.gain:+.2%} ({found.low:+.2%} to {found.high:+.2%})" for found in shown)
    order = list(frame["rows"])
    y = alt.Y("rows:N", sort=order, title=None, axis=alt.Axis(labelLimit=320, ticks=False, domain=False, grid=True))
    title = f"gain: {unit}"
    axis = alt.Axis(format="+.1%", grid=False, labelOverlap=True)
    color = alt.Color(
        "rule:N", scale=alt.Scale(domain=["kept", "failed", "none"], range=[TRAIN, VALID, TEST]), legend=None
    )
    tooltip = [
        alt.Tooltip("rows:N"),
        alt.Tooltip("count:Q", title="number of rows"),
        *(alt.Tooltip(f"{key}:Q", format="+.2%") for key in ("gain", "low", "high", "margin")),
        alt.Tooltip("rule:N"),
    ]
    base = alt.Chart(frame, description=f"Gain of the candidate of {verdict.model}, positive is better: {told}")
    layers = [
        base.mark_rule(strokeWidth=2).encode(alt.X("low:Q", title=title, axis=axis), alt.X2("high:Q"), y, color),
        base.transform_filter("datum.margin != null")
        .mark_tick(color=VALID, thickness=2, size=14)
        .encode(alt.X("margin:Q"), y, tooltip=tooltip),
        base.mark_point(filled=True, size=60, opacity=1).encode(alt.X("gain:Q"), y, color, tooltip=tooltip),
        alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK, strokeDash=[4, 3]).encode(alt.X("zero:Q")),
    ]
    return render(alt.layer(*layers), RESULTS_WIDTH, RESULT_HEIGHT * len(frame))


def search_history(table: pd.DataFrame, objective: str, reference: float | None) -> Chart:
    """Draw the value of each trial, the best one so far, and the reference of the lecture notes as a line.

    Trials far worse than most lie on the edge of the plot.

    Args:
        table: columns trial, state, value and best.
        objective: the name of the value.
        reference: on validation; None: there is none.
    """
    shown = table.dropna(subset=["value"])
    better = shown["best"].dropna()
    low, high = shown["value"].quantile([0.05, 0.75]) if len(shown) > MIN_SPREAD else shown["value"].agg(["min", "max"])
    ends = [value for value in (low, high, *better, reference) if value is not None]
    pad = 0.05 * (max(ends) - min(ends)) or 0.01
    scale = alt.Scale(domain=[min(ends) - pad, max(ends) + pad], clamp=True, nice=False)
    y = alt.Y("value:Q", title=f"{objective} on valid", scale=scale)
    told = f"{objective} on valid of {len(shown)} trials, best {number(float(better.iloc[-1]))}" if len(better) else ""
    colors = alt.Scale(domain=["complete", "pruned"], range=[TRAIN, FAINT])
    layers = [
        alt.Chart(shown[["trial", "state", "value"]], description=told or "no trial was trained to its end")
        .mark_circle(size=40, opacity=1)
        .encode(
            alt.X("trial:Q", axis=alt.Axis(tickMinStep=1)),
            y,
            alt.Color("state:N", scale=colors),
            tooltip=[alt.Tooltip("trial:Q"), alt.Tooltip("state:N"), alt.Tooltip("value:Q", format=".5g")],
        ),
        alt.Chart(shown[["trial", "best"]])
        .mark_line(color=VALID, interpolate="step-after", strokeWidth=2, point=INVISIBLE_POINT)
        .encode(
            alt.X("trial:Q"),
            alt.Y("best:Q", scale=scale),
            tooltip=[alt.Tooltip("trial:Q"), alt.Tooltip("best:Q", title="best so far", format=".5g")],
        ),
    ]
    if reference is not None:
        layers.append(
            alt.Chart(pd.DataFrame({"reference": [reference]}))
            .mark_rule(color=TEST, strokeDash=[4, 3], strokeWidth=2)
            .encode(alt.Y("reference:Q", scale=scale), tooltip=[alt.Tooltip("reference:Q", title="lecture notes")])
        )
    return render(alt.layer(*layers), zooms=True)


def importance(shares: dict[str, float]) -> Chart:
    """Draw the share of the objective's variance that each hyperparameter explains."""
    frame = pd.DataFrame({"hyperparameter": [*shares], "share": [*shares.values()]})
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    chart = (
        alt.Chart(frame, description=f"share of the variance explained: {told}")
        .mark_bar(color=TRAIN)
        .encode(
            alt.Y("hyperparameter:N", sort=[*shares], title=None, axis=alt.Axis(labelLimit=220)),
            alt.X("share:Q", title="share of the variance", axis=alt.Axis(format="%")),
            tooltip=[alt.Tooltip("hyperparameter:N"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return render(chart, RESULTS_WIDTH, RESULT_HEIGHT * max(2, len(frame)))


def parallel_coordinates(lines: pd.DataFrame, axes: list[str], best: int) -> Chart:
    """Draw a line for each trial through its hyperparameters, the best quarter in color.

    Args:
        lines: a row for each trial and axis: trial, axis, position from 0 to 1, shown (the value as text), quarter
            ("best quarter" or "others").
        axes: their order.
        best: the number of the best trial.
    """
    colors = alt.Scale(domain=["best quarter", "others"], range=[TRAIN, FAINT])
    chart = (
        alt.Chart(lines, description=f"hyperparameters of {lines['trial'].nunique()} trials; the best is {best}")
        .mark_line(strokeWidth=1.5, opacity=0.8, point=INVISIBLE_POINT)
        .encode(
            alt.X("axis:N", sort=axes, title=None, axis=alt.Axis(labelAngle=0, grid=True, labelLimit=150)),
            alt.Y("position:Q", title="lowest to highest", axis=alt.Axis(labels=False, ticks=False, grid=False)),
            alt.Color("quarter:N", scale=colors),
            alt.Detail("trial:N"),
            alt.Order("order:Q"),
            tooltip=[alt.Tooltip("trial:N"), alt.Tooltip("axis:N"), alt.Tooltip("shown:N", title="value")],
        )
    )
    return render(chart, AXIS_WIDTH * max(2, len(axes)), HEIGHT)
