"""One HTML file that shows a run. In: `Report` (rows, video, curves, codebooks). Out: report.html, self-contained.

Nothing in the page comes from elsewhere: the video is inlined as h264 mp4, figures are inline SVG, there is no script.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

COLOURS = ("#2563a8", "#d1602d", "#3f8f4f", "#8a56a8", "#b5892b", "#5f6b78")
WIDTH, HEIGHT, MARGIN = 380, 200, 44


@dataclass(frozen=True)
class Curve:
    """One line of a figure: its name and (x, y) points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title, facts: heading and "name: value" pairs below it.
        rows: closed-loop results: label, policy, successes, trials, rate, low, high, falls, timeouts, subgoals.
        confidence: of the rows' intervals.
        video, video_caption: mp4 file of the learned policy, or None.
        curves: lines by figure title; a figure whose lines have no points is left out.
        codebooks: share of each code's use by title.
        tables: further tables: title, then rows of cells, the first row being the head.
    """

    title: str
    facts: dict[str, str]
    rows: list[dict]
    confidence: float
    video: Path | None = None
    video_caption: str = ""
    curves: dict[str, list[Curve]] = field(default_factory=dict)
    codebooks: dict[str, Sequence[float]] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)


def write_report(path: str | Path, report: Report) -> None:
    """Write the page atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(render(report), encoding="utf-8")
    os.replace(temporary, path)


def render(report: Report) -> str:
    """Return the page's HTML."""
    e = html.escape
    figures = {t: [c for c in lines if len(c.points)] for t, lines in report.curves.items()}
    parts = [
        f"<h1>{e(report.title)}</h1>",
        "<p class=facts>" + " · ".join(f"{e(k)}: <b>{e(v)}</b>" for k, v in report.facts.items()) + "</p>",
        _video(report),
        "<h2>Closed-loop success</h2>",
        _rows(report),
        *(f"<h2>{e(title)}</h2>{_table(cells)}" for title, cells in report.tables.items()),
        "<h2>Training</h2><div class=grid>",
        *(_figure(title, line_chart(lines)) for title, lines in figures.items() if lines),
        "</div><h2>Use of the codebooks</h2><div class=grid>",
        *(_figure(title, bar_chart(shares)) for title, shares in report.codebooks.items()),
        "</div>",
    ]
    head = f'<meta charset="utf-8"><title>{e(report.title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def line_chart(curves: list[Curve]) -> str:
    """Draw curves with axes and a legend as SVG; y is logarithmic when it is positive and spans over a decade."""
    xs = [x for c in curves for x, _ in c.points]
    ys = [y for c in curves for _, y in c.points if math.isfinite(y)]
    if not ys:
        return ""
    log = min(ys) > 0 and max(ys) > 10 * min(ys)
    scale = math.log10 if log else float
    x0, x1 = min(xs), max(max(xs), min(xs) + 1e-9)
    y0, y1 = scale(min(ys)), scale(max(ys))
    y0, y1 = (y0, y1) if y1 - y0 > 1e-12 else (y0 - 0.5, y1 + 0.5)

    def place(x: float, y: float) -> str:
        right = MARGIN + (x - x0) / (x1 - x0) * (WIDTH - MARGIN - 10)
        down = 10 + (y1 - scale(y)) / (y1 - y0) * (HEIGHT - MARGIN)
        return f"{right:.1f},{down:.1f}"

    parts = [_axes(f"{x0:g}", f"{x1:g}", _number(ys, min), _number(ys, max) + (" (log)" if log else ""))]
    for i, curve in enumerate(curves):
        colour = COLOURS[i % len(COLOURS)]
        line = " ".join(place(x, y) for x, y in curve.points if math.isfinite(y))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(_text(WIDTH - 14, 22 + 14 * i, curve.name, colour, "end"))
    return _svg(parts)


