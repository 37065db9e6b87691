"""A page that shows the inspector as JupyterLab does: its JavaScript as a module, and a model whose other half is in Python.

The widget behind it is the real one, so a key that is pressed goes the whole way: page, traits, run folder, page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from sesa_lab.widgets import inspector

FOLDER = Path(inspector.__file__).parent
TRAITS = ["step", "group", "candidates", "colouring", "sort", "filter", "steps", "groups", "sides", "listed", "details"]
TRAITS += ["replays", "sketch_colouring", "clustered"]
_PAGE = """<!doctype html><meta charset="utf-8"><title>inspector</title><style>CSS</style>
<style>body { margin: 16px } @media (prefers-color-scheme: dark) { body { background: #111 } }</style><div id="root"></div><script>
class Model {
  constructor(state) { this.state = state; this.listeners = {}; this.changed = {}; this.log = []; }
  get(name) { return this.state[name]; }
  set(name, value) { this.state[name] = value; this.changed[name] = value; this.tell(`change:${name}`); }
  on(names, f) { for (const name of names.split(" ")) (this.listeners[name] ??= []).push(f); }
  off(names, f) { for (const name of names.split(" ")) this.listeners[name] = this.listeners[name].filter((g) => g !== f); }
  tell(name, value) { for (const f of [...(this.listeners[name] ?? [])]) f(value); }
  save_changes() { const changed = this.changed; this.changed = {}; this.log.push({ set: changed }); this.ask({ set: changed }); }
  send(content) { this.log.push({ send: content }); this.ask({ send: content }); }
  async ask(what) {
    const { state, messages } = await toPython(what);
    for (const name of Object.keys(state)) {
      if (JSON.stringify(state[name]) === JSON.stringify(this.state[name])) continue;
      this.state[name] = state[name];
      this.tell(`change:${name}`);
    }
    for (const message of messages) this.tell("msg:custom", message);
  }
}
async function start(state) {
  const source = URL.createObjectURL(new Blob([SOURCE], { type: "text/javascript" }));
  const widget = (await import(source)).default;
  window.model = new Model(state);
  window.cleanup = widget.render({ model, el: document.getElementById("root") });
}
</script>"""


def page_file(folder: Path) -> Path:
    """The page, on disk."""
    source = json.dumps((FOLDER / "inspector.js").read_text()).replace("<", "\\u003c")
    css = (FOLDER / "inspector.css").read_text()
    path = folder / "inspector.html"
    path.write_text(_PAGE.replace("CSS", css, 1).replace("SOURCE", source, 1))
    return path


class Kernel:
    """The Python half. A pure JSON value goes either way, as over a comm.

    Args:
        widget: the inspector.
        waits: an expansion is answered before the page hears anything else; else when ``catch_up`` is called.
    """

    def __init__(self, widget: inspector.SketchInspector, waits: bool = True) -> None:
        self.widget, self.waits, self.messages = widget, waits, []  # type: ignore[var-annotated]
        widget.send = self.messages.append

    def state(self) -> dict[str, Any]:
        if self.widget._drawing is not None:
            self.widget._drawing.result(60)
        if self.widget._clustering is not None:
            self.widget._clustering.exception(60)
        state = {name: getattr(self.widget, name) for name in TRAITS}
        return dict(json.loads(json.dumps(state, allow_nan=False)))

    def answer(self, what: dict[str, Any]) -> dict[str, Any]:
        self.messages.clear()
        if "set" in what:
            self.widget.set_state(what["set"])
        else:
            self.widget._handle_custom_msg(what["send"], [])
        if self.waits:
            self.wait()
        return {"state": self.state(), "messages": list(self.messages)}

    def wait(self) -> None:
        """Until no sketch is being expanded."""
        if self.widget._expanding is not None:
            self.widget._expanding.exception(60)

    def catch_up(self, page: Page) -> None:
        """What the expansions under way come to is told to the page."""
        self.wait()
        said = json.loads(json.dumps(self.messages, allow_nan=False))
        self.messages.clear()
        page.evaluate("said => said.forEach((message) => model.tell('msg:custom', message))", said)

    def show(self, page: Page) -> None:
        """Draw the widget in an open page of ``page_file``."""
        page.expose_function("toPython", self.answer)
        page.evaluate("start", self.state())
        page.wait_for_selector(".sesa")
