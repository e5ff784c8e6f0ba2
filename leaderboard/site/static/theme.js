// Before the first paint: the theme that was chosen on an earlier visit, if any.
"use strict";
(() => {
  try {
    const chosen = localStorage.getItem("stbench-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch { /* storage may be shut: the system's theme is used */ }
})();
