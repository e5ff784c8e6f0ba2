// A benchmark's page: whose predictions and whose confusion matrix are shown.
"use strict";
for (const choice of document.querySelectorAll("select[data-picture]")) {
  const image = document.getElementById(choice.dataset.picture);
  choice.addEventListener("change", () => {
    image.src = choice.value;
    const text = choice.selectedOptions[0].textContent;
    image.alt = text.includes(", seed ") ? "Prediction of " + text : text;
  });
}

// Two pictures on one another, and the border between them.
(() => {
  const slider = document.getElementById("swipe");
  if (!slider) return;
  const pair = document.getElementById("swipe-pair"), [, above] = pair.querySelectorAll("img");
  const edge = pair.querySelector(".edge");
  const move = () => {
    above.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    edge.style.left = slider.value + "%";
  };
  pair.classList.add("on");
  edge.hidden = false;
  slider.closest("label").hidden = false;
  slider.addEventListener("input", move);
  pair.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch" && !event.isPrimary) return;
    const box = pair.getBoundingClientRect();
    slider.value = Math.round(100 * (event.clientX - box.left) / box.width);
    move();
  });
  move();
})();

(() => {
  const choice = document.getElementById("confused");
  if (!choice) return;
  const lines = [...document.getElementById("t-confusion").tBodies[0].rows];
  const fill = (data) => data.benchmarks[choice.dataset.benchmark].matrix.forEach((counts, truth) => {
    const total = counts.reduce((sum, value) => sum + value, 0);
    counts.forEach((value, predicted) => {
      const cell = lines[truth].cells[predicted + 1];
      const share = total ? value / total : null;
      cell.textContent = share === null ? "" : stbench.percent(share, 0);
      cell.className = stbench.heat(share, 1) + (truth === predicted ? " right" : "");
    });
  });
  const load = (slug) => stbench.load(choice.dataset.rows + slug + ".js", "row:" + slug);
  choice.addEventListener("change", stbench.follow([choice], document.getElementById("confusion-status"), load, fill));
})();
