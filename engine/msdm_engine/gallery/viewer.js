// The full view: one pair as large as the window, with its conditions; zoom, move, previous and next.

const MAX_SIDE = 16384;
const ZOOM_STEP = 1.25;
/** Screen pixels a picture pixel from which its pixels are shown as squares, which is what a mask follows. */
const SQUARES_FROM = 8;
const MOVE_PX = 60;

class Viewer {
  /** actions: shown(position) after a move, selected(pair), toggle(pair), closed(position). */
  constructor(dialog, set, actions) {
    Object.assign(this, { dialog, set, actions, pairs: [], position: 0, zoomed: false, scale: 1, x: 0, y: 0, labels: false });
    for (const id of ["stage", "sheet", "missing", "conditions", "zoom"]) this[id] = document.getElementById(id);
    this.title = document.getElementById("viewer-title");
    this.selectButton = document.getElementById("viewer-select");
    this.views = {
      previous: () => this.go(this.position - 1), next: () => this.go(this.position + 1),
      in: () => this.zoomBy(ZOOM_STEP), out: () => this.zoomBy(1 / ZOOM_STEP), fit: () => this.fit(),
      select: () => this.toggle(), close: () => dialog.close(),
    };
    dialog.addEventListener("click", (event) => this.views[event.target.closest("[data-view]")?.dataset.view]?.());
    dialog.addEventListener("keydown", (event) => this.key(event));
    dialog.addEventListener("close", () => this.actions.closed(this.position));
    this.stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.stage.addEventListener("dblclick", (event) => (this.zoomed ? this.fit() : this.zoomBy(4, event)));
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    new ResizeObserver(() => { if (this.dialog.open) this.place(); }).observe(this.stage);
  }

  open(pairs, position) {
    this.pairs = pairs;
    this.zoomed = false;
    if (!this.dialog.open) this.dialog.showModal();
    this.go(position);
    this.stage.focus();
  }

  get pair() {
    return this.pairs[this.position];
  }

  go(position) {
    this.position = Math.min(this.pairs.length - 1, Math.max(0, position));
    const { columns } = this.set;
    const [width, height] = [columns.width[this.pair], columns.height[this.pair]];
    // The same part of the next picture, where it is of the same size, so that pairs can be compared.
    if (width !== this.width || height !== this.height) this.zoomed = false;
    Object.assign(this, { width, height });
    this.title.textContent = `Pair ${columns.index[this.pair]}`;
    this.title.append(element("small", {}, `${(this.position + 1).toLocaleString("en")} of ${this.pairs.length.toLocaleString("en")} shown`));
    this.drawPicture();
    this.place();
    this.showSelection();
    this.conditions.replaceChildren(...describePair(this.set, this.pair));
    this.conditions.scrollTop = 0;
    this.preload(this.position + 1);
    this.actions.shown(this.position);
  }

  drawPicture() {
    const detail = this.set.detail(this.pair);
    const image = element("img", { alt: this.set.words(this.pair), draggable: false, src: this.set.address(this.pair, "image") });
    this.missing.hidden = true;
    image.addEventListener("error", () => {
      this.missing.textContent = `${this.set.columns.image[this.pair]} cannot be read: is the gallery still where it was written? Its thumbnail is shown.`;
      this.missing.hidden = false;
    });
    this.paths = nucleusPaths(detail.outlines);
    this.labelGroup = svgElement("g", { class: "labels" });
    const labels = svgElement("svg", { "aria-hidden": "true", viewBox: `0 0 ${this.width} ${this.height}` }, this.labelGroup);
    const outlines = svgElement("svg", { class: "outlines", "aria-hidden": "true" });
    drawOutlines(outlines, this.width, this.height, this.paths);
    this.sheet.replaceChildren(image, labels, outlines);
    this.sheet.style.backgroundImage = `url("${detail.thumbnail}")`;
    this.showLabels(this.labels);
  }

  /** Each nucleus in a colour of its own, or not. */
  showLabels(on) {
    this.labels = on;
    if (this.labelGroup) drawLabels(this.labelGroup, on ? this.paths : []);
  }

  preload(position) {
    if (position < this.pairs.length) new Image().src = this.set.address(this.pairs[position], "image");
  }

  toggle() {
    this.actions.toggle(this.pair);
    this.showSelection();
  }

  showSelection() {
    this.selectButton.setAttribute("aria-pressed", this.actions.selected(this.pair));
  }

  // --- zoom and move: screen = picture * scale + (x, y) from the middle of the stage to that of the picture

  place() {
    const room = { width: this.stage.clientWidth - 24, height: this.stage.clientHeight - 24 };
    if (!this.zoomed) {
      this.scale = Math.max(0.01, Math.min(room.width / this.width, room.height / this.height));
      this.x = this.y = 0;
    }
    const [width, height] = [this.width * this.scale, this.height * this.scale];
    // Some of the picture stays in view.
    const [reachX, reachY] = [(this.stage.clientWidth + width) / 2 - 40, (this.stage.clientHeight + height) / 2 - 40];
    this.x = Math.min(reachX, Math.max(-reachX, this.x));
    this.y = Math.min(reachY, Math.max(-reachY, this.y));
    Object.assign(this.sheet.style, {
      width: `${width}px`, height: `${height}px`,
      left: `${(this.stage.clientWidth - width) / 2 + this.x}px`, top: `${(this.stage.clientHeight - height) / 2 + this.y}px`,
    });
    this.sheet.classList.toggle("squares", this.scale * devicePixelRatio >= SQUARES_FROM);
    this.zoom.textContent = `${Math.round(this.scale * 100)} %`;
  }

  fit() {
    this.zoomed = false;
    this.place();
  }

  /** Zooms by a factor about a pointer event's place, or the middle. */
  zoomBy(factor, event = null) {
    const limit = MAX_SIDE / Math.max(this.width, this.height);
    const scale = Math.min(limit, Math.max(0.05, this.scale * factor));
    const box = this.stage.getBoundingClientRect();
    const at = event ? { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 } : { x: 0, y: 0 };
    this.x = at.x - (at.x - this.x) * (scale / this.scale);
    this.y = at.y - (at.y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.zoomed = true;
    this.place();
  }

  wheel(event) {
    event.preventDefault();
    this.zoomBy(Math.exp(-Math.sign(event.deltaY) * Math.min(0.25, Math.abs(event.deltaY) / 400)), event);
  }

  drag(event) {
    if (event.button !== 0) return;
    const from = { x: event.clientX - this.x, y: event.clientY - this.y };
    const move = (to) => {
      this.x = to.clientX - from.x;
      this.y = to.clientY - from.y;
      this.zoomed = true;
      this.place();
    };
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", () => this.stage.removeEventListener("pointermove", move), { once: true });
  }

  moveBy(x, y) {
    this.x += x;
    this.y += y;
    this.zoomed = true;
    this.place();
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // The space bar presses a button that has the focus.
    if (event.key === " " && event.target.closest("button, a")) return;
    const moves = { ArrowLeft: [MOVE_PX, 0], ArrowRight: [-MOVE_PX, 0], ArrowUp: [0, MOVE_PX], ArrowDown: [0, -MOVE_PX] };
    const action = event.shiftKey && moves[event.key] ? () => this.moveBy(...moves[event.key]) : {
      ArrowLeft: this.views.previous, ArrowRight: this.views.next,
      Home: () => this.go(0), End: () => this.go(this.pairs.length - 1),
      "+": this.views.in, "=": this.views.in, "-": this.views.out, 0: this.views.fit,
      1: () => this.zoomBy(1 / this.scale), " ": this.views.select,
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}
