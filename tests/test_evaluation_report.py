"""Laws of the report: self-contained, escaped, complete; films are h264 that a decoder reads back."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from wbvla.evaluation.film import FPS, Film
from wbvla.evaluation.report import Curve, Report, bar_chart, line_chart, render, write_report

av = pytest.importorskip("av")

VOID = {"meta", "source", "path", "rect", "line", "polyline"}


class Balanced(HTMLParser):
    """Checks that every tag is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def row(policy: str, successes: int) -> dict:
    return {"label": f"{policy} <&>", "policy": policy, "successes": successes, "trials": 9, "rate": 0.5,
            "low": 0.1, "high": 0.9, "falls": 1, "timeouts": 2, "subgoals": {"grab": 9, "push": 1}}  # fmt: skip


@pytest.fixture
def report(tmp_path):
    film = Film(tmp_path / "vla.mp4")
    for i in range(10):
        film.add(np.full((36, 48, 3), 20 * i, np.uint8))
    film.close()
    return Report(
        title="A <run>",
        facts={"seed": "0"},
        rows=[row("vla", 20), row("blind", 1)],
        confidence=0.9,
        video=tmp_path / "vla.mp4",
        video_caption="the VLA & the cart",
        curves={"loss": [Curve("a", [(0, 10.0), (1, 0.1), (2, float("nan"))]), Curve("none", [])], "empty": []},
        codebooks={"mani": [0.5, 0.3, 0.2, 0.0]},
        tables={"LAM": [["family", "use"], ["mani", "<75 %>"]]},
    )


def test_the_page_needs_nothing_from_elsewhere(report, tmp_path):
    write_report(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", page)
    assert not re.search(r"https?:|//|@import|url\(|<script|<link|<iframe", text)
    parser = Balanced()
    parser.feed(page)
    sources = [v for k, v in parser.attributes if k in ("src", "href", "poster", "data")]
    assert len(sources) == 1
    assert all(s.startswith("data:") for s in sources)


def test_the_page_is_well_formed_and_escaped(report):
    page = render(report)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert "vla &lt;&amp;&gt;" in page
    assert "A &lt;run&gt;" in page
    assert "20 / 9" in page


def test_films_are_h264_and_whole(report):
    with av.open(str(report.video)) as container:
        stream = container.streams.video[0]
        frames = [f.to_ndarray(format="rgb24").mean() for f in container.decode(stream)]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == FPS
    assert np.allclose(frames, 20 * np.arange(10), atol=6)


def test_charts_survive_strange_numbers():
    assert line_chart([Curve("a", [(0, float("nan"))])]) == ""
    assert "nan" not in line_chart([Curve("a", [(0, 1.0), (1, float("nan")), (2, 1.0)])])
    assert bar_chart([]).startswith("<svg")
    assert bar_chart([0.0, 0.0]).count("<rect") == 2
