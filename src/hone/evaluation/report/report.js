// Enhancements only: the page is complete without them.
"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
function showTip(text, x, y) {
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(x - width / 2, innerWidth - width - 8))}px`;
  tip.style.top = `${y - height - 14 < 8 ? y + 18 : y - height - 14}px`;
}

// Titles of charts and cells as tooltips: without the browser's delay, in the style of the page.
for (const title of all("svg title, td[title]")) {
  const owner = title.tagName === "TD" ? title : title.parentElement;
  owner.dataset.tip = title.tagName === "TD" ? title.title : title.textContent;
  title.tagName === "TD" ? title.removeAttribute("title") : title.remove();
}
addEventListener("pointermove", (event) => {
  const owner = event.target.closest?.("[data-tip]");
  if (owner || !event.target.closest?.(".canvas")) showTip(owner?.dataset.tip, event.clientX, event.clientY);
});

// Line charts show the value at the pointer, or at the point chosen with the arrow keys.
for (const canvas of all("[data-readout]")) {
  const points = JSON.parse(canvas.dataset.readout);
  if (!points.length) continue;
  const cursor = canvas.appendChild(Object.assign(document.createElement("div"), { className: "cursor", hidden: true }));
  let current = points.length - 1;
  const show = (index, y) => {
    current = Math.max(0, Math.min(index, points.length - 1));
    const box = canvas.getBoundingClientRect();
    cursor.hidden = false;
    cursor.style.left = `${points[current][0]}%`;
    showTip(points[current][1], box.left + (box.width * points[current][0]) / 100, y ?? box.top + 24);
  };
  const hide = () => { cursor.hidden = true; showTip(""); };
  canvas.tabIndex = 0;
  canvas.addEventListener("pointermove", (event) => {
    if (event.target.closest("[data-tip]")) { cursor.hidden = true; return; }
    const box = canvas.getBoundingClientRect();
    const x = (100 * (event.clientX - box.left)) / box.width;
    const after = points.findIndex((point) => point[0] >= x);
    const right = after < 0 ? points.length - 1 : after;
    show(right > 0 && x - points[right - 1][0] < points[right][0] - x ? right - 1 : right, event.clientY);
  });
  canvas.addEventListener("pointerleave", hide);
  canvas.addEventListener("blur", hide);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(current + move);
  });
}

// A click on a heading sorts its table.
for (const table of all("table.sortable")) {
  const heads = all("thead th", table);
  const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = all("tbody tr", table).sort((a, b) => {
        const order = value(a, column).localeCompare(value(b, column), undefined, { numeric: !a.cells[column].dataset.sort });
        const numbers = Number(value(a, column)) - Number(value(b, column));
        return (up ? 1 : -1) * (Number.isNaN(numbers) ? order : numbers);
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// The filter shows the errors that contain all of its words.
for (const filter of all(".filter")) {
  const items = all(".errors > li", filter.parentElement);
  filter.hidden = items.length < 6;
  filter.querySelector("input").addEventListener("input", ({ target }) => {
    const wanted = target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of items) item.hidden = !wanted.every((word) => item.textContent.toLowerCase().includes(word));
    filter.querySelector("output").textContent = wanted.length ? `${items.filter((item) => !item.hidden).length} of ${items.length}` : "";
  });
}

// The navigation marks the section in view.
const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    links.get(target.id)?.setAttribute("aria-current", "true");
  }
}, { rootMargin: "-20% 0px -75% 0px" });
all("main > section").forEach((section) => watch.observe(section));

// Details are opened for printing: paper has no disclosure triangles.
addEventListener("beforeprint", () => all("details.print:not([open])").forEach((details) => { details.open = true; details.dataset.printed = ""; }));
addEventListener("afterprint", () => all("details[data-printed]").forEach((details) => { details.open = false; delete details.dataset.printed; }));
