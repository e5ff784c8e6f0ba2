// A benchmark's page: whose predictions and whose confusion matrix are shown.
"use strict";
for (const choice of document.querySelectorAll("select[data-picture]")) {
  const image = document.getElementById(choice.dataset.picture);
  const show = () => {
    const option = choice.selectedOptions[0];
    image.src = option.value;
    image.alt = "Prediction of " + option.textContent;
  };
  choice.addEventListener("change", show);
}

(() => {
  const choice = document.getElementById("confused");
  if (!choice) return;
  const status = document.getElementById("confusion-status");
  const lines = [...document.getElementById("t-confusion").tBodies[0].rows];

  const show = async () => {
    const wanted = choice.value;
    status.textContent = "loading";
    try {
      const data = await stbench.load(choice.dataset.rows + wanted + ".js", "row:" + wanted);
      if (choice.value !== wanted) return;
      const matrix = data.benchmarks[choice.dataset.benchmark].matrix;
      lines.forEach((line, truth) => {
        const total = matrix[truth].reduce((sum, value) => sum + value, 0);
        matrix[truth].forEach((value, predicted) => {
          const cell = line.cells[predicted + 1];
          const share = total ? value / total : null;
          cell.textContent = share === null ? "" : stbench.percent(share, 0);
          cell.className = stbench.heat(share, 1) + (truth === predicted ? " right" : "");
        });
      });
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
  };
  choice.addEventListener("change", show);
})();
