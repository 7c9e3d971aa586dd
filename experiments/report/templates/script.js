"use strict";
function texts(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => (cell.dataset.copy ?? cell.textContent).trim().replace(/\s+/g, " ")));
}
function csv(table) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return texts(table).map((row) => row.map(quoted).join(",")).join("\n").replaceAll("−", "-") + "\n";
}
function latex(table) {
  const signs = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "−": "$-$", "≤": "$\\leq$", "<": "$<$", ">": "$>$" };
  const escaped = (text) => text.replace(/[\\~^±−≤<>&%$#_{}]/g, (sign) => signs[sign] ?? "\\" + sign).replaceAll(" .. ", "--");
  const lines = texts(table).map((row) => row.map(escaped).join(" & ") + " \\\\");
  const columns = [...table.rows[0].cells].map((cell) => (cell.classList.contains("text") ? "l" : "r")).join("");
  return [`\\begin{tabular}{${columns}}`, "\\toprule", lines[0], "\\midrule", ...lines.slice(1), "\\bottomrule", "\\end{tabular}", ""].join("\n");
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
document.addEventListener("click", async ({ target }) => {
  if (!target.dataset.format) return;
  const table = document.getElementById(target.parentElement.dataset.table);
  const done = await copy({ csv, latex }[target.dataset.format](table));
  const label = { csv: "CSV", latex: "LaTeX" }[target.dataset.format];
  document.getElementById("said").textContent = done ? "copied" : "the browser does not let this page copy";
  target.textContent = done ? "copied" : "failed";
  setTimeout(() => (target.textContent = label), 1200);
});
// A click on the head of a column sorts by it: numbers the largest first, words from A; the next click turns it round.
const numeric = (text) => parseFloat(text.replace(/[,≤\s]/g, "").replace("−", "-"));
function sort(head) {
  const body = head.closest("table").tBodies[0], place = head.cellIndex, words = head.classList.contains("text");
  const upwards = head.ariaSort ? head.ariaSort === "descending" : words;
  const value = (row) => (words ? row.cells[place].textContent.trim() : numeric(row.cells[place].textContent));
  const missing = (row) => (words ? !value(row) : isNaN(value(row)));
  const compare = (a, b) => (words ? value(a).localeCompare(value(b)) : value(a) - value(b));
  const rows = [...body.rows].sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : compare(a, b) * (upwards ? 1 : -1)));
  body.append(...rows);
  for (const other of head.parentElement.cells) other.ariaSort = null;
  head.ariaSort = upwards ? "ascending" : "descending";
}
for (const head of document.querySelectorAll(".sortable thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  button.addEventListener("click", () => sort(head));
  head.append(button);
}
