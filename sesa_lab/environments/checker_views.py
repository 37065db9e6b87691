"""The part of the contract checker that looks at what is told of an answer: ``sketch``, ``habitual`` and ``render``."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from sesa_lab.environments.checker_tools import check_text, equal, fail, guarded, hostile_texts, short
from sesa_lab.environments.contract import Environment
from sesa_lab.types import Frame, Task

MOST_FRAMES = 2_000
MOST_CHARACTERS = 200_000  # of a frame
MOST_CAPTION = 200
MOST_SKETCH = 200
_SOLUTIONS = 50  # of a task, of which sketches are looked at in every wording
_RAW = ("<script", "<img")  # of ``checker_tools.MARKUP`` and ``ATTRIBUTE``
_ACTIVE = ("script", "foreignObject", "image", "iframe", "img", "set", "animate")


def check_views(env: Environment, twin: Environment, task: Task) -> None:
    """Look at sketches and frames of ``task``; silent where they keep the contract."""
    answer = env.oracle(task)
    for text in [answer, *(env.solutions(task) or [])[:_SOLUTIONS]]:
        _check_wordings(env, twin, task, text)
    _check_hard(env, task)
    first = _frames(env, task, "", "the task alone")[0]
    told = _frames(env, task, answer, "the oracle's answer")
    if len(told) < 2:
        fail(env, "render of the oracle's answer has 1 frame", "the task, then one frame a move", "the answer not read")
    equal(env, "render of the oracle's answer by a twin", twin.render(task, answer), told, "a set's order, or ids drawn"
          " at random in the svg")  # fmt: skip
    for label, text in hostile_texts(answer).items():
        check_view(env, task, text, label)
        equal(env, f"the first frame for {label}", env.render(task, text)[0], first, "the first frame is to show the task"
              " as it stands before the answer")  # fmt: skip


def check_view(env: Environment, task: Task, text: str, label: str) -> None:
    """What may be said of any text: a sketch or none, habitual or not, and frames that do no harm."""
    sketch = _sketch(env, task, text, label)
    if sketch is not None and not text.strip():
        fail(env, f"sketch of {label} is {short(sketch)}", "None", "nothing is taken for a default")
    _habitual(env, text, label)
    _frames(env, task, text, label)


def _check_wordings(env: Environment, twin: Environment, task: Task, answer: str) -> None:
    """The sketch of an answer that succeeds, and of the same in other wordings."""
    sketch = _sketch(env, task, answer, short(answer))
    if sketch is None:
        fail(env, f"sketch of {short(answer)} is None", "text for what the oracle and the solver say", "sketch and score"
             " read different formats")  # fmt: skip
    equal(env, f"sketch of {short(answer)} by a twin", twin.sketch(task, answer), sketch, "a set's order")
    habitual = _habitual(env, sketch, f"the sketch {short(sketch)}")
    equal(env, f"habitual({short(sketch)}) by a twin", twin.habitual(sketch), habitual, "habits are drawn, or learnt")
    strategy = env.score(task, answer).strategy
    for text in (f" \n\t{answer}\r\n ", answer.upper(), answer.lower(), answer.swapcase()):
        came, same = _sketch(env, task, text, short(text)), env.score(task, text).strategy == strategy
        if came != sketch and (same or came is not None):
            fail(env, f"sketch of {short(text)} is {short(came)}", f"{short(sketch)}, as of {short(answer)}", "the sketch"
                 " is made of the text as written, not of the way that score reads in it")  # fmt: skip


def _check_hard(env: Environment, task: Task) -> None:
    """``task.data["hard"]``, where there is one, against the sketches of all solutions."""
    solutions = env.solutions(task)
    if "hard" not in task.data or solutions is None:
        return
    habitual = [text for text in solutions if env.habitual(str(env.sketch(task, text)))]
    if task.data["hard"] is not (not habitual):
        fail(env, f"hard of task {task.index} is {short(task.data['hard'])}",
             f"{not habitual}: {len(habitual)} of its {len(solutions)} solutions are habitual",
             "hard is worked out by other rules than sketch and habitual, or by other solutions")  # fmt: skip


def _sketch(env: Environment, task: Task, text: str, label: str) -> str | None:
    sketch = guarded(env, "sketch", label, lambda: env.sketch(task, text))
    if sketch is None:
        return None
    check_text(env, f"sketch of {label}", sketch)
    if not sketch or sketch != " ".join(sketch.split()) or len(sketch) > MOST_SKETCH:
        fail(env, f"sketch of {label} is {short(sketch)}", f"1 to {MOST_SKETCH} characters on one line, parted by single"
             " blanks", "text of the answer passed through")  # fmt: skip
    return sketch


def _habitual(env: Environment, sketch: str, label: str) -> bool:
    habitual = guarded(env, "habitual", label, lambda: env.habitual(sketch))
    if not isinstance(habitual, bool):
        fail(env, f"habitual of {label} is {short(habitual)}", "a bool", "a match or a list instead of a truth value")
    return habitual


def _frames(env: Environment, task: Task, text: str, label: str) -> list[Frame]:
    frames = guarded(env, "render", label, lambda: env.render(task, text))
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, Frame) for frame in frames):
        fail(env, f"render of {label} is {short(frames)}", "a list of at least one Frame", "no first frame of the task")
    if len(frames) > MOST_FRAMES:
        fail(env, f"render of {label} has {len(frames)} frames", f"at most {MOST_FRAMES}", "no limit on the moves read")
    for number, frame in enumerate(frames):
        _check_frame(env, frame, f"frame {number} of {label}")
    return frames


def _check_frame(env: Environment, frame: Frame, label: str) -> None:
    for name in ("caption", "text", "svg"):
        value = getattr(frame, name)
        check_text(env, f"{name} of {label}", value)
        if not value:
            fail(env, f"{name} of {label} is empty", "text", "a state that is not drawn")
        if any(raw in value.lower() for raw in _RAW):
            fail(env, f"{name} of {label} holds markup of the answer: {short(value)}", "nothing of it, or escaped",
                 "no html.escape around what the policy wrote")  # fmt: skip
    if len(frame.caption) > MOST_CAPTION or len(frame.text) + len(frame.svg) > MOST_CHARACTERS:
        fail(env, f"{label} has a caption of {len(frame.caption)} and a state of {len(frame.text) + len(frame.svg)} "
             "characters", f"at most {MOST_CAPTION} and {MOST_CHARACTERS}", "text of the answer passed through")  # fmt: skip
    _check_svg(env, frame.svg, label)


def _check_svg(env: Environment, svg: str, label: str) -> None:
    root = None
    if svg.startswith("<svg"):  # asked first: so a DOCTYPE, which may define entities without end, is never parsed
        try:
            root = ElementTree.fromstring(svg)
        except ElementTree.ParseError as error:
            fail(env, f"svg of {label} is not well-formed ({error}): {short(svg)}", "XML", "text put in without"
                 " html.escape, or control characters, which XML cannot hold")  # fmt: skip
    if root is None or _local(root.tag) != "svg":
        fail(env, f"svg of {label} begins with {short(svg[:40])}", "one <svg> element", "an XML or DOCTYPE line before it,"
             " or HTML around it")  # fmt: skip
    if not _is_box(root.get("viewBox", "")):
        fail(env, f"viewBox of {label} is {short(root.get('viewBox'))}", "4 numbers, the last two positive", "width and"
             " height instead of a viewBox, or an empty grid")  # fmt: skip
    for element in root.iter():
        if _local(element.tag) in _ACTIVE or any(_is_active(key, value) for key, value in element.attrib.items()):
            fail(env, f"svg of {label} holds <{_local(element.tag)} {short(element.attrib)}>", "shapes and text only",
                 "an attribute made of the answer's text, or something that a report must not load or run")  # fmt: skip


def _is_box(box: str) -> bool:
    try:
        _, _, width, height = map(float, box.split())
    except ValueError:
        return False
    return width > 0 and height > 0


def _is_active(key: str, value: str) -> bool:
    """Handlers (``onload``), and links to anywhere but within the picture."""
    key = _local(key)
    return key.lower().startswith("on") or (key == "href" and not value.startswith("#"))


def _local(tag: Any) -> str:
    """``{namespace}svg`` -> ``svg``; comments and the like have no text for a tag."""
    return str(tag).rpartition("}")[2]
