"""The parts of the page that stand without a script: verdicts, tables, bars."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from dataeff._units import amount
from dataeff.report._columns import Moments, column
from dataeff.report._page_data import PACES, exposures
from dataeff.report._savings import Saving, Savings
from dataeff.report._words import TITLES, at_end, plain, quality, times, verdict

_BARS = 12


def verdicts(found: Sequence[Savings]) -> str:
    """The verdict by each metric; all but the first hidden."""
    return "\n".join(
        f'<p class="verdict" {_of_metric(one, found)}>{escape(verdict(one))}</p>' for one in found
    )


def compared(found: Savings) -> str:
    """What is compared with what, and by what."""
    count, better_so = len(found.bests), "higher" if found.higher_is_better else "lower"
    runs = f"{count} runs" if count > 1 else "1 run"
    return escape(
        f"{runs}. Baseline: {found.baseline}. {plain(found.metric).capitalize()}: {better_so} is better."
    )


def switch(kind: str, label: str, choices: Mapping[str, str], chosen: str) -> str:
    """Buttons, of which one is pressed.

    Examples:
        >>> switch("axis", "Against", {"steps": "Steps"}, "steps")
        '...<button type="button" data-axis="steps" aria-pressed="true">Steps</button>...'
    """
    buttons = "".join(
        f'<button type="button" data-{kind}="{escape(key)}" aria-pressed="{str(key == chosen).lower()}">'
        f"{escape(name)}</button>"
        for key, name in choices.items()
    )
    return (
        f'<div class="switch" data-script hidden><span>{label}</span>'
        f'<div class="buttons" role="group" aria-label="{label}">{buttons}</div></div>'
    )


def savings_tables(found: Sequence[Savings]) -> str:
    """Both tables by each metric; all but the first hidden."""
    return "\n".join(f"<div {_of_metric(one, found)}>{_savings(one)}</div>" for one in found)


def counts_table(runs: Mapping[str, Moments], found: Sequence[Savings]) -> str:
    """What each run had consumed at the end, and its last and best quality."""
    heads = [TITLES[axis] for axis in found[0].axes] + [plain(one.metric).capitalize() for one in found]
    rows = {
        name: [_end(runs[name], axis, name) for axis in found[0].axes]
        + [_last(runs[name], one, name) for one in found]
        for name in found[0].bests
    }
    return _table("At the end of each run", "", heads, rows)


def paces(runs: Mapping[str, Moments]) -> str:
    """Room for a chart of each pace that any run logged."""
    logged = [
        key for key in PACES if any(moment.get(key) is not None for run in runs.values() for moment in run)
    ]
    if not logged:
        return ""
    figures = "\n".join(
        f'<figure data-key="{key}" data-label="{label}"><figcaption>{label}</figcaption></figure>'
        for key in logged
        for label, _ in (PACES[key],)
    )
    return _section("How it was trained", f'<div class="charts">\n{figures}\n</div>', "data-script hidden")


def exposure_bars(runs: Mapping[str, Moments], names: Iterable[str]) -> str:
    """How often samples came in each run, as bars; nothing if no run logged it."""
    found = {name: counts for name in names if (counts := exposures(runs[name], run=name)) is not None}
    if not found:
        return ""
    shares = {name: grouped(counts) for name, counts in found.items()}
    most = max(share for bars in shares.values() for _, share in bars)
    order = list(names)
    figures = "\n".join(_bars(name, bars, order.index(name), most) for name, bars in shares.items())
    said = '<p class="muted">Share of all samples, by how many times they were drawn.</p>'
    return _section("How often samples came", f'{said}\n<div class="charts">\n{figures}\n</div>')


def grouped(counts: Sequence[float]) -> list[tuple[str, float]]:
    """Shares of samples by how often they came: never, then in at most eleven groups as wide as each other.

    Examples:
        >>> grouped([10, 20, 70])
        [('never', 0.1), ('1 time', 0.2), ('2 times', 0.7)]
        >>> grouped([0] + [1] * 33)[-1]
        ('31-33 times', 0.09090909090909091)
    """
    total, width = sum(counts), max(1, -(-(len(counts) - 1) // (_BARS - 1)))
    bars = [("never", counts[0] / total)]
    for low in range(1, len(counts), width):
        high = min(low + width, len(counts)) - 1
        label = f"{low}" if low == high else f"{low}-{high}"
        bars.append((f"{label} time{'s' if high > 1 else ''}", sum(counts[low : high + 1]) / total))
    return bars


def _of_metric(one: Savings, found: Sequence[Savings]) -> str:
    return f'data-of-metric="{escape(one.metric)}"{"" if one is found[0] else " hidden"}'


def _color(place: int) -> str:
    """As in the script: the baseline in grey, then seven colours, then the same dashed, then dotted."""
    return f"c{place and 1 + (place - 1) % 7} d{place and (place - 1) // 7 % 3}"


def _swatch(place: int) -> str:
    return f'<i class="swatch {_color(place)}"></i>'


def _section(title: str, content: str, attributes: str = "") -> str:
    return f"<section {attributes}>\n<h2>{title}</h2>\n{content}\n</section>"


def _bars(name: str, bars: Sequence[tuple[str, float]], place: int, most: float) -> str:
    rows = "\n".join(
        f'<div><dt>{label}</dt><dd><div class="bar" style="width:{100 * share / most:.1f}%"></div></dd>'
        f"<dd>{share:.1%}</dd></div>"
        for label, share in bars
    )
    caption = f"<figcaption>{_swatch(place)}{escape(name)}</figcaption>"
    return f'<figure>{caption}\n<dl class="bars {_color(place)}">\n{rows}\n</dl></figure>'


def _savings(found: Savings) -> str:
    heads = [TITLES[axis] for axis in found.axes]
    rows = {name: [found.of(name, axis) for axis in found.axes] for name in found.bests}
    goal = f"consumed until as good as the baseline at its best ({quality(found.best)})"
    place = f"{plain(found.metric)} where the baseline ended, or the run if it ended sooner"
    return _table(
        "At equal quality",
        f": {goal}",
        heads,
        {name: [_equal_quality(row, found) for row in own] for name, own in rows.items()},
    ) + _table(
        "At equal compute",
        f": {place}",
        heads,
        {name: [_equal_compute(row, found) for row in own] for name, own in rows.items()},
    )


def _equal_quality(row: Saving, found: Savings) -> str:
    if row.ended is None:
        return _cell("not logged")
    if row.run == found.baseline:
        return _cell(amount(row.axis, row.baseline))
    if row.ratio is None or row.consumed is None:
        return _cell("not reached", f"best {quality(found.bests[row.run])}", tone="loss")
    said = times(row.ratio)
    tone = "gain" if said.endswith("less") else "loss" if said.endswith("more") else ""
    return _cell(said, amount(row.axis, row.consumed), tone=tone)


def _equal_compute(row: Saving, found: Savings) -> str:
    if row.run == found.baseline and row.quality is not None and row.ended is not None:
        return _cell(quality(row.quality), f"at {amount(row.axis, row.ended)}")
    tone = "" if not row.difference or row.share != 1 else "gain" if row.difference > 0 else "loss"
    return _cell(*at_end(row), tone=tone)


def _end(moments: Moments, axis: str, run: str) -> str:
    x = column(moments, axis, run=run)
    x = x[np.isfinite(x)]
    return _cell(amount(axis, float(x[-1]))) if len(x) else _cell("not logged")


def _last(moments: Moments, found: Savings, run: str) -> str:
    values = column(moments, found.metric, run=run)
    values = values[np.isfinite(values)]
    return _cell(quality(float(values[-1])), f"best {quality(found.bests[run])}")


def _cell(main: str, more: str = "", *, tone: str = "") -> str:
    strong = f'<b class="{tone}">{escape(main)}</b>' if tone else f"<b>{escape(main)}</b>"
    return f"<span>{strong}<small>{escape(more)}</small></span>" if more else f"<span>{strong}</span>"


def _table(title: str, caption: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(head)}</th>' for head in ("Run", *heads))
    body = "\n".join(
        f'<tr><th scope="row">{_swatch(place)}{escape(name)}</th>'
        + "".join(
            f'<td data-label="{escape(label)}">{cell}</td>' for label, cell in zip(heads, cells, strict=True)
        )
        + "</tr>"
        for place, (name, cells) in enumerate(rows.items())
    )
    return (
        f'<p class="caption"><b>{title}</b>{escape(caption)}</p>\n'
        f'<div class="table"><table aria-label="{title}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )
