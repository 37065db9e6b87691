"use strict";
// Unpacks plotly and the figures, draws them, and recolours them when the page turns dark or is printed.
(() => {
  const LIGHT = { ink: "#1f2328", line: "#d5dbe1", raised: "#ffffff" };
  const DARK = { ink: "#e4e8ec", line: "#353c45", raised: "#1e2329" };
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

  async function unpack(id) {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function runBundle(source) {
    const script = document.createElement("script");
    script.textContent = source;
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly did not start");
  }

  // What a theme changes in a layout; everything else (a slider's place, a zoom) stays as the reader left it.
  function paint(layout, dark) {
    const { ink, line, raised } = dark ? DARK : LIGHT;
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line };
    const template = layout.template || {};
    const base = template.layout || {};
    const xaxis = { ...base.xaxis, ...axis };
    const yaxis = { ...base.yaxis, ...axis };
    const changes = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { ...base.font, ...layout.font, color: ink },
      hoverlabel: { bgcolor: raised, bordercolor: line, font: { color: ink } },
      template: { ...template, layout: { ...base, xaxis, yaxis } },
    };
    const scale = layout.meta?.dark?.["coloraxis.colorscale"];
    if (scale) changes.coloraxis = { ...layout.coloraxis, ...(dark ? { colorscale: scale } : {}) };
    return changes;
  }

  async function draw(place, figure) {
    try {
      const layout = { ...figure.layout, ...paint(figure.layout, prefersDark.matches) };
      place.replaceChildren();
      await window.Plotly.newPlot(place, figure.data, structuredClone(layout), CONFIG);
    } catch (error) {
      fail(place, error);
    }
  }

  function fail(place, error) {
    const text = document.createElement("p");
    text.className = "error";
    text.textContent = `This figure could not be drawn: ${error}`;
    place.replaceChildren(text);
    console.error(error);
  }

  async function main() {
    const places = [...document.querySelectorAll("div.plot[data-figure]")];
    try {
      const [figures, bundle] = await Promise.all([unpack("figures"), unpack("plotly")]);
      const list = JSON.parse(figures);
      runBundle(bundle);
      const repaint = (dark) => places.forEach((place) => {
        if (place.data) window.Plotly.relayout(place, structuredClone(paint(list[place.dataset.figure].layout, dark)));
      });
      for (const place of places) await draw(place, list[place.dataset.figure]);
      prefersDark.addEventListener("change", (event) => repaint(event.matches));
      window.addEventListener("beforeprint", () => repaint(false));
      window.addEventListener("afterprint", () => repaint(prefersDark.matches));
      document.documentElement.dataset.drawn = "yes";
    } catch (error) {
      places.forEach((place) => fail(place, error));
    }
  }

  main();
})();
