"""The page of simulated nights: what arrived, what came of it, and the metric by night."""

from dataclasses import dataclass
from pathlib import Path

import altair as alt
import pandas as pd
from jinja2 import Template

from tasks.promotion.verdict import Verdict

PAGE = Path("nights.html")
PICTURE = Path("nights.png")
TEMPLATE = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Nights of {{ model }}</title>
<style>
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th, td { padding: .3rem .6rem; text-align: left; }
tr + tr { border-top: 1px solid #8886; } .number { text-align: right; font-variant-numeric: tabular-nums; }
.chart { background: white; }
</style></head><body>
<h1>Nights of {{ model }}</h1>
<p>Half of the real rows are the source; the rest arrives in {{ nights | length }} nights. The metric is
{{ metric }} on the test rows that were there in that night; it decides nothing.</p>
<div class="chart" role="img" aria-label="{{ metric }} on test by night, of candidate and champion">{{ chart }}</div>
<table><thead><tr><th>night</th><th>arrived</th><th>result</th><th class="number">candidate</th>
<th class="number">champion before</th></tr></thead><tbody>
{% for night in nights %}<tr><td>{{ night.number }}</td><td>{{ night.what | e }}</td><td>{{ night.result | e }}</td>
<td class="number">{{ night.candidate or "" }}</td><td class="number">{{ night.champion or "" }}</td></tr>
{% endfor %}</tbody></table>
<p>One training on all rows, also the rejected ones as they should have been: {{ metric }} {{ whole.candidate }}; the
champion of the last night has {{ whole.champion }} on the same test rows.</p>
</body></html>
"""
)


@dataclass(frozen=True)
class Night:
    """What came of a night. verdict: None where nothing was trained."""

    number: int
    what: str
    rejected: bool
    drifted: bool
    verdict: Verdict | None

    @property
    def result(self) -> str:
        """Return the result in words."""
        arrival = "rejected" if self.rejected else "accepted, drift" if self.drifted else "accepted"
        if not self.verdict:
            return f"{arrival}; nothing to train"
        return f"{arrival}; {self.verdict.outcome}, {'promoted' if self.verdict.promote else 'not promoted'}"

    @property
    def candidate(self) -> str | None:
        return on_test(self.verdict.candidate.metrics, self.verdict.metric) if self.verdict else None

    @property
    def champion(self) -> str | None:
        verdict = self.verdict
        return on_test(verdict.champion.metrics, verdict.metric) if verdict and verdict.champion else None


def on_test(metrics: dict, metric: str) -> str | None:
    return f"{metrics['test'][metric]:.4f}" if "test" in metrics else None


def write_page(nights: list[Night], whole: Night, model: str) -> Path:
    """Write the page and its picture, and return the page's path.

    Args:
        nights: in their order.
        whole: of a training on all rows, judged against the last champion.
        model: its name.
    """
    assert whole.verdict  # of a training on other rows
    metric = whole.verdict.metric
    chart = draw(nights, metric)
    chart.save(str(PICTURE), ppi=144)
    chart.save("nights.svg")
    text = TEMPLATE.render(
        nights=nights,
        whole=whole,
        model=model,
        metric=name_of(metric),
        chart=Path("nights.svg").read_text(encoding="utf-8"),
    )
    PAGE.write_text(text, encoding="utf-8")
    return PAGE


def name_of(metric: str) -> str:
    return "RMSE" if metric == "rmse" else metric


def draw(nights: list[Night], metric: str) -> alt.LayerChart:
    """Return the chart of a metric by night, with a mark for what arrived."""
    rows, champion = [], None
    for night in nights:
        champion = night.champion or champion
        if night.candidate and night.verdict and night.verdict.promote:
            champion = night.candidate
        promoted = bool(night.verdict and night.verdict.promote)
        rows.append(
            {
                "night": night.number,
                "champion": float(champion) if champion else None,
                "candidate": float(night.candidate) if night.candidate else None,
                "arrival": "rejected" if night.rejected else "drift" if night.drifted else "accepted",
                "promoted": "promoted" if promoted else "not promoted",
            }
        )
    data = alt.Chart(pd.DataFrame(rows)).encode(x=alt.X("night:O", axis=alt.Axis(labelAngle=0)))
    scale = alt.Scale(zero=False, padding=12)
    line = data.mark_line(interpolate="step-after").encode(
        y=alt.Y("champion:Q", title=f"{name_of(metric)} on test", scale=scale)
    )
    points = data.mark_point(filled=True, size=70).encode(y=alt.Y("candidate:Q", scale=scale), shape="promoted:N")
    arrivals = data.mark_tick(thickness=4).encode(y=alt.value(215), color=alt.Color("arrival:N", title="batch"))
    return (line + points + arrivals).properties(width=560, height=220, title="champion (line) and candidates (points)")
