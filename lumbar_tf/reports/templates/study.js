
"use strict";
// The study report: choosing a finding, moving through the stacks, windowing. All geometry was computed
// before: a slice's points and outlines are millimetres from its left and upper edge.
const data = JSON.parse(document.getElementById("data").textContent);
const cells = [...document.querySelectorAll(".cell")];
const articles = [...document.querySelectorAll(".finding")];
const overlays = document.getElementById("overlays");
const closeup = document.getElementById("closeup");
// Absent where the model does not say what moved it.
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
    for (const each of [this.level, this.width]) {
      each.addEventListener("input", () => this.setWindow(Number(this.level.value), Number(this.width.value)));
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
    const jumps = this.find(".jumps");
    const places = [...new Set(this.crops.map((each) => each.slice))].sort((a, b) => a - b);
    jumps.textContent = places.length ? "Graded on slice" : "No member graded this finding here.";
    for (const place of places) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "button";
      button.dataset.place = place;
      button.textContent = this.plane.slices[place].number;
      button.addEventListener("click", () => this.show(place));
      jumps.append(button);
    }
    this.show(this.plane.start[chosen]);
  }

  show(place) {
    this.place = place;
    const slice = this.slice;
    const here = this.crops.filter((each) => each.slice === place);
    const points = slice.points.filter((each) => data.peers[chosen].includes(each[0]));
    const where = `Slice ${slice.number} of ${this.plane.total}${slice.place ? ", " + slice.place : ""}`;
    this.slider.value = place;
    this.slider.setAttribute("aria-valuetext", where);
    this.find(".where").textContent = where + (here.length ? ", graded" : "");
    this.find(".source").textContent =
      `Series ${slice.series}${slice.instance ? ", image " + slice.instance : ""}`;
    this.image.src = slice.image;
    this.image.alt = `${this.plane.title}. ${where}. ${data.findings[chosen]} ` +
      (here.length ? "was graded on this slice" : "was not graded on this slice") +
      (points.length ? `; level points: ${points.map((each) => data.levels[each[0]]).join(", ")}.` : ".") +
      (isHot() && here.some((each) => each.map) ? ` Saliency of ${data.saliency[chosen].words} lies over it.` : "");
    for (const button of this.find(".jumps").children) {
      button.setAttribute("aria-current", Number(button.dataset.place) === place);
    }
    const zoom = this.layOut();
    this.draw(here, points, zoom);
    this.applyWindow();
  }

  // Fits the slice, or 90 mm around what is looked at, into the square stage; returns the magnification.
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
    // In percent of the layers: the point goes to the middle of the stage.
    const [x, y] = centre;
    const right = 50 - (100 * x * zoom) / width;
    const down = 50 - (100 * y * zoom) / height;
    layers.style.transform = `translate(${right}%, ${down}%) scale(${zoom})`;
    return zoom;
  }

  centre() {
    const crop = this.crops.find((each) => each.slice === this.place) || this.crops[0];
    if (crop) {
      return [0, 1].map((axis) => crop.corners.reduce((sum, each) => sum + each[axis], 0) / 4);
    }
    const point = this.slice.points.find((each) => each[0] === chosen);
    return point ? [point[1], point[2]] : null;
  }

  draw(crops, points, zoom) {
    const [width, height] = this.slice.size;
    // Three pixels of the screen, whatever is seen; folded, the stage has no width.
    const unit = (3 * Math.max(width, height)) / zoom / (this.stage.clientWidth || 330);
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.overlay.style.setProperty("--thick", `${0.6 * unit}px`);
    this.overlay.style.setProperty("--thin", `${0.4 * unit}px`);
    const outlines = crops.map((each) => `<polygon class="outline" points="${each.corners.join(" ")}"/>`);
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
    this.heat.innerHTML = isHot() ? crops.filter((each) => each.map).map(layOver).join("") : "";
  }

  get window() {
    const [low, high] = this.slice.window;
    return this.windows.get(this.slice.series) || { level: (low + high) / 2, width: high - low };
  }

  setWindow(level, width) {
    const bounded = Math.min(510, Math.max(2, width));
    // Black never lies below 0, where there is nothing to see: two CSS filters can then do it.
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

function isHot() { return Boolean(saliency && saliency.checked); }

// A picture of side 1, laid between a crop's corners: upper left, upper right, lower right, lower left.
function layOver({ map, corners: [start, right, , down] }) {
  const across = [0, 1].map((axis) => right[axis] - start[axis]);
  const along = [0, 1].map((axis) => down[axis] - start[axis]);
  return `<image href="${map}" width="1" height="1" preserveAspectRatio="none" ` +
    `transform="matrix(${[...across, ...along, ...start].join(" ")})"/>`;
}

function describeSaliency() {
  if (!saliency) return;
  const hot = data.saliency[chosen];
  const words = hot
    ? `Saliency of ${hot.words}. ` + (hot.percent
      ? `The strongest place of this finding is on slice ${hot.number} and has ${hot.percent}% of the ` +
        "strongest that this member found in the study."
      : "It found next to nothing that speaks for moderate or severe.")
    : "No member of known crops graded this finding, so it has no saliency.";
  document.getElementById("saliency-words").textContent = isHot() ? words : "";
  saliencyShow.hidden = !(isHot() && hot && hot.percent);
  document.getElementById("saliency-key").style.display = isHot() ? "" : "none";
}

const viewers = [...document.querySelectorAll(".viewer")].map((figure) => new Viewer(figure));

saliencyShow?.addEventListener("click", () => {
  const { plane, number } = data.saliency[chosen];
  const viewer = viewers.find((each) => each.plane === data.planes[plane]);
  const place = viewer.plane.slices.findIndex((each) => each.number === number);
  // Where not even all graded slices fit into the file, it may not be there.
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

// The grid is five by five, line by line.
const STEPS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -5, ArrowDown: 5 };
cells.forEach((cell, place) => {
  cell.addEventListener("click", () => {
    choose(Number(cell.dataset.row));
    history.replaceState(null, "", "#" + articles.find((each) => !each.hidden).id);
  });
  cell.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const next = place + step;
    const isSameLine = Math.floor(next / 5) === Math.floor(place / 5);
    if (cells[next] && (Math.abs(step) === 5 || isSameLine)) cells[next].focus();
  });
});

function chooseNamed() {
  const named = articles.find((each) => "#" + each.id === location.hash);
  choose(named ? Number(named.dataset.row) : chosen);
}

const redraw = () => viewers.forEach((viewer) => viewer.show(viewer.place));
for (const each of [overlays, closeup, saliency]) {
  each?.addEventListener("change", () => { redraw(); describeSaliency(); });
}
window.addEventListener("resize", redraw);
for (const each of document.querySelectorAll(".js")) each.hidden = false;
window.addEventListener("hashchange", chooseNamed);
chooseNamed();
