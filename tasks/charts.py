"""Charts of the report: Vega-Lite specifications rendered to SVG, which needs no script and no network.

Colours are the page's CSS variables, so that a chart follows the page into dark mode. `description`
becomes the chart's text alternative.
"""

import altair as alt
import pandas as pd
import vl_convert

WIDTH, HEIGHT = 400, 220
INK, FAINT, TRAIN, VALID = "var(--ink)", "var(--faint)", "var(--train)", "var(--valid)"
BINS = 40


def to_svg(chart: alt.Chart | alt.LayerChart) -> str:
    styled = (
        chart.properties(width=WIDTH, height=HEIGHT, background="transparent")
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
        return vl_convert.vegalite_to_svg(styled.to_dict())


def learning_curves(history: pd.DataFrame, figure: str) -> str:
    """Draw `figure` on train and valid after each epoch. history: columns epoch, figure, val_figure."""
    curves = history.rename(columns={figure: "train", f"val_{figure}": "valid"})
    curves = curves.melt("epoch", ["train", "valid"], var_name="split", value_name=figure)
    last = history.iloc[-1]
    chart = (
        alt.Chart(
            curves,
            description=f"{figure} by epoch; after {len(history)} epochs {last[figure]:.4g} on train and "
            f"{last[f'val_{figure}']:.4g} on valid",
        )
        .mark_line(strokeWidth=2, point={"size": 16} if len(history) <= 60 else False)
        .encode(
            alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
            alt.Y(f"{figure}:Q", scale=scale_of(curves[figure])),
            alt.Color("split:N", scale=alt.Scale(domain=["train", "valid"], range=[TRAIN, VALID])),
        )
    )
    return to_svg(chart)


def parity_curves(history: pd.DataFrame, figure: str) -> str:
    """Draw `figure` on valid by epoch, a line a seed, coloured by preparation.

    history: columns normalization, seed, epoch, val_figure.
    """
    kinds = list(history["normalization"].unique())
    values = history.rename(columns={f"val_{figure}": "value"})[["normalization", "seed", "epoch", "value"]]
    highest = values[values["epoch"] > 3].groupby("normalization")["value"].max()
    told = ", ".join(f"{highest[kind]:.3g} with {kind}" for kind in kinds if kind in highest)
    chart = (
        alt.Chart(
            values, description=f"{figure} on valid by epoch for each seed; highest after epoch 3: {told or 'none'}"
        )
        .mark_line(strokeWidth=1.5, opacity=0.75, point={"size": 10} if len(values) <= 400 else False)
        .encode(
            alt.X("epoch:Q", axis=alt.Axis(tickMinStep=1)),
            alt.Y("value:Q", title=f"{figure} on valid", scale=alt.Scale(zero=False)),
            alt.Color("normalization:N", scale=alt.Scale(domain=kinds, range=[VALID, TRAIN][: len(kinds)])),
            alt.Detail("seed:N"),
        )
    )
    return to_svg(chart)


def scale_of(values: pd.Series) -> alt.Scale:
    """Return a logarithmic scale for positive values over more than two orders of magnitude, else a linear one."""
    logarithmic = values.min() > 0 and values.max() > 100 * values.min()
    return alt.Scale(type="log") if logarithmic else alt.Scale(zero=False)


def predicted_against_true(predictions: pd.DataFrame, unit: str) -> str:
    """Draw where predictions lie against the truth, binned when there are many. Columns: true, predicted."""
    low = float(predictions[["true", "predicted"]].min().min())
    high = float(predictions[["true", "predicted"]].max().max())
    diagonal = pd.DataFrame({"true": [low, high], "predicted": [low, high]})
    line = alt.Chart(diagonal).mark_line(color=VALID, strokeDash=[4, 3]).encode(x="true:Q", y="predicted:Q")
    base = alt.Chart(
        predictions[["true", "predicted"]],
        description=f"predicted against true for {len(predictions)} test rows; the dashed line is perfect",
    )
    x_title, y_title = f"true{unit}", f"predicted{unit}"
    if len(predictions) <= 200:
        marks = base.mark_circle(color=TRAIN, size=50).encode(
            alt.X("true:Q", title=x_title, scale=alt.Scale(zero=False)),
            alt.Y("predicted:Q", title=y_title, scale=alt.Scale(zero=False)),
        )
    else:
        marks = base.mark_rect(fill=TRAIN).encode(
            alt.X("true:Q", bin=alt.Bin(maxbins=BINS), title=x_title),
            alt.Y("predicted:Q", bin=alt.Bin(maxbins=BINS), title=y_title),
            alt.FillOpacity("count():Q", scale=alt.Scale(type="sqrt", range=[0.08, 1]), legend=None),
        )
    return to_svg(marks + line)


def residuals(predictions: pd.DataFrame, unit: str) -> str:
    """Draw how the residuals, predicted - true, are distributed. Columns: true, predicted."""
    errors = pd.DataFrame({"residual": predictions["predicted"].astype(float) - predictions["true"]})
    chart = (
        alt.Chart(
            errors,
            description=f"residuals of {len(errors)} test rows: mean {errors['residual'].mean():.4g}, "
            f"standard deviation {errors['residual'].std():.4g}",
        )
        .mark_bar(color=TRAIN)
        .encode(
            alt.X("residual:Q", bin=alt.Bin(maxbins=BINS), title=f"predicted - true{unit}"),
            alt.Y("count():Q", title="test rows"),
        )
    )
    return to_svg(chart)
