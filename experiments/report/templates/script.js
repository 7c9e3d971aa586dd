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
