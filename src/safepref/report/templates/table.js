// Sorting tables: base and trained points move, the published rows below stay.
for (const table of document.querySelectorAll("#methods-table, #strength-table")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, at) => head.querySelector("button")?.addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const keyed = [...table.tBodies[0].rows].map((row) => ({ row, key: row.cells[at].dataset.sort ?? "" }));
    keyed.sort((a, b) => {
      if ((a.key === "") !== (b.key === "")) return a.key === "" ? 1 : -1; // what was not measured stays last
      const order = at === 0 ? a.key.localeCompare(b.key) : Number(a.key) - Number(b.key);
      return rising ? order : -order;
    });
    table.tBodies[0].append(...keyed.map(({ row }) => row));
  }));
}
$("front-only")?.addEventListener("change", ({ target }) => {
  for (const row of $("strength-table").tBodies[0].rows) {
    row.hidden = target.checked && !row.classList.contains("front") && !row.classList.contains("picked");
  }
});
