// Draws what Python sends (see inspector.py) and sends choices back. No framework, no build step, nothing from a network.
// All text of a policy becomes text nodes; the environment's pictures become images, in which no script runs.

const HUES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B5A2B", "#8A8A8A"]; // plots/theme.COLOURS
const SORTS = {
  drafting: "drafting order",
  reward: "reward",
  credited: "credited reward",
  advantage: "advantage",
  logprob: "log-prob",
  length: "length",
  strategy: "strategy",
};
const OUTCOMES = { all: "all outcomes", solved: "solved", failed: "failed", unreadable: "unreadable" };
const COLOURINGS = { surprisal: "surprisal", entropy: "entropy", trained: "in training", ratio: "ratio", plain: "plain" };
const SKETCH_COLOURINGS = { strategy: "strategy", cluster: "cluster" };
const NO_FILTER = { text: "", strategy: null, outcome: "all", low: null, high: null };
const MOST_SURPRISAL = 5; // nats at which a token has its full colour
const MOST_RATIO = Math.log(2); // likewise: twice or half as probable
const RATIO = "importance ratio of the whole completion: its probability under the first training context / under the drawing one";
const KEPT = 64; // candidates whose edited sketch, and what came of it, are remembered
// errors.UNSEEN, pair by pair: what steers, changes the direction of text, or is not to be seen.
const UNSEEN = [
  [0x00, 0x1f], [0x7f, 0x9f], [0xad, 0xad], [0x034f, 0x034f], [0x061c, 0x061c], [0x115f, 0x1160], [0x17b4, 0x17b5],
  [0x180b, 0x180f], [0x200b, 0x200f], [0x2028, 0x202e], [0x2060, 0x206f], [0x3164, 0x3164], [0xd800, 0xdfff], [0xfeff, 0xfeff],
  [0xffa0, 0xffa0], [0xfff9, 0xfffb], [0x1bca0, 0x1bca3], [0x1d173, 0x1d17a], [0xe0000, 0xe007f],
];
const INSIDE = UNSEEN.map((pair) => pair.map((code) => `\\u{${code.toString(16)}}`).join("-")).join("");
const MARKED = new RegExp(`(?![\\t\\n])[${INSIDE}]`, "gu"); // tabs and line breaks do in a page what they are for

// An element; children that are no nodes become text.
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "hue") {
      if (value) element.style.setProperty("--hue", value);
    } else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// Text with what is not to be seen, such as escape codes and changes of direction, made visible by its numbers.
function shown(text) {
  return text.replace(MARKED, (letter) => `\u27e8${letter.codePointAt(0).toString(16).padStart(2, "0")}\u27e9`);
}

function number(value, digits = 2) {
  if (value === null || value === undefined) return "\u2013";
  return (Number.isInteger(value) ? String(value) : value.toFixed(digits)).replace("-", "\u2212");
}

// A ratio, which may be tiny or huge: beyond all numbers it is told as a power of e.
function times(value, log) {
  if (log === null || log === undefined) return number(value);
  if (!value) return `e^${number(log, 0)}`;
  if (value === 1 || (value >= 0.01 && value < 1000)) return number(value);
  return value.toExponential(1).replace("-", "\u2212").replace("+", "");
}

const hue = (place) => (place === null || place === undefined || place < 0 ? null : HUES[place % HUES.length]);
const options = (names) => Object.entries(names).map(([value, text]) => h("option", { value }, text));
// Lengths and offsets of texts are Python's: it counts letters, where JavaScript counts halves of those beyond U+FFFF.
const cut = (said) => shown(said.text) + (said.cut ? ` \u2026 (${said.chars.toLocaleString("en")} letters)` : "");

class Page {
  constructor(model, element) {
    this.model = model;
    this.root = h("div", {
      class: "sesa",
      tabindex: 0,
      role: "group",
      "aria-label": "sketch inspector",
      "data-lm-suppress-shortcuts": "true", // JupyterLab would take the arrows for its cells
      onkeydown: (event) => this.key(event),
    });
    this.active = 0; // the side that up and down move in
    this.stages = []; // per side: whose replay it is, and the frame shown
    this.timers = new Set();
    this.edited = new Map(); // what was typed, asked and answered, by candidate: it outlives a redraw, and shows nowhere else
    this.root.append(this.navigation(), this.filters(), (this.body = h("div", { class: "sides" })));
    element.append(this.root);
    this.listeners = [
      ["change:sides change:listed change:candidates change:details change:colouring", () => this.later("draw")],
      ["change:sketch_colouring change:clustered", () => this.later("draw")],
      ["change:replays", () => this.later("stage")],
      ["change:step change:group change:steps change:groups change:filter change:sort", () => this.later("draw")],
      ["msg:custom", (message) => this.answered(message)],
    ];
    for (const [events, listener] of this.listeners) model.on(events, listener);
    this.draw();
  }

