"""Markdown cells to HTML: raw HTML escaped, formulas as MathML, headings collected for the table of contents."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import mistune
from latex2mathml.converter import Converter
from mistune.plugins.math import math as math_plugin
from mistune.plugins.math import math_in_list, math_in_quote

_MATH_ATTRIBUTES = frozenset(
    [
        "xmlns",
        "display",
        "mathvariant",
        "stretchy",
        "fence",
        "form",
        "accent",
        "accentunder",
        "columnalign",
        "columnspacing",
        "rowspacing",
        "columnlines",
        "rowlines",
        "lspace",
        "rspace",
        "largeop",
        "movablelimits",
        "minsize",
        "maxsize",
        "linethickness",
        "width",
        "height",
        "depth",
        "displaystyle",
        "scriptlevel",
        "separator",
        "symmetric",
    ]
)


@dataclass(frozen=True)
class Heading:
    """One line of the table of contents; ``title`` is escaped text."""

    level: int
    anchor: str
    title: str


class Markdown:
    """Renders the cells of one report; anchors are unique within it.

    Attributes:
        headings: in the order rendered; levels start at 2, for the page's title is the only h1.
    """

    def __init__(self) -> None:
        self.headings: list[Heading] = []
        renderer = _Renderer(self)
        plugins: list[Any] = ["table", "strikethrough", math_plugin, math_in_quote, math_in_list]
        self._render = mistune.create_markdown(renderer=renderer, plugins=plugins)
        renderer.register("block_math", lambda _, text: mathml(text, "block"))
        renderer.register("inline_math", lambda _, text: mathml(text, "inline"))

    def __call__(self, source: str) -> str:
        """The HTML of one cell's Markdown."""
        return str(self._render(source))

    def heading(self, inner: str, level: int) -> str:
        """Registers a heading whose rendered text is ``inner``; returns its HTML."""
        title = re.sub(r"<[^>]*>", "", inner).strip()
        slug = re.sub(r"[^a-z0-9]+", "-", html.unescape(title).lower()).strip("-") or "section"
        taken = {heading.anchor for heading in self.headings}
        anchor, number = f"s-{slug}", 2
        while anchor in taken:
            anchor, number = f"s-{slug}-{number}", number + 1
        self.headings.append(Heading(level, anchor, title))
        return f'<h{level} id="{anchor}">{inner}</h{level}>\n'


class _Renderer(mistune.HTMLRenderer):
    """Raw HTML is escaped; an image that would be loaded from elsewhere becomes its text."""

    def __init__(self, owner: Markdown) -> None:
        super().__init__(escape=True)
        self._owner = owner

    def heading(self, text: str, level: int, **attrs: Any) -> str:
        return self._owner.heading(text, min(level + 1, 6))

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if url.lower().startswith(self.GOOD_DATA_PROTOCOLS):
            return super().image(text, url, title)
        return f"[image left out: {text}]"


def mathml(latex: str, display: str) -> str:
    r"""LaTeX as MathML (``display`` is inline or block); what cannot be read stays as escaped source.

    latex2mathml's own ``convert`` unescapes its output, so that ``\text{<script>}`` would reach the page as markup:
    the tree is serialised here instead, and attributes outside a list (``\href`` makes links) are dropped.
    """
    try:
        tree = Converter(display=display).convert_to_element(latex.strip())
    except Exception:  # whatever the parser trips over, the reader still gets the source
        return f"<code>{html.escape(latex)}</code>"
    for element in tree.iter():
        element.text = html.unescape(element.text) if element.text else element.text
        element.attrib = {k: html.unescape(v) for k, v in element.attrib.items() if k in _MATH_ATTRIBUTES}
    return ElementTree.tostring(tree, encoding="unicode")
