// Two rows side by side: their data are loaded when they are chosen.
"use strict";
(() => {
  const form = document.getElementById("compare");
  const first = document.getElementById("row-a"), second = document.getElementById("row-b");
  const status = document.getElementById("compare-status");
  const table = document.getElementById("t-compare");
  const lines = [...table.tBodies[0].rows, ...table.tFoot.rows];
  const benchmarks = [...table.tBodies[0].rows].map((line) => line.dataset.benchmark);
  const orNull = (value) => Number.isNaN(value) ? null : value;
  const probability = (p) => {
    if (Number.isNaN(p)) return stbench.NOTHING;
    return p < 0.0001 ? "< 0.0001" : p.toFixed(4);
  };

  // A dot with its interval around a line at 0.
  const plot = (found, reach) => {
    const at = (value) => 60 + 58 * value / reach;
    const svg = stbench.svg("svg", { class: "range", viewBox: "0 0 120 14", width: 120, height: 14, "aria-hidden": "true" });
    svg.append(stbench.svg("path", { class: "axis", d: "M2 7H118" }), stbench.svg("path", { class: "zero", d: "M60 1V13" }));
    if (!Number.isNaN(found.low)) svg.append(stbench.svg("path", { class: "whisker", d: `M${at(found.low)} 7H${at(found.high)}` }));
    if (!Number.isNaN(found.difference)) svg.append(stbench.svg("circle", { cx: at(found.difference), cy: 7, r: 3 }));
    return svg;
  };

  const fill = (line, found, reach) => {
    const interval = Number.isNaN(found.low) ? stbench.NOTHING : `${stbench.signed(found.low)} to ${stbench.signed(found.high)}`;
    const texts = [stbench.percent(orNull(found.a)), stbench.percent(orNull(found.b)), stbench.signed(orNull(found.difference)),
      interval, null, probability(found.p), probability(found.holm), String(found.places), [found.remark, found.reason && "no interval: " + found.reason].filter(Boolean).join("; ")];
    texts.forEach((text, n) => {
      const cell = line.cells[n + 1];
      if (text === null) cell.replaceChildren(plot(found, reach));
      else cell.textContent = text;
    });
    line.classList.toggle("clear", found.holm < 0.05 || (found.benchmark === "all" && found.p < 0.05));
    // full precision, for whoever reads the page with a program
    for (const name of ["difference", "low", "high", "p", "holm", "places"]) line.dataset[name] = String(found[name]);
  };

  const load = (slug) => stbench.load(form.dataset.rows + slug + ".js", "row:" + slug);

  const show = async () => {
    const wanted = [first.value, second.value];
    status.textContent = "loading";
    try {
      const [a, b] = await Promise.all(wanted.map(load));
      if (first.value !== wanted[0] || second.value !== wanted[1]) return;
      const found = stbench.stats.compare(a, b, benchmarks);
      const ends = found.flatMap((one) => [one.difference, one.low, one.high]).filter(Number.isFinite).map(Math.abs);
      const reach = Math.max(0.01, Math.ceil(100 * Math.max(0, ...ends)) / 100);
      document.getElementById("compare-scale").textContent = `\u2212${stbench.percent(reach, 0)} to +${stbench.percent(reach, 0)}`;
      found.forEach((one, n) => fill(lines[n], one, reach));
      status.textContent = first.value === second.value ? "the same row twice" : "";
    } catch (error) {
      status.textContent = error.message;
    }
  };

  const chosen = () => {
    stbench.setAddress([["a", first.value], ["b", second.value]]);
    show();
  };
  const fromAddress = () => {
    const address = stbench.address();
    for (const [name, select] of [["a", first], ["b", second]]) {
      const option = [...select.options].find((one) => one.value === address.get(name));
      if (option) option.selected = true;
    }
    if (first.value === second.value && !address.get("b")) second.selectedIndex = first.selectedIndex ? 0 : 1;
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  first.addEventListener("change", chosen);
  second.addEventListener("change", chosen);
  document.getElementById("swap").addEventListener("click", () => {
    [first.selectedIndex, second.selectedIndex] = [second.selectedIndex, first.selectedIndex];
    chosen();
  });
  addEventListener("hashchange", () => { fromAddress(); show(); });
  fromAddress();
  show();
})();
