
"use strict";
// Study report: selection of a finding, navigation of the stacks, windowing. Geometry is precomputed: points and
// outlines of a slice are in millimetres from its left and top edge.
const data = JSON.parse(document.getElementById("data").textContent);
const cells = [...document.querySelectorAll(".cell")];
const articles = [...document.querySelectorAll(".finding")];
const overlays = document.getElementById("overlays");
const closeup = document.getElementById("closeup");
// Absent if the model provides no saliency.
const saliency = document.getElementById("saliency");
const saliencyShow = document.getElementById("saliency-show");
const CLOSE_UP_MM = 90;
const NEAR_MM = 5;
let chosen = Number(document.querySelector('.cell[aria-pressed="true"]').dataset.row);

class Viewer {
  constructor(figure) {
    this.plane = data.planes[figure.dataset.plane];
    this.find = (selector) => figure.querySelector(selector);
    this.stage = this.find(".stage");
    this.image = this.find("img");
    this.overlay = this.find(".marks");
    this.heat = this.find(".heat");
    this.slider = this.find(".slider");
    this.level = this.find(".level");
    this.width = this.find(".width");
    this.windows = new Map();
    this.place = 0;
    this.slider.max = this.plane.slices.length - 1;
    this.find(".start").textContent = this.plane.edges[0];
    this.find(".end").textContent = this.plane.edges[1];
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    for (const input of [this.level, this.width]) {
      input.addEventListener("input", () => this.setWindow(Number(this.level.value), Number(this.width.value)));
    }
    this.find(".reset").addEventListener("click", () => this.resetWindow());
    this.stage.addEventListener("dblclick", () => this.resetWindow());
    this.stage.addEventListener("pointerdown", (event) => this.startDrag(event));
    this.stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(name, () => { this.from = null; });
    }
  }

  get slice() { return this.plane.slices[this.place]; }

  get crops() { return this.plane.crops[chosen] || []; }

  choose() {
    const gradedSlices = this.find(".graded-slices");
    const places = [...new Set(this.crops.map((crop) => crop.slice))].sort((a, b) => a - b);
    gradedSlices.textContent = places.length ? "Graded on slice" : "No member graded this finding on this plane.";
    for (const place of places) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button";
      button.dataset.place = place;
      button.textContent = this.plane.slices[place].number;
      button.addEventListener("click", () => this.show(place));
      gradedSlices.append(button);
    }
    this.show(this.plane.start[chosen]);
  }

  show(place) {
    this.place = place;
    const slice = this.slice;
    const here = this.crops.filter((crop) => crop.slice === place);
    const points = slice.points.filter(([row]) => data.peers[chosen].includes(row));
    const position = `Slice ${slice.number} of ${this.plane.total}${slice.place ? ", " + slice.place : ""}`;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", position);
    this.find(".position").textContent = position + (here.length ? ", graded" : "");
    this.find(".source").textContent =
      `Series ${slice.series}${slice.instance ? ", image " + slice.instance : ""}`;
    this.image.src = slice.image;
    this.image.alt = `${this.plane.title}. ${position}. ${data.findings[chosen]} ` +
      (here.length ? "was graded on this slice" : "was not graded on this slice") +
      (points.length ? `; level points: ${points.map(([row]) => data.levels[row]).join(", ")}.` : ".") +
      (showsSaliency() && here.some((crop) => crop.map)
        ? ` With saliency of ${data.saliency[chosen].source}.` : "");
    for (const button of this.find(".graded-slices").children) {
      button.setAttribute("aria-current", Number(button.dataset.place) === place);
    }
    const zoom = this.layOut();
    this.draw(here, points, zoom);
    this.applyWindow();
  }

  // Fits the slice, or 90 mm around the selected finding, into the square stage; returns the magnification.
  layOut() {
    const [width, height] = this.slice.size;
    const edge = Math.max(width, height);
    const layers = this.find(".layers");
    layers.style.width = `${(100 * width) / edge}%`;
    layers.style.height = `${(100 * height) / edge}%`;
    layers.style.left = `${(50 * (edge - width)) / edge}%`;
    layers.style.top = `${(50 * (edge - height)) / edge}%`;
    const centre = this.centre();
    const zoom = closeup.checked && centre ? Math.max(1, edge / CLOSE_UP_MM) : 1;
    if (zoom === 1) {
      layers.style.transform = "none";
      return 1;
    }
    // In percent of the layers; moves the point to the centre of the stage.
    const [x, y] = centre;
    const right = 50 - (100 * x * zoom) / width;
    const down = 50 - (100 * y * zoom) / height;
    layers.style.transform = `translate(${right}%, ${down}%) scale(${zoom})`;
    return zoom;
  }

  centre() {
    const crop = this.crops.find((candidate) => candidate.slice === this.place) || this.crops[0];
    if (crop) {
      return [0, 1].map((axis) => crop.corners.reduce((sum, corner) => sum + corner[axis], 0) / 4);
    }
    const point = this.slice.points.find(([row]) => row === chosen);
    return point ? [point[1], point[2]] : null;
  }

  draw(crops, points, zoom) {
    const [width, height] = this.slice.size;
    // Three screen pixels at any magnification. A collapsed stage has no width.
    const unit = (3 * Math.max(width, height)) / zoom / (this.stage.clientWidth || 330);
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.overlay.style.setProperty("--thick", `${0.6 * unit}px`);
    this.overlay.style.setProperty("--thin", `${0.4 * unit}px`);
    const outlines = crops.map((crop) => `<polygon class="outline" points="${crop.corners.join(" ")}"/>`);
    const marks = points.map(([row, x, y, distance]) => {
      const names = ["point"];
      if (Math.abs(distance) <= NEAR_MM) names.push("near");
      if (row === chosen) names.push("chosen");
      const size = row === chosen ? 1.5 : 1.1;
      return `<circle class="${names.join(" ")}" cx="${x}" cy="${y}" r="${size * unit}"/>` +
        `<text x="${x + 2.6 * unit}" y="${y + 1.4 * unit}" style="font-size:${4 * unit}px;` +
        `stroke-width:${0.9 * unit}px">${data.levels[row]}</text>`;
    });
    this.overlay.innerHTML = outlines.concat(marks).join("");
    this.overlay.style.visibility = overlays.checked ? "visible" : "hidden";
    this.heat.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.heat.innerHTML = showsSaliency() ? crops.filter((crop) => crop.map).map(drawSaliency).join("") : "";
  }

  get window() {
    const [low, high] = this.slice.window;
    return this.windows.get(this.slice.series) || { level: (low + high) / 2, width: high - low };
  }

  setWindow(level, width) {
    const bounded = Math.min(510, Math.max(2, width));
    // The lower bound stays at or above 0, so that two CSS filters suffice.
    const raised = Math.min(255, Math.max(level, bounded / 2));
    this.windows.set(this.slice.series, { level: raised, width: Math.min(bounded, 2 * raised) });
    this.applyWindow();
  }

  resetWindow() {
    this.windows.delete(this.slice.series);
    this.applyWindow();
  }

  // (grey - low) / (high - low) = (grey * brightness - 0.5) * contrast + 0.5, with low and high from 0 to 1.
  applyWindow() {
    const { level, width } = this.window;
    const low = (level - width / 2) / 255;
    const high = (level + width / 2) / 255;
    this.image.style.filter =
      `brightness(${1 / Math.max(low + high, 0.004)}) contrast(${(low + high) / (high - low)})`;
    this.level.value = level;
    this.width.value = width;
    this.level.setAttribute("aria-valuetext", `${Math.round(level)} of 255`);
    this.width.setAttribute("aria-valuetext", `${Math.round(width)} grey levels`);
  }

  startDrag(event) {
    if (event.button !== 0) return;
    this.from = { x: event.clientX, y: event.clientY, ...this.window };
    this.stage.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  drag(event) {
    if (!this.from) return;
    const across = event.clientX - this.from.x;
    const down = event.clientY - this.from.y;
    this.setWindow(this.from.level + down * 0.5, this.from.width + across);
  }
}