  close() {
    for (const [events, listener] of this.listeners) this.model.off(events, listener);
    for (const timer of this.timers) clearInterval(timer);
  }

  // Several traits arrive in one message: they are drawn once.
  later(what) {
    this.due = this.due === "draw" ? "draw" : what;
    this.frame ??= requestAnimationFrame(() => {
      const due = this.due;
      this.frame = this.due = undefined;
      if (due === "draw") this.draw();
      else this.model.get("replays").forEach((_, side) => this.stage(side));
    });
  }

  get(name) {
    return this.model.get(name);
  }

  set(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
  }

  // ---- choices -------------------------------------------------------------------------------------------------------

  navigation() {
    this.slider = h("input", {
      type: "range",
      min: 0,
      "aria-label": "step",
      oninput: () => this.stepAt(Number(this.slider.value)),
    });
    this.stepText = h("b", {});
    this.back = h("button", { title: "previous step (left)", "aria-label": "previous step", onclick: () => this.move(-1) }, "\u25c0");
    this.forth = h("button", { title: "next step (right)", "aria-label": "next step", onclick: () => this.move(1) }, "\u25b6");
    this.group = h("select", { "aria-label": "task", onchange: () => this.set("group", Number(this.group.value)) });
    this.sketchColour = h(
      "select",
      { "aria-label": "colour of sketches", onchange: () => this.set("sketch_colouring", this.sketchColour.value) },
      options(SKETCH_COLOURINGS),
    );
    this.reload = h(
      "button",
      {
        title: "read the run again: steps that were committed since are there to choose",
        onclick: () => {
          this.reload.disabled = true;
          this.reloaded.textContent = "reading \u2026";
          this.model.send({ kind: "reload" });
        },
      },
      "reload",
    );
    this.reloaded = h("span", { class: "dim", role: "status" });
    const keys = [["\u2190", "\u2192"], " step  ", ["\u2191", "\u2193"], " candidate  ", ["c"], " copy"];
    const hints = keys.map((part) => (typeof part === "string" ? part : part.map((key) => h("kbd", {}, key))));
    return h(
      "div",
      { class: "bar" },
      h("label", {}, "step", this.back, this.slider, this.forth),
      this.stepText,
      h("label", {}, "task", this.group),
      h("label", { title: "of sketches: the strategy that came of them, or what they say" }, "colour", this.sketchColour),
      this.reload,
      this.reloaded,
      h("span", { class: "end" }, hints.flat()),
    );
  }

