// Sets the colours before the page is drawn. A classic script, so that it runs before the first paint.
"use strict";
(() => {
  const root = document.documentElement;
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  const stored = () => {
    try { return localStorage.getItem("theme") || "auto"; } catch { return "auto"; }
  };
  apply(stored());
  addEventListener("DOMContentLoaded", () => {
    for (const input of document.querySelectorAll("input[name=theme]")) {
      input.checked = input.value === stored();
      input.addEventListener("change", () => {
        try { localStorage.setItem("theme", input.value); } catch { /* the choice lasts as long as the page */ }
        apply(input.value);
        dispatchEvent(new Event("themechange"));
      });
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
})();