function showsSaliency() { return Boolean(saliency && saliency.checked); }

// A picture of side 1, mapped to a crop's corners: upper left, upper right, lower right, lower left.
function drawSaliency({ map, corners: [start, right, , down] }) {
  const across = [0, 1].map((axis) => right[axis] - start[axis]);
  const along = [0, 1].map((axis) => down[axis] - start[axis]);
  return `<image href="${map}" width="1" height="1" preserveAspectRatio="none" ` +
    `transform="matrix(${[...across, ...along, ...start].join(" ")})"/>`;
}

function describeSaliency() {
  if (!saliency) return;
  const found = data.saliency[chosen];
  const text = found
    ? `Saliency of ${found.source}. ` + (found.percent
      ? `The maximum for this finding is on slice ${found.number}, at ${found.percent}% of this member's ` +
        "maximum in the study."
      : "Almost nothing contributes to a prediction of moderate or severe.")
    : "This finding has no saliency: no member with known crops graded it.";
  document.getElementById("saliency-text").textContent = showsSaliency() ? text : "";
  saliencyShow.hidden = !(showsSaliency() && found && found.percent);
  document.getElementById("saliency-key").style.display = showsSaliency() ? "" : "none";
}

const viewers = [...document.querySelectorAll(".viewer")].map((figure) => new Viewer(figure));

