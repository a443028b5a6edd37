// The grid of thumbnails: of all pairs, only those in view (and a row above and below) are in the document.

const GAP = 12;
const CAPTION = 26;
const SPARE_ROWS = 1;
/** Picture pixels a screen pixel from which outlines are drawn finer, or they would cover small nuclei. */
const FINE_FROM = 2.5;
/** Milliseconds without scrolling after which thumbnails give way to the pictures themselves, if those are sharper. */
const REST = 180;

class Grid {
  /** actions: open(position), toggle(position), range(from, to), all(), with positions among the pairs shown. */
  constructor(list, set, selected, actions) {
    Object.assign(this, { list, set, selected, actions, pairs: [], active: 0, anchor: 0, side: 168 });
    this.spacer = element("div", { className: "spacer", role: "presentation" });
    this.cells = new Map(); // position -> cell
    this.free = [];
    list.append(this.spacer);
    list.addEventListener("scroll", () => this.schedule());
    list.addEventListener("keydown", (event) => this.key(event));
    this.spacer.addEventListener("click", (event) => this.click(event));
    new ResizeObserver(() => this.layout()).observe(list);
  }

  /** Shows pairs in this order, from the top. */
  show(pairs) {
    this.pairs = pairs;
    this.active = this.anchor = 0;
    this.list.scrollTop = 0;
    this.layout();
  }

  setSide(side) {
    this.side = side;
    this.layout();
    this.reveal(this.active);
  }

  layout() {
    const first = this.rowHeight ? Math.round(this.list.scrollTop / this.rowHeight) * this.columns : 0;
    const width = this.list.clientWidth;
    if (width === 0) return;
    const columns = Math.max(1, Math.floor((width - GAP) / (this.side + GAP)));
    const moved = columns !== this.columns;
    this.columns = columns;
    this.cellWidth = Math.min(this.side * 1.5, Math.floor((width - GAP) / columns) - GAP);
    this.rowHeight = this.cellWidth + CAPTION + GAP;
    this.spacer.style.height = `${Math.ceil(this.pairs.length / columns) * this.rowHeight + GAP}px`;
    this.list.style.setProperty("--cell", `${this.cellWidth}px`);
    if (moved && first) this.list.scrollTop = Math.floor(first / columns) * this.rowHeight;
    for (const position of [...this.cells.keys()]) this.release(position);
    this.draw();
  }

