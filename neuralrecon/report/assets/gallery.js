// Sorting, filtering and the two forms of the gallery. What is chosen stays in the address, so that it can be sent.
"use strict";
(() => {
  const table = document.getElementById("objects"), body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const of = id => document.getElementById(id);
  const chips = [...document.querySelectorAll("[data-status][aria-pressed]")];
  const asked = new URLSearchParams(location.hash.slice(1));
  const state = {
    key: Number(asked.get("key")) || 0, up: asked.get("up") !== "0", words: asked.get("words") || "",
    off: new Set((asked.get("off") || "").split(",").filter(Boolean)), form: asked.get("form") === "table" ? "table" : "cards",
  };
  const order = ["ok", "poor", "failed", "missing"];
  const value = row => {
    const cell = row.cells[state.key], text = cell.dataset.value ?? cell.textContent;
    if (state.key === 1) return order.indexOf(text);
    return text !== "" && !isNaN(text) ? Number(text) : text.toLowerCase();
  };
  const ahead = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a.localeCompare(b, undefined, { numeric: true });
  const show = () => {
    const keyed = rows.map(row => [value(row), row]);
    // what is not known comes last, whichever way
    keyed.sort(([a], [b]) => a === "" ? (b === "" ? 0 : 1) : b === "" ? -1 : state.up ? ahead(a, b) : ahead(b, a));
    body.append(...keyed.map(([, row]) => row));
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const row of rows) {
      const text = (row.cells[0].textContent + " " + row.cells[2].textContent).toLowerCase();
      row.hidden = state.off.has(row.dataset.status) || !words.every(word => text.includes(word));
      n += !row.hidden;
    }
    of("none").hidden = n > 0;
    of("none").textContent = rows.length ? "Nothing fits." : "No object yet.";
    for (const chip of chips) chip.setAttribute("aria-pressed", !state.off.has(chip.dataset.status));
    heads.forEach((head, i) =>
      head.setAttribute("aria-sort", i !== state.key ? "none" : state.up ? "ascending" : "descending"));
    of("key").value = state.key;
    of("way").textContent = state.up ? "↑" : "↓";
    of("way").setAttribute("aria-label", state.up ? "ascending" : "descending");
    table.className = state.form === "table" ? "rows" : "cards-of";
    of("form").textContent = state.form === "table" ? "as cards" : "as a table";
    const told = new URLSearchParams({
      key: state.key, up: state.up ? 1 : 0, words: state.words, off: [...state.off].join(","), form: state.form,
    });
    history.replaceState(null, "", "#" + told);
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    state.up = state.key === i ? !state.up : true;
    state.key = i;
    show();
  }));
  of("key").addEventListener("change", () => { state.key = Number(of("key").value); show(); });
  of("way").addEventListener("click", () => { state.up = !state.up; show(); });
  of("form").addEventListener("click", () => { state.form = state.form === "table" ? "cards" : "table"; show(); });
  of("words").addEventListener("input", () => { state.words = of("words").value; show(); });
  for (const chip of chips) chip.addEventListener("click", () => {
    const status = chip.dataset.status;
    state.off.has(status) ? state.off.delete(status) : state.off.add(status);
    show();
  });
  of("words").value = state.words;
  show();
})();
