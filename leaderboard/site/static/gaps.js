// Source x target: the numbers of another row, from the data of all rows, loaded when first asked for.
"use strict";
(() => {
  const choice = document.getElementById("gap-row");
  const status = document.getElementById("gap-status");

  const show = async () => {
    const wanted = choice.value;
    status.textContent = "loading";
    try {
      const all = await stbench.load(choice.dataset.src, "gaps");
      if (choice.value !== wanted) return;
      for (const table of document.querySelectorAll("table.gaps")) {
        const top = Number(table.dataset.top);
        for (const line of table.tBodies[0].rows) {
          const found = all[wanted][line.dataset.benchmark];
          for (const cell of line.querySelectorAll("[data-domain]")) {
            const value = found.domains[cell.dataset.domain] ?? null;
            cell.textContent = stbench.percent(value, 1);
            cell.className = stbench.heat(value, top);
          }
          const interval = found.low === null ? "" : ` (${stbench.signed(found.low)} to ${stbench.signed(found.high)})`;
          line.querySelector('[data-field="all"]').textContent = stbench.percent(found.all);
          line.querySelector('[data-field="reference"]').textContent = stbench.percent(found.reference);
          line.querySelector('[data-field="drop"]').textContent = stbench.signed(found.drop) + interval;
        }
      }
      status.textContent = "";
    } catch (error) {
      status.textContent = error.message;
    }
  };
  choice.addEventListener("change", show);
})();
