// What a page can do beyond being read: tables that sort and filter, charts that tell their values.
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

// Draws a chart anew, in the place and the size of its picture, with values on hover.
async function enliven(figure) {
  const frame = figure.querySelector(".picture");
  const picture = frame.querySelector("svg");
  const specification = JSON.parse(figure.querySelector("script").textContent);
  if ("zooms" in figure.dataset) (specification.layer?.[0] ?? specification).params = [ZOOM];
  const { width, height } = picture.getBoundingClientRect();
  const place = document.createElement("div");
  const options = { actions: false, renderer: "svg", tooltip: { theme: matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light" } };
  const sized = { ...specification, width, height, autosize: { type: "fit", contains: "padding" } };
  await vegaEmbed(place, sized, options);
  picture.replaceWith(place);
  figure.dataset.alive = "";
}

function awaken(figure) {
  const once = () => {
    for (const event of ["pointerenter", "focusin"]) figure.removeEventListener(event, once);
    if (window.vegaEmbed) enliven(figure).catch(console.error);
  };
  for (const event of ["pointerenter", "focusin"]) figure.addEventListener(event, once);
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("form.filters").forEach(filterable);
document.querySelectorAll("figure.chart").forEach(awaken);
