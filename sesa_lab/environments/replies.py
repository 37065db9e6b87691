"""Replies in tags, as RAGEN asks for them: ``<think>...</think><answer>...</answer>``."""

from __future__ import annotations

import re

LONGEST = 100_000
"""Characters of a reply; a longer one is not read at all."""

_BETWEEN = re.compile(r"</think>\s*<answer>")


def inside_tags(text: str) -> str:
    """What the first ``<think>...</think><answer>...</answer>`` of a reply holds as its answer; empty where there is none.

    White space may stand between the two, anything around them. Time is linear in the length of the text.
    """
    if len(text) > LONGEST:
        return ""
    begin = text.find("<think>")
    between = _BETWEEN.search(text, begin) if begin >= 0 else None
    end = text.find("</answer>", between.end()) if between else -1
    return text[between.end() : end] if between and end >= 0 else ""