  schedule() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const top = Math.floor(this.list.scrollTop / this.rowHeight) - SPARE_ROWS;
    const bottom = Math.ceil((this.list.scrollTop + this.list.clientHeight) / this.rowHeight) + SPARE_ROWS;
    const from = Math.max(0, top * this.columns);
    const to = Math.min(this.pairs.length, bottom * this.columns);
    for (const position of [...this.cells.keys()]) if (position < from || position >= to) this.release(position);
    // Cells stand in the order of their positions, in which a screen reader meets them.
    let after = null;
    for (let position = to - 1; position >= from; position -= 1) {
      if (!this.cells.has(position)) this.place(position, after);
      after = this.cells.get(position).root;
    }
    this.mark();
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.sharpen(), REST);
  }

  release(position) {
    const cell = this.cells.get(position);
    cell.root.remove();
    this.cells.delete(position);
    this.free.push(cell);
  }

  newCell() {
    const image = element("img", { draggable: false });
    const outlines = svgElement("svg", { class: "outlines", "aria-hidden": "true" });
    const caption = element("div", { className: "caption" });
    const check = element("span", { className: "check-mark", title: "Select (space)" });
    const root = element("div", { className: "cell", role: "option" },
      element("div", { className: "picture" }, image, outlines), check, caption);
    return { root, image, outlines, caption };
  }

  place(position, after) {
    const cell = this.free.pop() ?? this.newCell();
    const pair = this.pairs[position];
    const { columns } = this.set;
    const [width, height] = [columns.width[pair], columns.height[pair]];
    const detail = this.set.detail(pair);
    cell.pair = pair;
    cell.root.id = `pair-${pair}`;
    cell.root.dataset.position = position;
    cell.root.setAttribute("aria-posinset", position + 1);
    cell.root.setAttribute("aria-setsize", this.pairs.length);
    cell.root.setAttribute("aria-label", this.set.words(pair));
    cell.image.src = detail.thumbnail;
    cell.image.alt = this.set.words(pair);
    const perPixel = Math.max(width, height) / this.cellWidth;
    drawOutlines(cell.outlines, width, height, nucleusPaths(detail.outlines, perPixel > 1 ? perPixel : 0));
    cell.outlines.classList.toggle("fine", perPixel > FINE_FROM);
    this.writeCaption(cell.caption, pair);
    const [row, column] = [Math.floor(position / this.columns), position % this.columns];
    cell.root.style.transform = `translate(${GAP + column * (this.cellWidth + GAP)}px, ${GAP + row * this.rowHeight}px)`;
    this.cells.set(position, cell);
    this.spacer.insertBefore(cell.root, after);
  }

  writeCaption(caption, pair) {
    const { columns } = this.set;
    const patches = REGIONS.map((region) => [region, columns.measured[region][pair]])
      .filter(([, colour]) => colour !== null)
      .map(([region, colour]) => swatch(colour, `${region}, mean colour measured`));
    caption.replaceChildren(
      element("b", {}, String(columns.index[pair])),
      element("span", { className: "count" }, counted(columns.measures[0].values[pair], "nucleus", "nuclei")),
      element("span", { className: "swatches" }, ...patches));
  }

  /** Brings the states of the cells in view up to date: active, selected. */
  mark() {
    for (const [position, cell] of this.cells) {
      cell.root.setAttribute("aria-selected", this.selected.has(cell.pair));
      cell.root.classList.toggle("active", position === this.active);
    }
    const active = this.cells.get(this.active);
    if (active) this.list.setAttribute("aria-activedescendant", active.root.id);
    else this.list.removeAttribute("aria-activedescendant");
  }

  /** Replaces thumbnails in view that are smaller than their cells by the pictures, once these are decoded. */
  sharpen() {
    const { columns } = this.set;
    for (const cell of this.cells.values()) {
      const side = Math.max(cell.image.naturalWidth, cell.image.naturalHeight);
      const full = Math.max(columns.width[cell.pair], columns.height[cell.pair]);
      if (side === 0 || side >= Math.min(full, this.cellWidth * devicePixelRatio)) continue;
      const picture = element("img", { src: this.set.address(cell.pair, "image") });
      const pair = cell.pair;
      // A picture that cannot be read leaves its thumbnail; the full view says which file it is.
      picture.decode().then(() => { if (cell.pair === pair) cell.image.src = picture.src; }, () => {});
    }
  }

  reveal(position) {
    if (!this.pairs.length) return;
    const row = Math.floor(position / this.columns) * this.rowHeight;
    const { scrollTop, clientHeight } = this.list;
    if (row < scrollTop) this.list.scrollTop = row;
    else if (row + this.rowHeight + GAP > scrollTop + clientHeight) this.list.scrollTop = row + this.rowHeight + GAP - clientHeight;
    this.draw();
  }

  moveTo(position, extend = false) {
    if (!this.pairs.length) return;
    this.active = Math.min(this.pairs.length - 1, Math.max(0, position));
    if (extend) this.actions.range(this.anchor, this.active);
    else this.anchor = this.active;
    this.reveal(this.active);
  }

  key(event) {
    if (!this.pairs.length || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "a") this.actions.all();
    else if (event.ctrlKey || event.metaKey) return;
    else if (event.key === "Enter") this.actions.open(this.active);
    else if (event.key === " ") this.toggle(this.active, event.shiftKey);
    else {
      const screen = Math.max(1, Math.floor(this.list.clientHeight / this.rowHeight)) * this.columns;
      const target = {
        ArrowLeft: this.active - 1, ArrowRight: this.active + 1,
        ArrowUp: this.active - this.columns < 0 ? this.active : this.active - this.columns,
        ArrowDown: this.active + this.columns >= this.pairs.length ? this.pairs.length - 1 : this.active + this.columns,
        Home: 0, End: this.pairs.length - 1, PageUp: this.active - screen, PageDown: this.active + screen,
      }[event.key];
      if (target === undefined) return;
      this.moveTo(target, event.shiftKey);
    }
    event.preventDefault();
  }

  /** Selects or deselects; with a range, selects all from the last one that was touched. */
  toggle(position, range) {
    this.active = position;
    if (range) this.actions.range(this.anchor, position);
    else {
      this.anchor = position;
      this.actions.toggle(position);
    }
    this.mark();
  }

  click(event) {
    const root = event.target.closest(".cell");
    if (!root) return;
    const position = Number(root.dataset.position);
    if (event.target.classList.contains("check-mark") || event.ctrlKey || event.metaKey || event.shiftKey) {
      this.toggle(position, event.shiftKey);
    } else {
      this.moveTo(position);
      this.actions.open(position);
    }
  }
}
