// What a page does beyond being read: tables sort and filter, charts show their values, the last run gets a timeline.
"use strict";

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].map((row) => [row, key(row.cells[column])]);
      rows.sort(([, a], [, b]) => compare(a, b) * (descending && a !== null && b !== null ? -1 : 1));
      body.append(...rows.map(([row]) => row));
    });
  });
}

// A number where the cell holds one, else its text; null where there is nothing, which comes last either way.
function key(cell) {
  const given = cell.querySelector("data")?.value ?? cell.dataset.value;
  if (given !== undefined) return Number(given);
  const text = cell.textContent.trim();
  return text === "–" || text === "" ? null : text;
}

function compare(a, b) {
  if (a === null || b === null) return (a === null) - (b === null);
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
}

function filterable(form) {
  const rows = [...document.getElementById(form.getAttribute("data-table")).tBodies[0].rows];
  const shown = form.querySelector("output");
  const apply = () => {
    const wanted = [...new FormData(form)].filter(([, value]) => value !== "");
    for (const row of rows) {
      row.hidden = !wanted.every(([name, value]) =>
        name === "name" ? row.dataset.name.includes(value.trim().toLowerCase()) : row.dataset[name] === value);
    }
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  for (const event of ["input", "change"]) form.addEventListener(event, apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}

// As on maps: the wheel alone scrolls the page. A pinch is a wheel with Ctrl to a browser.
const ZOOM = { name: "zoom", select: { type: "interval", zoom: "wheel![event.ctrlKey]" }, bind: "scales" };

// Renders a chart again, interactive, in the place and the size of its image.
async function activate(figure) {
  const image = figure.querySelector(".image svg");
  const specification = JSON.parse(figure.querySelector("script").textContent);
  if ("zooms" in figure.dataset) (specification.layer?.[0] ?? specification).params = [ZOOM];
  const { width, height } = image.getBoundingClientRect();
  const place = document.createElement("div");
  const options = { actions: false, renderer: "svg", tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" } };
  const sized = { ...specification, width, height, autosize: { type: "fit", contains: "padding" } };
  await vegaEmbed(place, sized, options);
  image.replaceWith(place);
  figure.dataset.alive = "";
}

function activateOnDemand(figure) {
  const once = () => {
    for (const event of ["pointerenter", "focusin"]) figure.removeEventListener(event, once);
    if (window.vegaEmbed) activate(figure).catch(console.error);
  };
  for (const event of ["pointerenter", "focusin"]) figure.addEventListener(event, once);
}

function duration(seconds) {
  const whole = Math.round(seconds);
  return whole < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

function addCell(row, text, value) {
  const cell = row.insertCell();
  cell.textContent = text;
  if (value !== undefined) cell.dataset.value = value;
  return cell;
}

// A bar from one second of the run to another; its cell has the text.
function addBar(cell, kind, from, to, total) {
  const bar = document.createElement("span");
  bar.className = kind;
  bar.style.left = `${100 * from / total}%`;
  bar.style.width = `${100 * (to - from) / total}%`;
  cell.append(bar);
}

// Fills the timeline. run: of last_run.js, which `make pipeline` writes; its times are seconds since the run began.
function showRun(section, run) {
  if (!Array.isArray(run?.stages)) return;
  const counts = new Map();
  for (const { status } of run.stages) counts.set(status, (counts.get(status) ?? 0) + 1);
  const statuses = [...counts].map(([status, count]) => `${count} ${status}`).join(", ");
  section.querySelector("p").textContent = `${run.began.replace("T", " ").slice(0, 19)} UTC: ` +
    `${run.stages.length} stages in ${duration(run.seconds)}: ${statuses}. Unchanged stages are not listed.` +
    " A hatched bar is the time that a stage waited for free cores or a free GPU, after all that it needs was done.";
  const total = Math.max(run.seconds, 0.001);
  section.querySelector("th:last-child").textContent = `time: 0 to ${duration(run.seconds)}`;
  const listed = run.stages.filter(({ status }) => status !== "unchanged");
  listed.sort((a, b) => (a.started ?? total) - (b.started ?? total));
  for (const { name, status, ready, started, ended } of listed) {
    const row = section.querySelector("tbody").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.dataset.status = status;
    addCell(row, status).className = "text";
    if (started === null || ended === null) {
      for (const _ of ["waited", "took"]) addCell(row, "–");
      addCell(row, "–").className = "text";
      continue;
    }
    const waited = Math.max(started - ready, 0);  // both are rounded
    addCell(row, duration(waited), waited);
    addCell(row, duration(ended - started), ended - started);
    const track = addCell(row, "", started);
    track.className = "track";
    track.title = `ready at ${duration(ready)}, started at ${duration(started)}, ended at ${duration(ended)}`;
    const text = document.createElement("span");
    text.className = "spoken";
    text.textContent = track.title;
    track.append(text);
    addBar(track, "waiting", ready, started, total);
    addBar(track, "running", started, ended, total);
  }
  section.querySelector(".scroll").hidden = !listed.length;
  section.hidden = false;
}

const lastRun = document.getElementById("last-run");
if (lastRun) showRun(lastRun, window.lastRun);
document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("form.filters").forEach(filterable);
document.querySelectorAll("figure.chart").forEach(activateOnDemand);
