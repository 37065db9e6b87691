"""Episodes replayed move by move: a menu of episodes, a slider over the moves of each, and one picture.

The pictures are data addresses inside the figure, so that a report replays them with no network; as images they run no
script. The slider and the menu are plotly's own and need no kernel.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go

from sesa_lab.errors import InputError
from sesa_lab.plots.theme import caption_or, escape, finish
from sesa_lab.types import Frame

_XMLNS = 'xmlns="http://www.w3.org/2000/svg"'
_SAFE = " =:;,/()"
"""What an address keeps as it is, where no markup can end at it: a sixth of its length."""
_ROOM = 66  # pixels above the picture: what the episode is, and what its present move does
_MENU = {"bgcolor": "#eef2f6", "bordercolor": "#767b84", "font": {"color": "#1f2328"}}
"""Of its own ground and ink: plotly paints the chosen entry nearly white, on dark pages too."""


@dataclass(frozen=True)
class Replay:
    """One episode to be shown.

    Attributes:
        label: in the menu and above the picture, e.g. whose it is and how it ended.
        frames: from the start to the end, at least one (``environment.render``).
        words: what the policy said, shown above the picture; hostile text, escaped here.
    """

    label: str
    frames: Sequence[Frame]
    words: str = ""


def gallery(
    episodes: Sequence[Replay], title: str = "", caption: str | None = None, height: int = 380, most: int = 100
) -> go.Figure:
    """A menu over ``episodes`` and, for the one chosen, a slider over its moves; the first episode's start is drawn.

    Args:
        episodes: at least one.
        caption: see ``provenance``.
        height: of the picture, pixels.
        most: frames of an episode beyond these are left out, and its heading says so.

    Raises:
        InputError: no episode, an episode without frames, or a picture that is no SVG element of its own.
    """
    if not episodes or not all(episode.frames for episode in episodes):
        raise InputError(f"{len(episodes)} episodes, expected at least one, each with a frame: choose others to replay")
    figure = go.Figure(go.Scatter(x=[None], y=[None], mode="markers", hoverinfo="skip", showlegend=False))
    first = _start(episodes[0], most)
    figure.add_layout_image(
        source=first["images[0].source"], xref="paper", yref="paper", x=0.5, y=1, sizex=1, sizey=1, xanchor="center",
        yanchor="top", sizing="contain",
    )  # fmt: skip
    for text, shift in ((first["annotations[0].text"], _ROOM), (first["annotations[1].text"], 26)):
        figure.add_annotation(
            text=text, x=0, y=1, xref="paper", yref="paper", xanchor="left", yanchor="top", yshift=shift, align="left",
            showarrow=False,
        )  # fmt: skip
    sliders = [_slider(episode, most, place == 0) for place, episode in enumerate(episodes)]
    figure.update_layout(sliders=sliders, updatemenus=[_menu(episodes, most)], dragmode=False)
    figure.update_xaxes(visible=False, fixedrange=True)
    figure.update_yaxes(visible=False, fixedrange=True)
    said = caption_or(caption, None, "")
    return finish(figure, title, said.rstrip("; "), height, below=90, top=96 + _ROOM)


def text_frame(caption: str, text: str) -> Frame:
    """A frame whose picture is ``text`` itself, line by line; for episodes that have no pictures of their own."""
    lines = [escape(line, 100) for line in text.splitlines()[:60]] or [""]
    width = 16 + 8 * max(len(html.unescape(line)) for line in lines)
    body = "".join(
        f'<text x="8" y="{18 + 16 * row}" font-size="13" font-family="monospace" xml:space="preserve" fill="#7f7f7f">{line}</text>'
        for row, line in enumerate(lines)
    )
    svg = f'<svg {_XMLNS} viewBox="0 0 {width} {16 * len(lines) + 16}">{body}</svg>'
    return Frame(caption, text, svg)


def _address(svg: str) -> str:
    """``svg`` as a data address; percent-encoded, which packs far better than base64, and no more of it than an address needs."""
    if not svg.startswith("<svg") or _XMLNS not in svg[: svg.find(">")]:
        raise InputError(
            f"a frame's picture begins with {svg[:40]!r}, expected <svg {_XMLNS} ...>: else it stays blank"
        )
    return "data:image/svg+xml," + quote(svg, safe=_SAFE)


def _shown(frame: Frame) -> dict[str, str]:
    """What a move changes in the layout."""
    return {"images[0].source": _address(frame.svg), "annotations[1].text": escape(frame.caption, 120)}


def _start(episode: Replay, most: int) -> dict[str, str]:
    """What the choice of an episode changes, its slider apart."""
    left_out = len(episode.frames) - most
    more = f" (the last {left_out} moves are left out)" if left_out > 0 else ""
    words = f"<br>{escape(episode.words, 110)}" if episode.words else ""
    return {**_shown(episode.frames[0]), "annotations[0].text": f"<b>{escape(episode.label)}</b>{more}{words}"}


def _slider(episode: Replay, most: int, visible: bool) -> dict[str, Any]:
    steps = [
        {"method": "relayout", "label": str(place), "args": [_shown(frame)]}
        for place, frame in enumerate(episode.frames[:most])
    ]
    return {
        "steps": steps,
        "active": 0,
        "visible": visible,
        "currentvalue": {"prefix": "move "},
        "pad": {"t": 10},
        "ticklen": 4,
        "bordercolor": "#767b84",
        "bgcolor": "rgba(128,128,128,0.3)",
    }


def _menu(episodes: Sequence[Replay], most: int) -> dict[str, Any]:
    buttons = []
    for chosen, episode in enumerate(episodes):
        sliders: Mapping[str, Any] = {f"sliders[{place}].visible": place == chosen for place in range(len(episodes))}
        change = {**_start(episode, most), **sliders, f"sliders[{chosen}].active": 0}
        buttons.append({"method": "relayout", "label": escape(episode.label), "args": [change]})
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": _ROOM + 6}}
    return {"buttons": buttons, "active": 0, "direction": "down", "showactive": True, **place, **_MENU}
