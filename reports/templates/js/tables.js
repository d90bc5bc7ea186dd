// Tables of class sortable: each head becomes a button, aria-sort says the order. The first body, if pinned, stays.
(() => {
  const { all, make } = page;
  const valueOf = (cell) => (cell ? cell.dataset.v ?? cell.textContent.trim() : "");
  function compare(x, y) {
    const [p, q] = [parseFloat(x.replaceAll(",", "")), parseFloat(y.replaceAll(",", ""))];
    if (Number.isNaN(p) || Number.isNaN(q)) {
      if (Number.isNaN(p) !== Number.isNaN(q)) return null; // what has no number stays last
      return x.localeCompare(y, "en", { numeric: true });
    }
    return p - q;
  }
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    const body = table.tBodies[table.tBodies.length - 1];
    if (body.rows.length < 2) continue;
    heads.forEach((head, column) => {
      const label = head.textContent.trim();
      if (!label || head.classList.contains("lane-cell")) return;
      const button = make("button", { type: "button", className: "sort" }, ...head.childNodes);
      for (const name of ["data-def", "aria-describedby"]) {
        if (head.hasAttribute(name)) button.setAttribute(name, head.getAttribute(name));
        head.removeAttribute(name);
      }
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const old = head.getAttribute("aria-sort");
        const down = old === "none" ? head.classList.contains("num") : old === "ascending";
        heads.forEach((h) => { if (h.hasAttribute("aria-sort")) h.setAttribute("aria-sort", "none"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [valueOf(a.cells[column]), valueOf(b.cells[column])];
          const order = compare(x, y);
          if (order === null) return Number.isNaN(parseFloat(x)) ? 1 : -1;
          return down ? -order : order;
        });
        body.append(...rows);
      });
    });
  }
})();
