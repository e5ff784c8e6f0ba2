// Two rows side by side: their data are loaded when they are chosen.
"use strict";
(() => {
  const form = document.getElementById("compare");
  const first = document.getElementById("row-a"), second = document.getElementById("row-b");
  const table = document.getElementById("t-compare");
  const lines = [...table.tBodies[0].rows, ...table.tFoot.rows];
  const benchmarks = [...table.tBodies[0].rows].map((line) => line.dataset.benchmark);
  const orNull = (value) => Number.isNaN(value) ? null : value;
  const probability = (p) => {
    if (Number.isNaN(p)) return stbench.NOTHING;
    return p < 0.0001 ? "< 0.0001" : p.toFixed(4);
  };

  // A dot with its interval around a line at 0.
  const plot = (result, reach) => {
    const at = (value) => 60 + 58 * value / reach;
    const svg = stbench.svg("svg", { class: "range", viewBox: "0 0 120 14", "aria-hidden": "true" });
    svg.append(stbench.svg("path", { class: "zero", d: "M60 1V13" }));
    if (!Number.isNaN(result.runsLow)) svg.append(stbench.svg("path", { class: "runs", d: `M${at(result.runsLow)} 7H${at(result.runsHigh)}` }));
    if (!Number.isNaN(result.low)) svg.append(stbench.svg("path", { class: "whisker", d: `M${at(result.low)} 7H${at(result.high)}` }));
    if (!Number.isNaN(result.difference)) svg.append(stbench.svg("circle", { cx: at(result.difference), cy: 7, r: 3 }));
    return svg;
  };

  const fillLine = (line, result, reach) => {
    const corrected = (p, holm) => result.benchmark === "all" ? p : holm;
    const between = (low, high) => Number.isNaN(low) ? stbench.NOTHING : `${stbench.signed(low)} to ${stbench.signed(high)}`;
    const texts = [stbench.percent(orNull(result.a)), stbench.percent(orNull(result.b)), stbench.signed(orNull(result.difference)),
      between(result.low, result.high), null, probability(corrected(result.p, result.holm)), String(result.places),
      between(result.runsLow, result.runsHigh), probability(corrected(result.runsP, result.runsHolm)),
      result.bySeed.map((value) => stbench.signed(value)).join(", "),
      [result.remark, result.reason && "no interval: " + result.reason].filter(Boolean).join("; ")];
    texts.forEach((text, n) => {
      const cell = line.cells[n + 1];
      if (text === null) cell.replaceChildren(plot(result, reach));
      else cell.textContent = text;
    });
    const shown = (p, holm) => corrected(p, holm) < 0.05;
    // a single seed says nothing of others: the remark tells so
    line.classList.toggle("clear", shown(result.p, result.holm) && (Number.isNaN(result.runsP) || shown(result.runsP, result.runsHolm)));
    // full precision, for whoever reads the page with a program
    for (const name of ["difference", "low", "high", "p", "holm", "places", "runsLow", "runsHigh", "runsP", "runsHolm"]) line.dataset[name] = String(result[name]);
  };

  const load = (...slugs) => Promise.all(slugs.map((slug) => stbench.load(form.dataset.rows + slug + ".js", "row:" + slug)));
  const fill = ([a, b]) => {
    const results = stbench.stats.compare(a, b, benchmarks);
    const ends = results.flatMap((result) => [result.difference, result.low, result.high, result.runsLow, result.runsHigh]).filter(Number.isFinite).map(Math.abs);
    const reach = Math.max(0.01, Math.ceil(100 * Math.max(0, ...ends)) / 100);
    document.getElementById("compare-scale").textContent = `\u2212${stbench.percent(reach, 0)} to +${stbench.percent(reach, 0)}`;
    results.forEach((result, n) => fillLine(lines[n], result, reach));
    return first.value === second.value ? "the same row twice" : "";
  };
  const show = stbench.follow([first, second], document.getElementById("compare-status"), load, fill);

  const chosen = () => {
    stbench.setAddress([["a", first.value], ["b", second.value]]);
    show();
  };
  const fromAddress = () => {
    const address = stbench.address();
    for (const [name, select] of [["a", first], ["b", second]]) {
      const option = [...select.options].find((candidate) => candidate.value === address.get(name));
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
