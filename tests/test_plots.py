"""Figures: numbers drawn, text escaped, bytes kept small."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy import stats

from sesa_lab import plots, statistics
from sesa_lab.errors import InputError
from sesa_lab.types import Frame


def long(values: dict[tuple[str, int], list[float]], **columns: list[float]) -> pd.DataFrame:
    """One row a (arm, seed, step) from curves; steps count from 1."""
    rows = [
        {"arm": arm, "seed": seed, "step": i + 1, "y": y, **{name: c[i] for name, c in columns.items()}}
        for (arm, seed), curve in values.items()
        for i, y in enumerate(curve)
    ]
    return pd.DataFrame(rows)


def lines(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def captions(figure: go.Figure) -> str:
    return str(figure.layout.annotations[-1].text).replace("<br>", " ")


def test_curve_is_the_mean_and_the_band_its_interval() -> None:
    figure = plots.curves(long({("a", 0): [1.0, 2.0], ("a", 1): [3.0, 6.0], ("b", 0): [5.0, 5.0]}), "y", unit="nats")
    # two values m -+ d: s = d sqrt 2, half width t d; t(1 d.o.f.) = 12.7062; means 2 and 4, d = 1 and 2
    t = stats.t.ppf(0.975, 1)
    assert lines(figure)["a"].y.tolist() == [2.0, 4.0]
    bands = [trace for trace in figure.data if trace.fill == "toself"]
    assert len(bands) == 1  # one seed of b: a line, no band
    assert bands[0].x.tolist() == [1, 2, 2, 1]
    assert bands[0].y == pytest.approx([2 - t, 4 - 2 * t, 4 + 2 * t, 2 + t], rel=1e-6)
    assert figure.layout.yaxis.title.text == "y (nats)" and figure.layout.xaxis.title.text == "training step"
    assert "seeds 0, 1; n = 2" in captions(figure) and "95 % t interval" in captions(figure)
    assert "(n=1, no interval)" in lines(figure)["b"].customdata[0]


def test_band_breaks_where_one_seed_is_left() -> None:
    gap = long({("a", 0): [1, 1, math.nan, 1, 1], ("a", 1): [2, 2, 2, 2, 2]})
    bands = [trace.x.tolist() for trace in plots.curves(gap, "y").data if trace.fill]
    assert bands == [[1, 2, 2, 1], [4, 5, 5, 4]]


def test_curves_over_tokens_share_a_range() -> None:
    # seed 0 at 10, 20 (y = x); seed 1 at 15, 30 (y = 2 x): both known on 15..20, where their mean is 1.5 x
    table = pd.concat([
        long({("a", 0): [10.0, 20.0]}, tokens_total=[10, 20]),
        long({("a", 1): [30.0, 60.0]}, tokens_total=[15, 30]),
    ])  # fmt: skip
    line = lines(plots.curves(table, "y", x="tokens_total"))["a"]
    assert line.x.tolist() == [15, 20] and line.y.tolist() == [22.5, 30.0]


def test_curves_refuse_mixed_runs_and_unknown_columns() -> None:
    table = long({("a", 0): [1.0]})
    with pytest.raises(InputError, match="several rows at one step"):
        plots.curves(pd.concat([table, table]), "y")
    with pytest.raises(InputError, match="no column 'z'"):
        plots.curves(table, "z")


def test_bars_are_sorted_with_intervals_and_seeds() -> None:
    table = pd.DataFrame({"arm": ["b", "b", "a"], "seed": [0, 1, 0], "value": [4.0, 6.0, 1.0]})
    figure = plots.bars(statistics.summary(table, "value"), seeds=table, label="coverage", unit="treasures")
    assert figure.layout.yaxis.ticktext == ("a", "b")  # bottom to top: best on top
    points = lines(figure)
    t = stats.t.ppf(0.975, 1)
    assert points["b"].error_x.array == pytest.approx((t,)) and points["b"].x == (5.0,) and points["b"].y == (1,)
    assert points["a"].error_x.array is None  # one seed
    faint = [trace for trace in figure.data if trace.opacity]
    assert [list(trace.x) for trace in faint] == [[1.0], [4.0, 6.0]]
    assert figure.layout.xaxis.title.text == "coverage (treasures)"


PATHS = ["a||x", "a||y", "b||z"]


def frame(*masses: tuple[float, float, float]) -> pd.DataFrame:
    rows = [(step, PATHS[i], p, i == 2) for step, mass in enumerate(masses) for i, p in enumerate(mass)]
    return pd.DataFrame(rows, columns=["step", "strategy", "probability", "success"])


def test_tree_masses_by_hand() -> None:
    figure = plots.tree(PATHS, {"one": frame((0.5, 0.25, 0.25), (0.1, 0.0, 0.9)), "two": frame((1, 0, 0), (0, 0, 1))})
    nodes = figure.data[2]
    # leaves first, then the root and the inner nodes: a = x + y, b = z
    assert dict(zip(nodes.text, nodes.customdata, strict=True)) == {
        "a||x": 0.1, "a||y": 0.0, "b||z": 0.9, "root: all answers in the tree": 1.0, "a": 0.1, "b": 0.9,
    }  # fmt: skip
    slider = figure.layout.sliders[0]
    assert [step.label for step in slider.steps] == ["0", "1"] and slider.active == 1
    restyle, relayout, targets = json.loads(figure.to_json())["layout"]["sliders"][0]["steps"][0]["args"]
    assert targets == [2, 5] and len(figure.data) == 6
    assert restyle["customdata"] == [[0.5, 0.25, 0.25, 1.0, 0.75, 0.25], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]]
    # log10 0.5 = -0.301, log10 0.25 = -0.602, log10 0.75 = -0.125; 0 is drawn at the floor, 1e-5
    assert restyle["marker.color"][0] == [-0.3, -0.6, -0.6, 0.0, -0.12, -0.6]
    assert restyle["marker.color"][1] == [0.0, -5.0, -5.0, 0.0, 0.0, -5.0]
    assert "mass on treasures 0.250" in relayout["annotations[0].text"]
    assert "<b>one</b>" in figure.layout.annotations[0].text and "0.900" in figure.layout.annotations[0].text


def test_tree_layout() -> None:
    figure = plots.tree(PATHS, {"one": frame((0.5, 0.25, 0.25))})
    edges, marks, nodes = figure.data
    at = dict(zip(nodes.text, zip(nodes.x, nodes.y, strict=True), strict=True))
    assert at["root: all answers in the tree"] == (0.0, 0.0)
    assert all(math.hypot(*at[leaf]) == pytest.approx(1.0, abs=2e-3) for leaf in PATHS)
    assert math.hypot(*at["a"]) == pytest.approx(0.5, abs=2e-3)
    assert len(edges.x) == 3 * 5 and edges.x.count(None) == 5  # five edges, parted by gaps
    assert (marks.x[0], marks.y[0]) == pytest.approx([1.08 * value for value in at["b||z"]], abs=2e-3)


def test_tree_of_249_nodes_is_small() -> None:
    paths = [f"Land {a}||Town {a}{b}||Spot {a}{b}{c}" for a in range(8) for b in range(5) for c in range(5)]
    masses = np.random.default_rng(0).dirichlet(np.full(200, 0.1), 40)
    rows = [
        (s, p, m, i < 20) for s, mass in enumerate(masses) for i, (p, m) in enumerate(zip(paths, mass, strict=True))
    ]
    table = pd.DataFrame(rows, columns=["step", "strategy", "probability", "success"])
    figure = plots.tree(paths, dict.fromkeys(["a", "b", "c"], table))
    assert len(figure.data[2].x) == 249
    steps = [step.label for step in figure.layout.sliders[0].steps]
    assert len(steps) == 20 and (steps[0], steps[-1]) == ("0", "39")
    assert len(figure.to_json()) < 400_000


def test_tree_errors() -> None:
    one = frame((0.5, 0.25, 0.25))
    with pytest.raises(InputError, match="'c' is no leaf"):
        plots.tree(PATHS, {"a": one.assign(strategy="c")})
    with pytest.raises(InputError, match="several rows"):
        plots.tree(PATHS, {"a": pd.concat([one, one])})
    with pytest.raises(InputError, match="no step is in all"):
        plots.tree(PATHS, {"a": one, "b": one.assign(step=7)})
    with pytest.raises(InputError, match="2 paths, 1 different"):
        plots.tree(["a", "a"], {"a": one})


def test_provenance() -> None:
    runs = [{"run": f"exp/{s}", "commit": "abc1234def", "config": "fast", "seed": s} for s in range(5)]
    assert plots.provenance(runs) == (
        "runs exp/0, exp/1, exp/2, exp/3, exp/4; commit abc1234; config: fast; seeds 0-4; n = 5;"
        " bands: 95 % t interval over seeds"
    )
    assert plots.provenance([{}], bands="") == "runs unknown; commit unknown; config: unknown; seeds unknown"
    assert "commit abc1234+;" in plots.provenance([{"run": "r", "commit": "abc1234def+", "seed": 1}])  # uncommitted
    uneven = [{"run": f"{config}{seed}", "config": config, "seed": seed} for config, seed in ("a1", "a2", "a3", "b1")]
    assert plots.provenance(uneven, "").endswith("config: a, b; seeds 1, 2, 3; n = 1 to 3")
    many = plots.provenance([{"run": f"r{i}", "seed": i} for i in (3, 1, 7, 8, 9, 20, 21)])
    assert many.startswith("runs r3, r1, r7, r8, r9, and 2 more; commit unknown")
    assert "seeds 1, 3, 7, 8, 9, 20, 21; n = 7" in many


HOSTILE = "<script>window.pwned=1</script>\n\u2028<b>"


def test_every_text_is_escaped() -> None:
    table = long({(HOSTILE, 0): [1.0, 2.0], ("b" + HOSTILE, 1): [1.0, 2.0]})
    summary = statistics.summary(table[table["step"] == 1], "y")
    paths = [f"{HOSTILE}||x", f"{HOSTILE}||y"]
    rows = pd.DataFrame({"step": 0, "strategy": paths, "probability": [0.5, 0.5], "success": [True, False]})
    caption = plots.provenance([{"run": HOSTILE, "config": HOSTILE, "seed": HOSTILE}])
    for figure in (
        plots.curves(table, "y", title=HOSTILE, unit=HOSTILE, caption=caption),
        plots.bars(summary, title=HOSTILE, label=HOSTILE, caption=caption),
        plots.tree(paths, {HOSTILE: rows}, title=HOSTILE, caption=caption),
    ):
        assert "<script" not in figure.to_json() and "\\u003cscript" not in figure.to_json()
        assert "&lt;script&gt;" in json.loads(figure.to_json())["layout"]["title"]["text"]


def test_escape() -> None:
    assert plots.escape("a\nb\u202ec<") == "a·b·c&lt;"
    # Marks of direction and what is not to be seen: LRM, RLM, ALM, zero width, BOM, soft hyphen, a tag, a lone surrogate.
    for mark in "\u200e\u200f\u061c\u200b\u200d\u2060\ufeff\u00ad\U000e0041\ud800\x1b\x85\u2028\u2069":
        assert plots.escape(f"a{mark}b") == "a·b"
    assert plots.escape("é\u00a0\u3000\u05d0\u0661\U0001f3c6") == "é\u00a0\u3000\u05d0\u0661\U0001f3c6"
    assert plots.escape("x" * 100, 10) == "x" * 9 + "…"


def episodes() -> list[plots.Replay]:
    def frame(number: int) -> Frame:
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><text>&lt;{number}#%</text></svg>'
        return Frame(f"move {number} <b>", "", svg)

    return [
        plots.Replay("one", [frame(n) for n in range(3)], "first & last"),
        plots.Replay("two", [frame(n) for n in range(10, 14)]),
    ]


def shown_by(change: dict[str, str]) -> tuple[str, str]:
    """The picture, decoded, and the caption that a slider's stop or a menu's entry puts in their places."""
    kind, _, picture = change["images[0].source"].partition(",")
    assert kind == "data:image/svg+xml" and "#" not in picture and "<" not in picture
    return unquote(picture), change["annotations[1].text"]


def test_gallery_replays_every_frame() -> None:
    figure = json.loads(plots.gallery(episodes(), "Episodes", "runs a; seed 0").to_json())
    layout = figure["layout"]
    assert len(figure["data"]) == 1, "a figure without any trace would not be drawn"
    for slider, episode in zip(layout["sliders"], episodes(), strict=True):
        stops = [shown_by(step["args"][0]) for step in slider["steps"]]
        assert stops == [(frame.svg, frame.caption.replace("<b>", "&lt;b&gt;")) for frame in episode.frames]
        assert {step["method"] for step in slider["steps"]} == {"relayout"}
    assert [slider["visible"] for slider in layout["sliders"]] == [True, False]
    assert unquote(layout["images"][0]["source"]).endswith(episodes()[0].frames[0].svg)
    assert [note["text"] for note in layout["annotations"]] == [
        "<b>one</b><br>first &amp; last", "move 0 &lt;b&gt;", "runs a; seed 0",
    ]  # fmt: skip
    second = layout["updatemenus"][0]["buttons"][1]
    assert second["label"] == "two" and shown_by(second["args"][0])[1] == "move 10 &lt;b&gt;"
    assert {key: value for key, value in second["args"][0].items() if key.startswith(("sliders", "annotations[0]"))} == {
        "sliders[0].visible": False, "sliders[1].visible": True, "sliders[1].active": 0, "annotations[0].text": "<b>two</b>",
    }  # fmt: skip


def test_gallery_says_what_it_leaves_out() -> None:
    layout = plots.gallery(episodes(), most=3).layout
    assert [len(slider.steps) for slider in layout.sliders] == [3, 3]
    assert "left out" not in layout.updatemenus[0].buttons[0].args[0]["annotations[0].text"]
    assert "(the last 1 moves are left out)" in layout.updatemenus[0].buttons[1].args[0]["annotations[0].text"]


def test_gallery_escapes_what_policies_wrote() -> None:
    frames = [plots.text_frame(HOSTILE, HOSTILE)]
    figure = plots.gallery([plots.Replay(HOSTILE, frames, HOSTILE)], HOSTILE, HOSTILE)
    assert "<script" not in figure.to_json() and "\\u003cscript" not in figure.to_json()
    assert "&lt;script&gt;" in figure.layout.updatemenus[0].buttons[0].label


def test_text_frame_is_one_picture_of_lines() -> None:
    frame = plots.text_frame("turn 1", "P _ <G>\n\nReward: 0 & more")
    picture = ElementTree.fromstring(frame.svg)
    assert [line.text for line in picture] == ["P _ <G>", None, "Reward: 0 & more"]
    assert picture.attrib["viewBox"] == "0 0 144 64"  # 16 letters of 8 and 16 around; 3 lines of 16 and 16 around
    assert frame.caption == "turn 1" and len(list(ElementTree.fromstring(plots.text_frame("", "").svg))) == 1


def test_gallery_errors() -> None:
    with pytest.raises(InputError, match="0 episodes"):
        plots.gallery([])
    with pytest.raises(InputError, match="each with a frame"):
        plots.gallery([plots.Replay("empty", [])])
    with pytest.raises(InputError, match="else it stays blank"):
        plots.gallery([plots.Replay("blank", [Frame("", "", '<svg viewBox="0 0 1 1"></svg>')])])


def test_few_counted_things_have_no_ticks_between() -> None:
    table = long({("a", 0): [1.0, 2.0], ("a", 1): [2.0, 3.0]})
    assert plots.curves(table, "y").layout.xaxis.dtick == 1
    assert plots.curves(table.assign(step=table["step"] * 100), "y").layout.xaxis.dtick is None
    assert plots.curves(table.assign(step=table["step"] + 0.5), "y").layout.xaxis.dtick is None


def test_more_arms_than_colours_are_told_apart() -> None:
    table = long({(f"arm {i}", 0): [1.0, 2.0] for i in range(9)})
    looks = [(trace.line.color, trace.line.dash) for trace in plots.curves(table, "y").data]
    assert len(set(looks)) == 9
