// The tables of the home page and of all servers: asked for again while somebody looks at them.
"use strict";
(() => {
  const EVERY_MS = 5000;
  const area = document.getElementById("hpc-servers");
  if (!area) return;

  const rows = () => [...area.querySelectorAll("[data-hpc-key]")];

  function fill(row, cells) {
    for (const cell of row.querySelectorAll("[data-hpc-cell]")) {
      const text = cells[cell.dataset.hpcCell] ?? "";
      if (cell.textContent !== text) cell.textContent = text;
    }
  }

  // Other rows or other buttons: the server draws them.
  async function draw() {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("hpc-servers");
    if (fresh) area.replaceChildren(...fresh.childNodes);
  }

  async function refresh() {
    if (document.hidden) return;
    const answer = await fetch(area.dataset.hpcData, { headers: { Accept: "application/json" } });
    if (!answer.ok) return;
    const wanted = (await answer.json()).rows;
    const here = rows();
    const same =
      JSON.stringify(here.map((row) => [row.dataset.hpcKey, row.dataset.hpcShape])) ===
      JSON.stringify(wanted.map((row) => [row.key, row.shape]));
    if (same) here.forEach((row, index) => fill(row, wanted[index].cells));
    // Nothing moves under the hands of one who is about to press or to choose.
    else if (!area.querySelector("a:focus, button:focus, select:focus")) await draw();
  }

  async function again() {
    try {
      await refresh();
    } catch {
      // The Hub is away for the moment; what was last known stays.
    }
    setTimeout(again, EVERY_MS);
  }

  setTimeout(again, EVERY_MS);
})();
