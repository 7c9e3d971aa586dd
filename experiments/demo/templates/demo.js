"use strict";
const form = document.querySelector("form");
const input = form.elements.files;
function busy(is) {
  form.querySelector("button").disabled = is;
  form.querySelector("progress").hidden = !is;
  form.querySelector(".state").textContent = is ? "is being computed" : "";
}
function check() {
  const bytes = [...input.files].reduce((sum, file) => sum + file.size, 0);
  const most = Number(form.dataset.largest);
  input.setCustomValidity(bytes > most ? `These files have ${Math.ceil(bytes / 1e6)} MB; ${most / 1e6} are taken.` : "");
  input.reportValidity();
}
input.addEventListener("change", check);
form.addEventListener("submit", () => busy(true));
addEventListener("pageshow", () => busy(false)); // also when the reader comes back to it
addEventListener("dragover", (event) => {
  event.preventDefault();
  input.classList.add("over");
});
for (const name of ["dragleave", "drop"]) addEventListener(name, () => input.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave this page to show the file
  if (!event.dataTransfer.files.length) return;
  input.files = event.dataTransfer.files;
  check();
});
