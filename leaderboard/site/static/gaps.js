// Source x target: the numbers of another row, loaded when it is chosen.
"use strict";
(() => {
  const choice = document.getElementById("gap-row");
  const fill = (row) => {
    for (const table of document.querySelectorAll("table.gaps")) {
      for (const line of table.tBodies[0].rows) {
        const numbers = row.gaps[line.dataset.benchmark];
        for (const cell of line.querySelectorAll("[data-domain]")) {
          const value = numbers.domains[cell.dataset.domain] ?? null;
          cell.textContent = stbench.percent(value, 1);
          cell.className = stbench.heat(value, Number(table.dataset.top));
        }
        const interval = numbers.low === null ? "" : ` (${stbench.signed(numbers.low)} to ${stbench.signed(numbers.high)})`;
        line.querySelector('[data-field="all"]').textContent = stbench.percent(numbers.all);
        line.querySelector('[data-field="reference"]').textContent = stbench.percent(numbers.reference);
        line.querySelector('[data-field="drop"]').textContent = stbench.signed(numbers.drop) + interval;
      }
    }
  };
  const load = (slug) => stbench.load(choice.dataset.rows + slug + ".js", "row:" + slug);
  choice.addEventListener("change", stbench.follow([choice], document.getElementById("gap-status"), load, fill));
})();
