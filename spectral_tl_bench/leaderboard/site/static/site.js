// What every page has: data that is loaded on demand, and the choice of the theme.
"use strict";
const stbench = (() => {
  const known = new Map();
  const loading = new Map();

  // Data files call this; a page that is opened from disk can load scripts, and nothing else.
  const put = (key, value) => { known.set(key, value); };

  // The value that the script at src puts under key.
  const load = (src, key) => {
    if (known.has(key)) return Promise.resolve(known.get(key));
    if (!loading.has(src)) {
      loading.set(src, new Promise((resolve, reject) => {
        const script = document.createElement("script");
        script.src = src;
        script.onload = () => resolve();
        script.onerror = () => { loading.delete(src); reject(new Error("the data could not be loaded")); };
        document.head.append(script);
      }));
    }
    return loading.get(src).then(() => known.get(key));
  };

  // Shows what is chosen in some selects: the data that load(values) promises go to fill, unless something else is
  // chosen by then. Gives the function that shows the choice of now.
  const follow = (selects, status, load, fill) => async () => {
    const wanted = selects.map((select) => select.value);
    status.textContent = "loading";
    try {
      const data = await load(...wanted);
      if (selects.some((select, n) => select.value !== wanted[n])) return;
      status.textContent = fill(data) ?? "";
    } catch (error) {
      status.textContent = error.message;
    }
  };

  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  const MINUS = "\u2212", NOTHING = "\u2013";
  const percent = (value, digits = 2) => value === null ? NOTHING : (100 * value).toFixed(digits);
  const signed = (value, digits = 2) => {
    if (value === null) return NOTHING;
    const text = Math.abs(100 * value).toFixed(digits);
    if (Number(text) === 0) return text;
    return (value < 0 ? MINUS : "+") + text;
  };
  const heat = (value, top) => value === null ? "" : "h" + Math.min(9, Math.max(0, Math.floor(10 * value / top)));

  // The part of the address after #, as key=value pairs.
  const address = () => new URLSearchParams(location.hash.slice(1));
  const setAddress = (entries) => {
    const text = new URLSearchParams(entries.filter(([, value]) => value)).toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  };
  return { put, load, follow, svg, percent, signed, heat, address, setAddress, NOTHING };
})();

(() => {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
  button.hidden = false;
  name();
  system.addEventListener("change", name);
  button.addEventListener("click", () => {
    const next = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    try { localStorage.setItem("stbench-theme", next); } catch { /* for this page only, then */ }
    name();
  });

  // Tables that are wider than the page say so.
  const wide = () => {
    for (const box of document.querySelectorAll(".scroll[role=region]")) {
      const cut = box.scrollWidth - box.clientWidth - box.scrollLeft > 2;
      box.classList.toggle("more", cut);
      let told = box.previousElementSibling;
      if (told?.classList.contains("scroll-told")) told.hidden = !cut && !box.scrollLeft;
      if (cut && !told?.classList.contains("scroll-told")) {
        told = Object.assign(document.createElement("p"), { className: "scroll-told", textContent: "There is more to the right: scroll, or use the arrow keys." });
        box.before(told);
      }
    }
  };
  addEventListener("resize", wide);
  addEventListener("load", wide);
  document.addEventListener("scroll", wide, true);
  document.addEventListener("input", () => setTimeout(wide));

  // Plots: say what the mark is that is pointed at or has the focus.
  for (const plot of document.querySelectorAll("svg.scatter")) {
    const caption = plot.parentElement.querySelector(".told");
    const say = (event) => { caption.textContent = event.target.closest("a")?.getAttribute("aria-label") ?? caption.textContent; };
    plot.addEventListener("pointerover", say);
    plot.addEventListener("focusin", say);
  }
})();
