// Tables with class "grid": sort by a click on a heading, filter with the form beside, pages of rows. Of a table in parts,
// whose other rows stand on other pages, scripts bring these rows before anything is sorted or filtered.
"use strict";
for (const table of document.querySelectorAll("table.grid")) {
  const heads = [...table.tHead.rows[0].cells];
  const buttons = heads.map((head) => head.querySelector("button"));
  if (!buttons.some(Boolean)) continue;
  const form = table.id ? document.querySelector(`form.controls[data-for="${CSS.escape(table.id)}"]`) : null;
  const body = table.tBodies[0];
  const { part, first, total, scripts } = { part: 0, first: 0, total: body.rows.length, scripts: "", ...table.dataset };
  const sources = scripts.split(" ");
  let all = [...body.rows], whole = sources.length < 2, before = Number(first);
  const count = Number(total);
  const size = Number(table.dataset.page) || Infinity;
  const shownMean = heads.findIndex((head) => "shownMean" in head.dataset);
  const detail = form ? form.querySelector("[data-detail]") : null;
  let order = all, sorted = -1, down = false, page = Math.floor(before / size), matching = all;
  let status = null, pager = null, onPaper = false;

  // What a search looks at: names, not numbers.
  const named = (cell, column) => cell.tagName === "TH" || heads[column].dataset.kind === "t" || cell.classList.contains("wrap");
  const textOf = (row) => [...[...row.cells].filter(named).map((cell) => cell.textContent), row.dataset.family ?? ""].join(" ").toLowerCase();
  const texts = new Map(all.map((row) => [row, textOf(row)]));

  const parse = (rows) => {
    const template = document.createElement("template");
    template.innerHTML = rows;
    return [...template.content.children];
  };
  // Do something that needs all rows, which another part's script may have to bring first.
  const withAll = (act) => {
    if (whole) { act(); return; }
    status.textContent = "loading";
    Promise.all(sources.map((source, n) => n === Number(part) ? all : stbench.load(source, source).then(parse))).then((parts) => {
      if (!whole) {
        [all, whole, before] = [parts.flat(), true, 0];
        for (const row of all) texts.set(row, texts.get(row) ?? textOf(row));
        arrange();
      }
      act();
    }).catch((error) => {
      if (sorted >= 0) heads[sorted].setAttribute("aria-sort", "none");
      sorted = -1;
      links.hidden = false;
      status.textContent = `${error.message}: neither sorted nor filtered, this page has rows ${before + 1} to ${before + all.length} of ${count}`;
    });
  };

  // NaN where a cell has no value; such rows stay last whichever way the column is sorted.
  const number = (row, column) => parseFloat(row.cells[column].dataset.v);

  const sortRows = () => {
    if (sorted < 0) { order = all; return; }
    const numeric = heads[sorted].dataset.kind === "n";
    const keys = new Map(all.map((row) => [row, numeric ? number(row, sorted) : row.cells[sorted].textContent.trim()]));
    const collator = new Intl.Collator("en", { numeric: true });
    order = [...all].sort((left, right) => {
      const a = keys.get(left), b = keys.get(right);
      if (!numeric) return (down ? -1 : 1) * collator.compare(a, b);
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return down ? b - a : a - b;
    });
  };

  const filterRows = () => {
    const fields = form ? [...form.elements] : [];
    const words = fields.filter((field) => "search" in field.dataset)
      .flatMap((field) => field.value.toLowerCase().split(/\s+/)).filter(Boolean);
    const equal = fields.filter((field) => field.dataset.filter && field.value);
    const most = fields.filter((field) => field.dataset.most && field.value !== "" && Number.isFinite(field.valueAsNumber));
    matching = order.filter((row) =>
      words.every((word) => texts.get(row).includes(word)) &&
      equal.every((field) => row.dataset[field.dataset.filter] === field.value) &&
      most.every((field) => Number(row.dataset[field.dataset.most] ?? NaN) <= field.valueAsNumber * Number(field.dataset.factor)));
  };

  // Columns that a filter leaves out, by their number.
  const hiddenColumns = () => {
    const hidden = new Set();
    const chosen = form ? [...form.elements].filter((field) => field.dataset.columns && field.value) : [];
    heads.forEach((head, column) => {
      const about = chosen.filter((field) => field.dataset.columns in head.dataset);
      if (about.some((field) => head.dataset[field.dataset.columns] !== field.value)) hidden.add(column);
    });
    if (shownMean >= 0 && !hidden.size) hidden.add(shownMean);
    if (detail && !detail.value) heads.forEach((head, column) => { if ("detail" in head.dataset) hidden.add(column); });
    return hidden;
  };

  // The mean over the shown benchmarks with a gap, for rows that have a complete number on each.
  const meanOfShown = (hidden) => {
    const columns = heads.map((_, column) => column).filter((column) =>
      heads[column].dataset.gap && heads[column].dataset.gap !== "none" && !hidden.has(column));
    for (const row of all) {
      const cell = row.cells[shownMean];
      const values = columns.map((column) => row.cells[column].querySelector(".part") ? NaN : number(row, column));
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      if (Number.isFinite(mean)) { cell.dataset.v = mean; cell.textContent = stbench.percent(mean, 1); }
      else { cell.dataset.v = ""; cell.textContent = stbench.NOTHING; }
    }
  };

  const show = () => {
    const found = whole ? matching.length : count;
    const pages = Math.max(1, Math.ceil(found / size));
    page = Math.min(page, pages - 1);
    const rows = size === Infinity || onPaper ? matching : matching.slice(page * size - before, (page + 1) * size - before);
    const hidden = hiddenColumns();
    for (const row of [table.tHead.rows[0], ...rows]) {
      for (let column = 0; column < row.cells.length; column += 1) row.cells[column].hidden = hidden.has(column);
    }
    body.replaceChildren(...rows);
    if (!status) return;
    const from = found && (onPaper ? before : page * size) + 1;
    const part = rows.length < found ? `, ${from} to ${from + rows.length - 1} shown` : "";
    const which = found < count ? `${found} of ${count} rows` : `${count} rows`;
    status.textContent = which + part;
    if (pager) {
      pager.hidden = pages < 2;
      pager.firstElementChild.disabled = page === 0;
      pager.lastElementChild.disabled = page === pages - 1;
    }
  };

  const arrange = () => {
    if (shownMean >= 0) meanOfShown(hiddenColumns());
    sortRows();
    filterRows();
  };
  const update = () => withAll(() => { arrange(); show(); });
  const turn = (step) => {
    const rows = (page + step) * size - before;
    if (whole || (rows >= 0 && rows < all.length)) { page += step; show(); } else withAll(() => { page += step; show(); });
  };

  const sortBy = (column, downwards) => {
    if (sorted >= 0) heads[sorted].setAttribute("aria-sort", "none");
    [sorted, down, page] = [column, downwards, 0];
    heads[sorted].setAttribute("aria-sort", down ? "descending" : "ascending");
  };

  const remember = () => {
    if (table.id !== "overview" || !form) return;
    const fields = [...form.elements].filter((field) => field.name).map((field) =>
      [field.name, field.tagName === "SELECT" && !field.selectedIndex ? "" : field.value]);
    setTimeout(() => stbench.setAddress([...fields, ["sort", sorted < 0 ? "" : `${sorted}${down ? "d" : "a"}`]]));
  };

  buttons.forEach((button, column) => {
    if (!button) return;
    button.addEventListener("click", () => {
      const upFirst = heads[column].dataset.kind !== "n" || heads[column].dataset.first === "ascending";
      sortBy(column, column === sorted ? !down : !upFirst);
      update();
      remember();
    });
  });

  if (form || count > size) {
    const make = (tag, properties, ...children) => {
      const element = Object.assign(document.createElement(tag), properties);
      element.append(...children);
      return element;
    };
    status = make("span");
    status.setAttribute("role", "status");
    const foot = make("div", { className: "foot" }, status);
    if (count > size) {
      pager = make("span", { className: "pager" }, ...[["Previous", -1], ["Next", 1]].map(([textContent, step]) =>
        make("button", { type: "button", textContent, onclick: () => turn(step) })));
      for (const button of pager.children) button.setAttribute("aria-controls", table.id);
      foot.append(pager);
    }
    table.closest(".scroll").after(foot);
  }
  if (form) {
    const beside = form.querySelector("[data-beside]");
    const changed = () => { page = 0; if (beside) table.dataset.beside = beside.value; update(); remember(); };
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", changed);
    form.addEventListener("reset", () => setTimeout(changed));
    if (table.id === "overview") {
      for (const [name, value] of stbench.address()) {
        const field = form.elements.namedItem(name);
        if (field && "value" in field) field.value = value;
        const column = name === "sort" && /^\d+[ad]$/.test(value) ? parseInt(value, 10) : -1;
        if (buttons[column]) sortBy(column, value.endsWith("d"));
      }
    }
    for (const field of form.querySelectorAll("select")) if (field.selectedIndex < 0) field.selectedIndex = 0;
    if (beside) table.dataset.beside = beside.value;
  }
  const links = whole ? null : document.querySelector("nav.parts");
  if (links) links.hidden = true;
  const asked = sorted >= 0 || (form && [...form.elements].some((field) => (field.tagName === "SELECT" ? field.selectedIndex > 0 : field.type !== "reset" && field.tagName !== "BUTTON" && field.value)));
  if (asked) { page = 0; update(); } else { arrange(); show(); }

  // A link to a row: the page of the table that has it.
  const toRow = () => {
    const row = all.find((one) => one.id && "#" + one.id === location.hash);
    if (!row && !whole) withAll(toRow);
    if (!row) return;
    const place = matching.indexOf(row);
    if (place < 0) return;
    page = size === Infinity ? 0 : Math.floor((before + place) / size);
    show();
    row.scrollIntoView({ block: "center" });
  };
  if (count > size) for (const event of ["beforeprint", "afterprint"]) {
    addEventListener(event, () => { onPaper = event === "beforeprint"; show(); });
  }
  if (location.hash.startsWith("#row-")) toRow();
  addEventListener("hashchange", () => { if (location.hash.startsWith("#row-")) toRow(); });
}