  filters() {
    const changed = (name, read) => () => this.sift({ [name]: read() });
    const bound = (input) => (input.value === "" ? null : Number(input.value));
    this.search = h("input", {
      type: "text",
      placeholder: "text, sketch or strategy",
      "aria-label": "text",
      oninput: () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(
          changed("text", () => this.search.value),
          150,
        );
      },
    });
    this.strategy = h("select", {
      "aria-label": "strategy",
      onchange: changed("strategy", () => this.names[this.strategy.value] ?? null),
    });
    this.outcome = h(
      "select",
      { "aria-label": "outcome", onchange: changed("outcome", () => this.outcome.value) },
      options(OUTCOMES),
    );
    this.low = h("input", {
      type: "number",
      step: "any",
      placeholder: "from",
      "aria-label": "reward from",
      onchange: changed("low", () => bound(this.low)),
    });
    this.high = h("input", {
      type: "number",
      step: "any",
      placeholder: "to",
      "aria-label": "reward to",
      onchange: changed("high", () => bound(this.high)),
    });
    this.sort = h("select", { "aria-label": "sort", onchange: () => this.set("sort", this.sort.value) }, options(SORTS));
    this.clear = h(
      "button",
      {
        onclick: () => {
          clearTimeout(this.typing);
          this.search.value = "";
          this.set("filter", { ...NO_FILTER });
        },
      },
      "clear",
    );
    this.count = h("span", { class: "end", role: "status" });
    return h(
      "div",
      { class: "bar filters" },
      h("label", {}, "filter", this.search),
      this.strategy,
      this.outcome,
      h("label", {}, "reward", this.low, "\u2013", this.high),
      this.clear,
      h("label", {}, "sort by", this.sort),
      this.count,
    );
  }

  sift(change) {
    this.set("filter", { ...NO_FILTER, ...this.get("filter"), ...change });
  }

  stepAt(place) {
    const step = this.get("steps")[place];
    if (step !== undefined && step !== this.get("step")) this.set("step", step);
  }

  move(by) {
    this.stepAt(this.get("steps").indexOf(this.get("step")) + by);
  }

  choose(side, index) {
    this.active = side;
    const chosen = [...this.get("candidates")];
    if (chosen[side] === index) return;
    chosen[side] = index;
    this.set("candidates", chosen);
  }

  key(event) {
    if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    const listed = this.get("listed")[this.active] ?? [];
    const place = listed.indexOf(this.get("candidates")[this.active]);
    const moves = {
      ArrowLeft: () => this.move(-1),
      ArrowRight: () => this.move(1),
      c: () => this.copy(this.active),
      ArrowUp: () => place > 0 && this.choose(this.active, listed[place - 1]),
      ArrowDown: () => place + 1 < listed.length && this.choose(this.active, listed[place + 1]),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    moves[event.key]();
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------

  draw() {
    const sides = this.get("sides"),
      steps = this.get("steps"),
      step = this.get("step");
    const place = steps.indexOf(step),
      focused = document.activeElement,
      inside = this.body.contains(focused);
    this.slider.max = Math.max(0, steps.length - 1);
    this.slider.value = place;
    this.stepText.textContent = `${step} of ${steps.at(-1) ?? 0}`;
    this.back.disabled = place <= 0;
    this.forth.disabled = place + 1 >= steps.length;
    this.group.replaceChildren(
      ...this.get("groups").map((row) =>
        h(
          "option",
          { value: row.group, selected: row.group === this.get("group") },
          `task ${row.task} \u00b7 ${row.solved} of ${row.candidates} solved`,
        ),
      ),
    );
    this.drawFilters(sides);
    const scrolled = [...this.body.querySelectorAll(".list")].map((list) => list.scrollTop);
    const same = this.drawn === `${step} ${this.get("group")}`;
    this.drawn = `${step} ${this.get("group")}`;
    this.active = Math.min(this.active, Math.max(0, sides.length - 1));
    this.body.className = sides.length > 1 ? "sides two" : "sides";
    this.body.replaceChildren(...sides.map((side, which) => this.side(side, which)));
    this.body.querySelectorAll(".list").forEach((list, which) => {
      if (same) list.scrollTop = scrolled[which] ?? 0;
    });
    this.body.querySelectorAll(".row[aria-selected=true]").forEach((row) => this.reveal(row));
    if (inside) this.again(focused); // it was replaced: the keys must go on working
    sides.forEach((_, which) => this.stage(which));
  }

  // Within its list alone: scrollIntoView would move the notebook too.
  reveal(row) {
    const list = row.closest(".list"),
      above = row.offsetTop - list.offsetTop - 28,
      below = above + row.offsetHeight + 32;
    if (above < list.scrollTop) list.scrollTop = above;
    else if (below > list.scrollTop + list.clientHeight) list.scrollTop = below - list.clientHeight;
  }

  again(focused) {
    const mark = focused.dataset?.keep;
    const found = mark ? [...this.body.querySelectorAll("[data-keep]")].find((element) => element.dataset.keep === mark) : null;
    (found ?? this.root).focus({ preventScroll: true });
    if (found?.tagName === "TEXTAREA") found.setSelectionRange(focused.selectionStart, focused.selectionEnd);
  }

  drawFilters(sides) {
    const filter = { ...NO_FILTER, ...this.get("filter") };
    this.names = [...new Set(sides.flatMap((side) => side.strategies ?? []))];
    if (filter.strategy !== null && !this.names.includes(filter.strategy)) this.names.push(filter.strategy);
    this.strategy.replaceChildren(
      h("option", { value: -1 }, "all strategies"),
      ...this.names.map((name, value) => h("option", { value, selected: name === filter.strategy }, [...shown(name)].slice(0, 60).join(""))),
    );
    if (document.activeElement !== this.search) this.search.value = filter.text;
    this.outcome.value = filter.outcome;
    this.low.value = filter.low ?? "";
    this.high.value = filter.high ?? "";
    this.sort.value = this.get("sort");
    this.sketchColour.value = this.get("sketch_colouring");
    this.clear.disabled = JSON.stringify(Object.entries(filter).sort()) === JSON.stringify(Object.entries(NO_FILTER).sort());
    const listed = this.get("listed");
    this.count.textContent =
      sides.map((side, which) => `${listed[which]?.length ?? 0} of ${side.candidates?.length ?? 0}`).join(" | ") + " candidates";
  }

  side(side, which) {
    const head = h(
      "div",
      { class: "run" },
      h("b", {}, shown(side.run)),
      h("span", {}, shown(`${side.environment} \u00b7 ${side.sampler}`)),
    );
    if (side.missing) return h("section", { class: "side" }, head, h("p", { class: "note" }, shown(side.missing)));
    const prompt = h(
      "details",
      {
        open: this.open !== false,
        ontoggle: (event) => {
          this.open = event.target.open;
        },
      },
      h("summary", { "data-keep": `prompt ${which}` }, `task ${side.task}`),
      h("pre", { class: "prompt", dir: "auto" }, cut(side.prompt)),
    );
    const note = side.note ? h("p", { class: "note" }, shown(side.note)) : null;
    const active = () => {
      this.active = which;
    };
    return h(
      "section",
      { class: "side", onfocusin: active, onpointerdown: active },
      head,
      note,
      prompt,
      this.legend(side, which),
      h("div", { class: "columns" }, this.list(side, which), this.chosen(side, which)),
    );
  }

  // Where sketches are coloured by cluster: their labels when they are there, and what is to be told of them.
  clusters(side, which) {
    if (this.get("sketch_colouring") !== "cluster") return null;
    const found = this.get("clustered")[which];
    if (found?.step !== this.get("step") || found.group !== this.get("group")) return { labels: [], note: "", waits: true };
    return found.labels.length === side.sketches.length ? found : { ...found, labels: [] };
  }

  legend(side, which) {
    const filtered = this.get("filter").strategy ?? null;
    const chips = side.strategies
      .slice(0, 24)
      .map((name, place) =>
        h(
          "button",
          {
            hue: hue(place),
            "aria-pressed": String(name === filtered),
            title: shown(name),
            onclick: () => this.sift({ strategy: name === filtered ? null : name }),
          },
          h("span", { class: "dot" }),
          `S${place + 1}`,
          h("span", {}, shown(name)),
        ),
      );
    const more = side.strategies.length > 24 ? [`and ${side.strategies.length - 24} more`] : [];
    const none = side.strategies.length ? [] : [h("span", { class: "dim" }, "no candidate has a readable strategy")];
    const clusters = this.clusters(side, which);
    const by = clusters === null ? "" : clusters.waits ? "; finding clusters of sketches \u2026" : "; sketches by cluster";
    const note = clusters?.note ? h("p", { class: "note" }, shown(clusters.note)) : null;
    return h("div", { class: "legend" }, h("span", { class: "dim" }, `strategies${by}`), chips, more, none, note);
  }

  list(side, which) {
    const listed = this.get("listed")[which],
      rows = new Map(side.candidates.map((row) => [row.index, row]));
    const names = h(
      "div",
      { class: "cells names" },
      ["no.", "strategy", "reward", "credited", "adv.", "log p", "p/q", "weight", "finish"].map((name) =>
        h("span", { title: { "p/q": RATIO, weight: `weight applied (correction ${side.correction})` }[name] }, name),
      ),
    );
    const row = (index) => this.row(side, which, rows.get(index)),
      clusters = this.clusters(side, which);
    let inside;
    if (this.get("sort") === "drafting") {
      const filtering = listed.length < side.candidates.length;
      inside = side.sketches.flatMap((sketch, place) => {
        const own = listed.filter((index) => rows.get(index).sketch === sketch.index);
        return own.length || !filtering ? [this.sketch(sketch, clusters, place), ...own.map(row)] : [];
      });
      const direct = listed.filter((index) => rows.get(index).sketch === null);
      if (direct.length && side.sketches.length) inside.push(h("div", { class: "sketch dim" }, "drawn without a sketch"));
      inside.push(...direct.map(row));
    } else inside = listed.map(row);
    const empty = listed.length ? [] : [h("p", { class: "note" }, "no candidate passes the filter")];
    return h("div", { class: "list", role: "listbox", "aria-label": "candidates" }, names, inside, empty);
  }

  sketch(sketch, clusters, place) {
    const cluster = clusters?.labels[place],
      colour = clusters === null ? hue(sketch.strategy) : hue(cluster);
    const tags = [
      sketch.repeats
        ? h("span", { class: "tag old" }, sketch.of === null ? "empty" : `repeats #${sketch.of}`)
        : h("span", { class: "tag" }, "new"),
      {
        new: h("span", { class: "tag strong", hue: hue(sketch.strategy) }, "new strategy"),
        known: h("span", { class: "tag old" }, "known strategy"),
        unreadable: h("span", { class: "tag old" }, "no strategy"),
        unused: h("span", { class: "tag old" }, "not expanded"),
      }[sketch.novelty],
    ];
    if (cluster !== undefined)
      tags.push(h("span", { class: "tag", hue: colour }, cluster < 0 ? "noise" : `cluster ${cluster + 1}`));
    const facts = [`log p ${number(sketch.logprob)}`, `${sketch.tokens} tokens`, shown(sketch.finish)];
    if (sketch.reward !== null) facts.push(`reward ${number(sketch.reward)}`);
    if (sketch.advantage !== null) facts.push(`advantage ${number(sketch.advantage)}`);
    if (sketch.redraws) facts.push(`${sketch.redraws} redraws`);
    return h(
      "div",
      { class: "sketch", hue: colour },
      h(
        "div",
        { class: "head" },
        h("b", {}, `#${sketch.index}`),
        h("span", { class: "words", dir: "auto" }, cut(sketch) || "(empty)"),
        tags,
      ),
      h("div", { class: "facts" }, facts.join(" \u00b7 ")),
    );
  }

  row(side, which, row) {
    const mark = h(
      "span",
      { class: row.success ? "good" : "bad", title: row.success ? "solved" : "not solved" },
      `${row.success ? "\u2713" : "\u2717"} ${row.index}`,
    );
    const strategy =
      row.strategy === null
        ? h("span", { class: "dim" }, "unread")
        : h(
            "span",
            { title: row.of === null ? "first with this strategy" : `as candidate ${row.of}` },
            h("span", { class: row.of === null ? "tag strong" : "tag old", hue: hue(row.strategy) }, `S${row.strategy + 1}`),
            row.of === null ? " new" : "",
          );
    const values = [
      number(row.reward),
      number(row.credited),
      number(row.advantage),
      number(row.logprob),
      times(row.ratio, row.log_ratio),
      number(row.weight),
      shown(row.finish),
    ];
    return h(
      "div",
      {
        class: "row",
        role: "option",
        hue: hue(row.strategy),
        "data-index": row.index,
        "aria-selected": String(this.get("candidates")[which] === row.index),
        onclick: () => this.choose(which, row.index),
      },
      h(
        "div",
        { class: "cells" },
        mark,
        strategy,
        values.map((value) => h("span", {}, value)),
      ),
      h("div", { class: "says", dir: "auto" }, cut(row).replace(/\n/g, "\u23ce") || "(empty)"),
    );
  }

  chosen(side, which) {
    const detail = this.get("details")[which],
      row = side.candidates.find((one) => one.index === detail?.candidate);
    if (!row) return h("div", { class: "chosen" });
    const from =
      row.sketch === null
        ? "drawn without a sketch"
        : `expands sketch #${row.sketch}${row.later.length ? `, later ${row.later.map((k) => `#${k}`).join(" ")}` : ""}`;
    const title = h(
      "div",
      { class: "title" },
      h("b", {}, `candidate ${row.index} `, h("span", { class: "dim" }, from)),
      h("span", { class: "dim", role: "status", "data-copied": which }),
      h("button", { "data-keep": `copy ${which}`, onclick: () => this.copy(which) }, "copy as JSON"),
    );
    const facts = {
      outcome: row.success ? "solved" : "not solved",
      reward: number(row.reward, 4),
      credited: number(row.credited, 4),
      advantage: number(row.advantage, 4),
      "log-prob (nats)": number(row.logprob, 3),
      "p/q": times(row.ratio, row.log_ratio),
      [`weight applied (correction ${side.correction})`]: number(row.weight, 4),
      finish: row.finish,
      tokens: row.tokens,
      "drawn under": row.drawn_under,
      "trained under": row.trained_under,
      "tokens sampled": row.sampled_tokens,
      redraws: row.redraws,
    };
    if (row.turns > 1) facts.turns = row.turns;
    if (row.history) facts["earlier answers seen"] = row.history;
    // Not a list of definitions: JupyterLab has its own style for these.
    const grid = h(
      "div",
      { class: "facts-grid" },
      Object.entries(facts).map(([name, value]) => {
        const said = shown(String(value)),
          more = name === "p/q" ? `\n${RATIO}; its log: ${number(row.log_ratio, 3)} nats` : "";
        const wide = name.startsWith("weight") ? "wide" : null;
        return h("div", { class: wide, title: `${name}: ${said}${more}` }, h("span", {}, name), h("span", {}, said));
      }),
    );
    return h(
      "div",
      { class: "chosen" },
      title,
      grid,
      h("h4", {}, "replay"),
      h("div", { class: "stage", "data-stage": which }),
      side.expands ? this.expander(side, which, row, detail.sketch) : null,
      this.tokens(side, which, detail.tokens),
      this.text(which, detail.text),
    );
  }

  text(which, page) {
    const box = h("pre", { class: "text", dir: "auto" }, shown(page.text));
    return h(
      "details",
      {
        open: Boolean(this.textOpen),
        ontoggle: (event) => {
          this.textOpen = event.target.open;
        },
      },
      h("summary", { "data-keep": `text ${which}` }, `text (${page.total.toLocaleString("en")} letters)`),
      box,
      this.more(which, "text", page.end, page.total),
    );
  }

  more(which, what, seen, total) {
    if (seen >= total) return null;
    return h(
      "button",
      {
        "data-more": `${what} ${which}`,
        "data-seen": seen,
        onclick: (event) => {
          event.target.disabled = true;
          this.model.send({ kind: "more", side: which, what, start: seen });
        },
      },
      `show more (${seen.toLocaleString("en")} of ${total.toLocaleString("en")} shown)`,
    );
  }

  // ---- a sketch, edited and expanded ---------------------------------------------------------------------------------

  // What is remembered of one candidate; the oldest is forgotten.
  draft(...at) {
    const key = at.join(" "),
      known = this.edited.get(key) ?? { key, count: "4", seed: "0" };
    this.edited.delete(key);
    this.edited.set(key, known);
    if (this.edited.size > KEPT) this.edited.delete(this.edited.keys().next().value);
    return known;
  }

  expander(side, which, row, sketch) {
    const draft = this.draft(which, side.step, side.group, row.index);
    const area = h("textarea", {
      "aria-label": "sketch to expand",
      "data-keep": `sketch ${which}`,
      dir: "auto",
      spellcheck: "false",
      placeholder: "a method that solutions are to follow",
      oninput: () => {
        draft.sketch = area.value;
      },
    });
    area.value = draft.sketch ?? sketch.text; // a value is never markup
    const field = (name, label, min, max) =>
      h("input", {
        type: "number",
        min,
        max,
        step: 1,
        value: draft[name],
        "aria-label": label,
        "data-keep": `${name} ${which}`,
        oninput: (event) => {
          draft[name] = event.target.value;
        },
      });
    const expand = () => {
      draft.waits = true;
      draft.said = null;
      this.expanded(which, side, draft);
      this.model.send({
        kind: "expand",
        side: which,
        step: side.step,
        group: side.group,
        candidate: row.index,
        sketch: draft.sketch ?? sketch.text,
        count: draft.count === "" ? null : Number(draft.count),
        seed: draft.seed === "" ? null : Number(draft.seed),
      });
    };
    const [letters, all] = [sketch.end, sketch.total].map((count) => count.toLocaleString("en"));
    const note = sketch.total > sketch.end ? h("p", { class: "note" }, `its first ${letters} of ${all} letters`) : null;
    const box = h("div", { class: "expansion", "data-expansion": which, "data-key": draft.key, role: "status" });
    const button = h("button", { "data-keep": `expand ${which}`, "data-expand": which, onclick: expand }, "Expand");
    const controls = h(
      "div",
      { class: "controls" },
      button,
      h("label", {}, "solutions", field("count", "solutions", 1, side.expands)),
      h("label", { title: "another seed draws others; the same one the same" }, "seed", field("seed", "seed", 0, 2 ** 32 - 1)),
    );
    this.fillExpansion(box, button, side, draft);
    return h("div", { class: "expand" }, h("h4", {}, "edit and expand"), area, note, controls, box);
  }

  // What is known by now, where its candidate is shown.
  expanded(which, side, draft) {
    const box = this.body.querySelector(`[data-expansion="${which}"]`);
    if (box?.dataset.key !== draft.key) return;
    this.fillExpansion(box, this.body.querySelector(`[data-expand="${which}"]`), side, draft);
  }

  fillExpansion(box, button, side, draft) {
    const said = draft.said;
    button.disabled = Boolean(draft.waits);
    if (draft.waits) return box.replaceChildren(h("span", { class: "dim" }, "expanding \u2026"));
    if (!said) return box.replaceChildren();
    if (said.error) return box.replaceChildren(h("p", { class: "note" }, shown(said.error)));
    const solved = said.solutions.filter((one) => one.success).length;
    box.replaceChildren(
      h(
        "p",
        { class: "by" },
        `${solved} of ${said.solutions.length} solved by ${shown(said.policy)} with `,
        h("q", { dir: "auto" }, shown(said.sketch)),
      ),
      ...said.solutions.map((one) => this.solution(side, one)),
    );
  }

  solution(side, one) {
    const place = one.strategy === null ? -1 : side.strategies.indexOf(one.strategy);
    const strategy =
      one.strategy === null
        ? h("span", { class: "dim" }, "unread")
        : h(
            "span",
            { class: place < 0 ? "tag strong" : "tag old", hue: hue(place), title: shown(one.strategy) },
            `${place < 0 ? "not in this group:" : `S${place + 1}`} ${shown(one.strategy)}`,
          );
    const facts = [`reward ${number(one.reward)}`, `log p ${number(one.logprob)}`, `${one.tokens} tokens`, shown(one.finish)];
    return h(
      "div",
      { class: "solution", hue: hue(place) },
      h(
        "div",
        { class: "head" },
        h("span", { class: one.success ? "good" : "bad" }, one.success ? "\u2713 solved" : "\u2717 not solved"),
        strategy,
        h("span", { class: "dim" }, facts.join(" \u00b7 ")),
      ),
      h("pre", { dir: "auto" }, cut(one) || "(empty)"),
    );
  }

  // ---- tokens --------------------------------------------------------------------------------------------------------

  tokens(side, which, page) {
    const has = {
      surprisal: page.drawn !== null,
      entropy: page.entropies !== null,
      trained: page.trained !== null,
      ratio: page.drawn !== null && page.trained !== null,
      plain: true,
    };
    const wanted = this.get("colouring"),
      mode = has[wanted] ? wanted : "plain";
    const segments = h(
      "span",
      { class: "segments", role: "group", "aria-label": "colour tokens by" },
      Object.entries(COLOURINGS).map(([name, text]) =>
        h(
          "button",
          {
            "aria-pressed": String(name === mode),
            disabled: !has[name],
            "data-keep": `${name} ${which}`,
            onclick: () => this.set("colouring", name),
          },
          text,
        ),
      ),
    );
    const box = h("div", { class: "tokens", dir: "auto", "data-tokens": which });
    this.fill(box, page, mode);
    const note =
      page.pieces === null
        ? side.tokens_note || "the tokenizer found here does not give this text: tokens are shown by number"
        : "";
    return h(
      "div",
      {},
      h("h4", {}, "tokens", segments),
      this.scale(mode),
      box,
      this.more(which, "tokens", page.end, page.total),
      note ? h("p", { class: "note" }, note) : null,
    );
  }

  fill(box, page, mode) {
    const turns = new Map(page.turns.map((place, index) => [place, index + 2]));
    box.append(
      ...page.ids.flatMap((id, k) => {
        const drawn = page.drawn?.[k] ?? null,
          trained = page.trained?.[k] ?? null,
          entropy = page.entropies?.[k] ?? null;
        const change = drawn === null || trained === null ? null : trained - drawn;
        const said = page.pieces === null ? `${id} ` : shown(page.pieces[k]).replace(/\n/g, "\u23ce\n") || "\u00b7";
        const facts = [
          `token ${page.start + k}: id ${id}`,
          `log p drawn ${number(drawn, 3)}`,
          `in training ${number(trained, 3)}`,
          `ratio ${number(change === null ? null : Math.exp(change), 3)}`,
          `entropy there ${number(entropy, 3)} nats`,
        ];
        const token = h("span", { title: facts.join("\n") }, said);
        token.style.backgroundColor = {
          surprisal: () => warm(drawn),
          entropy: () => warm(entropy === null ? null : -entropy),
          trained: () => warm(trained),
          ratio: () => split(change),
          plain: () => "",
        }[mode]();
        const turn = turns.get(page.start + k);
        return turn ? [h("span", { class: "turn" }, `turn ${turn}`), token] : [token];
      }),
    );
  }

  scale(mode) {
    const ramp = (...stops) => {
      const bar = h("span", { class: "ramp" });
      bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
      return bar;
    };
    const scales = {
      surprisal: () => [
        "\u2212log p when drawn: 0",
        ramp(warm(0), warm(-MOST_SURPRISAL)),
        `${MOST_SURPRISAL} nats or more`,
      ],
      entropy: () => [
        "entropy of the next token under the first training context: 0",
        ramp(warm(0), warm(-MOST_SURPRISAL)),
        `${MOST_SURPRISAL} nats or more`,
      ],
      trained: () => [
        "\u2212log p under the first training context: 0",
        ramp(warm(0), warm(-MOST_SURPRISAL)),
        `${MOST_SURPRISAL} nats or more`,
      ],
      ratio: () => [
        "p in training / p when drawn: \u00bd or less",
        ramp(split(-MOST_RATIO), split(0), split(MOST_RATIO)),
        "2 or more",
      ],
      plain: () => [],
    };
    return h("div", { class: "scale" }, scales[mode]());
  }

  // ---- replay --------------------------------------------------------------------------------------------------------

  stage(which) {
    const box = this.body.querySelector(`[data-stage="${which}"]`),
      replay = this.get("replays")[which];
    if (!box) return;
    const chosen = [this.get("step"), this.get("sides")[which].group, this.get("candidates")[which]].join(" ");
    if (!replay || [replay.step, replay.group, replay.index].join(" ") !== chosen)
      return box.replaceChildren(h("span", { class: "dim" }, "drawing \u2026"));
    if (!replay.frames.length) return box.replaceChildren(h("p", { class: "note" }, shown(replay.note) || "nothing to be drawn"));
    const last = replay.frames.length - 1,
      kept = this.stages[which]?.key === chosen ? this.stages[which].at : last;
    const picture = h("div", { class: "picture" }),
      caption = h("div", { class: "caption", role: "status" }),
      said = h("div", { class: "said" }),
      place = h("span", { class: "dim" });
    const slider = h("input", {
      type: "range",
      min: 0,
      max: last,
      "aria-label": "move",
      "data-keep": `move ${which}`,
      oninput: () => go(Number(slider.value)),
    });
    slider.value = kept;
    const go = (at) => {
      at = Math.max(0, Math.min(last, at));
      this.stages[which] = { key: chosen, at };
      slider.value = at;
      const frame = replay.frames[at];
      place.textContent = `${at} of ${last}`;
      caption.textContent = shown(frame.caption);
      said.replaceChildren(...this.turn(frame.turn, replay.turns));
      picture.replaceChildren(
        frame.svg
          ? h("img", { alt: frame.text, src: `data:image/svg+xml,${encodeURIComponent(frame.svg)}` })
          : h("pre", {}, shown(frame.text)),
      );
    };
    const play = h("button", { "data-keep": `play ${which}`, onclick: () => this.play(slider, last, go) }, "play");
    box.replaceChildren(
      picture,
      h(
        "div",
        {},
        h(
          "div",
          { class: "controls" },
          h("button", { title: "previous move", onclick: () => go(Number(slider.value) - 1) }, "\u25c0"),
          slider,
          h("button", { title: "next move", onclick: () => go(Number(slider.value) + 1) }, "\u25b6"),
          play,
          place,
        ),
        caption,
        said,
        replay.note ? h("p", { class: "note" }, shown(replay.note)) : null,
      ),
    );
    go(kept);
  }

  // What the policy said in the turn that a picture belongs to; nothing where the answer was judged whole.
  turn(number, turns) {
    const said = turns[number - 1];
    return said ? [h("span", { class: "dim" }, `turn ${number} said`), h("pre", { dir: "auto" }, cut(said) || "(empty)")] : [];
  }

  play(slider, last, go) {
    go(0);
    const timer = setInterval(() => {
      if (!slider.isConnected || Number(slider.value) >= last) {
        clearInterval(timer);
        this.timers.delete(timer);
      } else go(Number(slider.value) + 1);
    }, 450);
    this.timers.add(timer);
  }

  // ---- messages ------------------------------------------------------------------------------------------------------

  copy(side) {
    this.model.send({ kind: "copy", side });
  }

  async answered(message) {
    if (message.kind === "expand") {
      const { side, step, group, candidate, ...said } = message;
      const draft = this.draft(side, step, group, candidate);
      draft.waits = false;
      draft.said = said;
      return this.expanded(side, this.get("sides")[side], draft);
    }
    if (message.kind === "reload") {
      this.reload.disabled = false;
      this.reloaded.textContent = shown(message.said);
      return;
    }
    if (message.candidate !== this.get("candidates")[message.side]) return;
    if (message.kind === "copy") return this.copied(message);
    const button = [...this.body.querySelectorAll("[data-more]")].find(
      (one) => one.dataset.more === `${message.what} ${message.side}`,
    );
    if (message.kind !== "more" || !button || Number(button.dataset.seen) !== message.page.start) return;
    const page = message.page;
    if (message.what === "text") button.previousSibling.append(shown(page.text));
    else this.fill(button.previousSibling, page, this.get("colouring"));
    button.replaceWith(...[this.more(message.side, message.what, page.end, page.total)].filter(Boolean));
  }

  async copied(message) {
    const status = [...this.body.querySelectorAll("[data-copied]")].find((one) => Number(one.dataset.copied) === message.side);
    try {
      await navigator.clipboard.writeText(message.text);
      status.textContent = "copied";
    } catch {
      // no clipboard for this page, as without https: it is shown, ready to be copied by hand
      const area = h("textarea", { readonly: true, "aria-label": "candidate as JSON" });
      area.value = message.text;
      status.closest(".title").after(area);
      area.select();
      status.textContent = "copy the selected text";
    }
  }
}

// Orange, the stronger the less probable the token was.
function warm(logprob) {
  return logprob === null ? "" : `rgba(230, 159, 0, ${(0.65 * Math.min(1, -logprob / MOST_SURPRISAL)).toFixed(3)})`;
}

// Blue where the token is more probable in training than when drawn, vermilion where it is less.
function split(change) {
  if (change === null) return "";
  const strength = (0.6 * Math.min(1, Math.abs(change) / MOST_RATIO)).toFixed(3);
  return change > 0 ? `rgba(86, 180, 233, ${strength})` : `rgba(213, 94, 0, ${strength})`;
}

export default {
  render({ model, el }) {
    const page = new Page(model, el);
    return () => page.close();
  },
};
