"use strict";
const proofs = [...document.querySelectorAll("details.proof")];
const texts = new Map(proofs.map((proof) => [proof, proof.textContent.toLowerCase()]));
const search = document.getElementById("search");
const boxes = [...document.querySelectorAll('input[name="outcome"]')];
const form = document.querySelector("form.tools");

function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const outcomes = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  let shown = 0;
  for (const proof of proofs) {
    const text = texts.get(proof);
    proof.hidden = !(outcomes.has(proof.dataset.outcome) && words.every((word) => text.includes(word)));
    shown += proof.hidden ? 0 : 1;
  }
  document.getElementById("shown").textContent = `${shown} of ${proofs.length} shown`;
  document.getElementById("nothing").hidden = shown > 0 || proofs.length === 0;
}

function openAll(open) {
  for (const proof of proofs) proof.open = open;
}

form.hidden = proofs.length === 0;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", show);
document.getElementById("open-all").addEventListener("click", () => openAll(true));
document.getElementById("close-all").addEventListener("click", () => openAll(false));
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search) {
    event.preventDefault();
    search.focus();
  }
});
show();
