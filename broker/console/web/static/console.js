// Makes the pages live: loads a page again when the server says that there is something new, and draws charts.
// Everything works without it, by reloading.
"use strict";
(() => {
  const format = {
    rate: (v) => (v >= 10 || v === 0 ? Math.round(v).toLocaleString("en") : v.toFixed(1)) + "/s",
    s: (v) => (v >= 1 ? v.toFixed(1) + "s" : v >= 0.001 ? (v * 1000).toFixed(0) + "ms" : v ? (v * 1e6).toFixed(0) + "us" : "0"),
    bytes: (v) => Math.round(v / 1048576).toLocaleString("en") + "M",
    share: (v) => v.toFixed(2),
    count: (v) => Math.round(v).toLocaleString("en"),
  };
  let charts = [];

  // The label of a time in seconds since 1970: with seconds where the ticks are less than a minute apart.
  function clock(ticks) {
    const end = ticks.length > 1 && ticks[1] - ticks[0] < 60 ? 19 : 16;
    return (at) => new Date(at * 1000).toISOString().slice(11, end);
  }

  function draw(box) {
    const { unit, labels, data } = JSON.parse(box.dataset.chart);
    if (!window.uPlot || data[0].length < 2) return;
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const width = box.clientWidth || 320;
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const text = (v) => (v == null ? "–" : format[unit](v));
    const options = {
      width, height: 110, padding: [6, 18, 0, 0], legend: { show: false }, cursor: { points: { size: 5 }, y: false },
      tzDate: (at) => uPlot.tzDate(new Date(at * 1000), "Etc/UTC"),
      scales: { y: { range: (u, min, max) => [0, max > 0 ? max * 1.1 : 1] } },
      series: [{}, ...labels.map((label, i) => ({ label, stroke: color(`--l${i + 1}`), width: 1.5, spanGaps: true, points: { show: false } }))],
      axes: [{ ...axis, size: 22, space: 70, values: (u, at) => at.map(clock(at)) }, { ...axis, size: 52, space: 30, values: (u, ticks) => ticks.map(text) }],
      hooks: { setCursor: [(u) => {
        const keys = box.closest("figure").querySelectorAll(".key b");
        const at = u.cursor.idx ?? data[0].length - 1;
        labels.forEach((_, i) => { if (keys[i]) keys[i].textContent = text(data[i + 1][at]); });
      }] },
    };
    const label = box.querySelector("svg")?.getAttribute("aria-label");
    box.replaceChildren();
    box.setAttribute("role", "img");
    if (label) box.setAttribute("aria-label", label);
    charts.push(new uPlot(options, data, box));
  }

  function drawAll() {
    charts.forEach((one) => one.destroy());
    charts = [];
    document.querySelectorAll("[data-chart]").forEach(draw);
  }

  // Somebody who types, has chosen rows or has opened a form does not want the page to change.
  function isInUse(live) {
    const active = document.activeElement;
    return live.contains(active) && active.matches("input, select, textarea")
      || live.querySelector("details[open], input[type=checkbox]:checked") || String(getSelection());
  }

  function load() {
    const live = document.getElementById("live");
    if (!live?.dataset.live || document.hidden || isInUse(live)) return;
    htmx.ajax("GET", live.dataset.live, { target: "#live", select: "#live", swap: "outerHTML" });
  }

  function listen() {
    const live = document.getElementById("live");
    if (!live || !live.dataset.live || !window.EventSource) return;
    const source = new EventSource("/events");
    source.addEventListener("changed", load);
    addEventListener("pagehide", () => source.close());
    document.addEventListener("visibilitychange", () => { if (!document.hidden) load(); });
  }

  // "Select all" of a list.
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-select-all]")) return;
    event.target.closest("table").querySelectorAll("tbody input[type=checkbox]").forEach((box) => { box.checked = event.target.checked; });
  });
  document.addEventListener("htmx:afterSettle", drawAll);
  addEventListener("resize", () => { clearTimeout(drawAll.timer); drawAll.timer = setTimeout(drawAll, 150); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
  listen();
})();
