// Data, colours and what all parts of the page share.
const DATA = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PALETTE = ["#3b82f6", "#f08c1a", "#12a575", "#e5484d", "#8b5cf6", "#e0529c", "#0ea5b7", "#8aa31d",
  "#5b6ee8", "#b3662d", "#2f9e44", "#a855c7"];
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "pentagon", "hexagon", "star-square", "cross",
  "triangle-down", "hourglass", "bowtie", "star-triangle-up"];
const methodNumber = (name) => Math.max(0, DATA.methods.indexOf(name));
const colourOf = (name) => (name === "base" ? theme().base : PALETTE[methodNumber(name) % PALETTE.length]);
const symbolOf = (name) => SYMBOLS[methodNumber(name) % SYMBOLS.length];
const percent = (value) => (value === null || value === undefined ? "–" : (100 * value).toFixed(1) + " %");

function theme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue("--" + name).trim();
  return { ink: read("ink"), soft: read("soft"), line: read("line"), panel: read("panel"),
    base: read("base"), dark: matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches };
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  // Text always goes in as text: answers may contain markup.
  element.append(...children.filter((child) => child !== null));
  return element;
}

function option(value, text, selected = false) {
  const element = make("option", { value }, text);
  element.selected = selected;
  return element;
}

// Everything drawn by Plotly is redrawn when the reader's colours change, and in light colours for printing.
const drawings = [];
function drawing(draw) {
  drawings.push(draw);
  draw();
}
const redraw = () => drawings.forEach((draw) => draw());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
window.matchMedia("print").addEventListener("change", redraw);

// The contents bar shows where the reader is.
const links = new Map([...document.querySelectorAll("nav.contents a")].map((a) => [a.hash.slice(1), a]));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) {
      links.forEach((link) => link.classList.remove("here"));
      links.get(entry.target.id)?.classList.add("here");
    }
  }
}, { rootMargin: "-20% 0px -70% 0px" });
document.querySelectorAll("main > section[id]").forEach((section) => {
  if (links.has(section.id)) watcher.observe(section);
});

// Buttons that show and hide methods in a group of plots.
function methodChips(container, names, onChange) {
  const hidden = new Set();
  for (const { name, label } of names) {
    const chip = make("button", { type: "button", "aria-pressed": "true", "data-method": name }, make("i"), label);
    chip.style.setProperty("--c", colourOf(name));
    chip.addEventListener("click", () => {
      if (hidden.has(name)) hidden.delete(name);
      else hidden.add(name);
      chip.setAttribute("aria-pressed", String(!hidden.has(name)));
      onChange();
    });
    container.append(chip);
  }
  return hidden;
}
