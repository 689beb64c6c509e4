"use strict";
(() => {
  const root = document.documentElement;

  const theme = document.getElementById("theme");
  const wantsDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : wantsDark.matches);
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  wantsDark.addEventListener("change", name);
  theme.hidden = false;
  name();

  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent : Number(cell.dataset.sort);
  };
  // What is missing stays at the end, whichever way the column is sorted.
  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const button of table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => {
        const heading = button.parentElement;
        const down = heading.getAttribute("aria-sort") === "descending";
        for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "ascending" : "descending");
        const rows = [...table.tBodies[0].rows];
        const at = heading.cellIndex;
        rows.sort((a, b) => compare(key(a, at), key(b, at), down ? 1 : -1));
        table.tBodies[0].append(...rows);
      });
    }
  }

  const filter = document.getElementById("filter");
  if (filter) {
    const threat = document.getElementById("threat");
    const model = document.getElementById("model");
    const apply = () => {
      const words = model.value.toLowerCase().split(/\s+/).filter(Boolean);
      let left = 0;
      for (const section of document.querySelectorAll("section[data-threat]")) {
        const other = threat.value !== "" && section.dataset.threat !== threat.value;
        let here = 0;
        for (const row of section.querySelectorAll("tbody tr")) {
          const name = row.cells[1].textContent.toLowerCase();
          row.hidden = other || !words.every((word) => name.includes(word));
          here += !row.hidden;
        }
        section.hidden = here === 0;
        left += here;
      }
      const none = threat.value === "" && words.length === 0;
      document.getElementById("left").textContent = none ? "" : `${left} shown`;
    };
    threat.addEventListener("change", apply);
    model.addEventListener("input", apply);
    filter.hidden = false;
    apply();
  }

  const copy = document.getElementById("copy");
  if (copy) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      const code = document.getElementById("command");
      try {
        await navigator.clipboard.writeText(code.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        copy.textContent = "Selected";
      }
    });
  }

  const folded = () => document.querySelectorAll("details:not([open])");
  addEventListener("beforeprint", () => {
    for (const one of folded()) { one.open = true; one.dataset.printed = ""; }
  });
  addEventListener("afterprint", () => {
    for (const one of document.querySelectorAll("details[data-printed]")) {
      one.open = false;
      delete one.dataset.printed;
    }
  });
})();