def bar_chart(shares: Sequence[float]) -> str:
    """Draw how often each code is used, most used first; the dashed line is even use."""
    top = max([*shares, 1e-9])
    inner, floor = WIDTH - MARGIN - 10, HEIGHT - MARGIN + 10
    step = inner / max(len(shares), 1)
    parts = [_axes("1", str(len(shares)), "0 %", f"{100 * top:.1f} %")]
    for i, share in enumerate(sorted(shares, reverse=True)):
        tall = share / top * (HEIGHT - MARGIN)
        parts.append(
            f'<rect x="{MARGIN + i * step:.2f}" y="{floor - tall:.1f}" width="{max(step * 0.85, 0.4):.2f}" '
            f'height="{tall:.1f}" fill="{COLOURS[0]}"/>'
        )
    if len(shares):
        even = floor - (1 / len(shares)) / top * (HEIGHT - MARGIN)
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - 10}" y1="{even:.1f}" y2="{even:.1f}" stroke="#888" '
            'stroke-dasharray="4 3"/>'
        )
    return _svg(parts)


def _video(report: Report) -> str:
    if report.video is None:
        return ""
    data = base64.b64encode(report.video.read_bytes()).decode()
    source = f'<source type="video/mp4" src="data:video/mp4;base64,{data}">'
    caption = f"<figcaption>{html.escape(report.video_caption)}</figcaption>"
    return f"<figure><video controls autoplay muted loop playsinline>{source}</video>{caption}</figure>"


def _rows(report: Report) -> str:
    names = list(report.rows[0]["subgoals"]) if report.rows else []
    head = ["policy", "success", "rate", f"{report.confidence:.0%} Wilson interval", "", *names, "falls", "timeouts"]
    body = []
    for row in report.rows:
        cells = [
            html.escape(row["label"]),
            f"{row['successes']} / {row['trials']}",
            f"{row['rate']:.0%}",
            f"{row['low']:.0%} - {row['high']:.0%}",
            _interval(row),
            *(str(row["subgoals"][n]) for n in names),
            str(row["falls"]),
            str(row["timeouts"]),
        ]
        body.append("<tr>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    return "<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + "</tr>" + "".join(body) + "</table>"


def _interval(row: dict) -> str:
    """A small bar from 0 to 100 % with the interval and the rate in it."""
    low, high, rate = (2 + 156 * row[k] for k in ("low", "high", "rate"))
    return (
        '<svg viewBox="0 0 160 14" width="160" height="14"><rect x="2" y="6" width="156" height="2" fill="#ddd"/>'
        f'<rect x="{low:.1f}" y="4" width="{high - low:.1f}" height="6" fill="{COLOURS[0]}" opacity="0.45"/>'
        f'<rect x="{rate - 1.5:.1f}" y="1" width="3" height="12" fill="{COLOURS[0]}"/></svg>'
    )


def _table(cells: list[list[str]]) -> str:
    rows = []
    for i, row in enumerate(cells):
        tag = "td" if i else "th"
        rows.append("<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in row) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _figure(title: str, svg: str) -> str:
    return f"<figure>{svg}<figcaption>{html.escape(title)}</figcaption></figure>"


def _svg(parts: list[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">{"".join(parts)}</svg>'


def _axes(left: str, right: str, bottom: str, top: str) -> str:
    floor = HEIGHT - MARGIN + 10
    frame = f"M{MARGIN} 10V{floor}H{WIDTH - 10}"
    return (
        f'<path d="{frame}" fill="none" stroke="#888"/>'
        + _text(MARGIN, floor + 16, left, "#555", "start")
        + _text(WIDTH - 10, floor + 16, right, "#555", "end")
        + _text(MARGIN - 4, floor, bottom, "#555", "end")
        + _text(MARGIN + 4, 18, top, "#555", "start")
    )


def _text(x: float, y: float, text: str, colour: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}" font-size="11">{html.escape(text)}</text>'


def _number(values: list[float], choose) -> str:
    return f"{choose(values):.3g}"


_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:860px;margin:2em auto;padding:0 1em;color:#222}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.8em}.facts{color:#555}"
    "table{border-collapse:collapse;font-size:14px}th,td{text-align:left;padding:.25em .9em .25em 0;"
    "border-bottom:1px solid #e4e4e4;vertical-align:middle}figure{margin:1em 0}figcaption{color:#555;font-size:13px}"
    "video{width:100%;max-width:640px;background:#000}.grid{display:flex;flex-wrap:wrap;gap:.5em 2em}"
    "svg text{font-family:system-ui,sans-serif}"
)