saliencyShow?.addEventListener("click", () => {
  const { plane, number } = data.saliency[chosen];
  const viewer = viewers.find((candidate) => candidate.plane === data.planes[plane]);
  const place = viewer.plane.slices.findIndex((slice) => slice.number === number);
  // The slice is absent if not even all graded slices fit into the file.
  if (place >= 0) viewer.show(place);
});

function choose(row) {
  chosen = row;
  for (const cell of cells) {
    const isChosen = Number(cell.dataset.row) === row;
    cell.setAttribute("aria-pressed", isChosen);
    cell.tabIndex = isChosen ? 0 : -1;
  }
  for (const article of articles) article.hidden = Number(article.dataset.row) !== row;
  for (const viewer of viewers) viewer.choose();
  describeSaliency();
}

// The grid has one row per level; cells are in row-major order.
const NUM_COLUMNS = document.querySelectorAll(".grid tbody tr:first-child .cell").length;
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -NUM_COLUMNS, ArrowDown: NUM_COLUMNS };
cells.forEach((cell, place) => {
  cell.addEventListener("click", () => {
    choose(Number(cell.dataset.row));
    history.replaceState(null, "", "#" + articles.find((article) => !article.hidden).id);
  });
  cell.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const next = place + step;
    const isSameRow = Math.floor(next / NUM_COLUMNS) === Math.floor(place / NUM_COLUMNS);
    if (cells[next] && (Math.abs(step) === NUM_COLUMNS || isSameRow)) cells[next].focus();
  });
});

function chooseNamed() {
  const named = articles.find((article) => "#" + article.id === location.hash);
  choose(named ? Number(named.dataset.row) : chosen);
}

// `navigator.clipboard` is absent from pages of insecure origins, and may be forbidden.
async function copyImpression() {
  const element = document.getElementById("impression");
  const status = document.getElementById("copied");
  status.textContent = "";
  try {
    await navigator.clipboard.writeText(element.textContent);
    status.textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren(element);
    status.textContent = document.execCommand("copy") ? "Copied." : "Selected: press Ctrl+C or Cmd+C to copy.";
  }
}
document.getElementById("copy").addEventListener("click", copyImpression);

const redraw = () => viewers.forEach((viewer) => viewer.show(viewer.place));
for (const box of [overlays, closeup, saliency]) {
  box?.addEventListener("change", () => { redraw(); describeSaliency(); });
}
window.addEventListener("resize", redraw);
for (const element of document.querySelectorAll(".js")) element.hidden = false;
window.addEventListener("hashchange", chooseNamed);
chooseNamed();
