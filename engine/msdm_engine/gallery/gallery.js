// The page: what is shown, in which order, what is selected; keys, buttons and downloads.

const set = new PairSet();
const byId = (id) => document.getElementById(id);
const selected = new Set();
const find = { query: "", ranges: new Map(), sort: "index", descending: false, only: null };
let shown = [];

const viewer = new Viewer(byId("viewer"), set, {
  shown: (position) => grid.moveTo(position),
  selected: (pair) => selected.has(pair),
  toggle: (pair) => {
    toggleSelected(pair);
    selectionChanged();
  },
  closed: () => {
    byId("grid").focus();
    if (find.only !== null) refresh();
  },
});

const grid = new Grid(byId("grid"), set, selected, {
  open: (position) => viewer.open(shown, position),
  toggle: (position) => {
    toggleSelected(shown[position]);
    selectionChanged();
  },
  range: (from, to) => {
    for (let at = Math.min(from, to); at <= Math.max(from, to); at += 1) selected.add(shown[at]);
    selectionChanged();
  },
  all: () => actions["select-shown"](),
});

const facets = new Facets(byId("facets"), set, () => refreshSoon());

function toggleSelected(pair) {
  if (!selected.delete(pair)) selected.add(pair);
}

// --- what is shown -------------------------------------------------------------------------------------------

function refresh() {
  find.ranges = facets.ranges();
  find.only = byId("only-selected").checked ? selected : null;
  shown = set.find(find);
  grid.show(shown);
  facets.show(shown);
  byId("empty").hidden = shown.length > 0;
  byId("grid").hidden = shown.length === 0;
  byId("reset").disabled = !(find.query || find.ranges.size || find.only);
  showStatus();
}

let pending;
function refreshSoon() {
  pending ??= requestAnimationFrame(() => {
    pending = undefined;
    refresh();
  });
}

function showStatus() {
  const whole = set.about.total > set.count ? ` (the first of ${set.about.total.toLocaleString("en")} in the set)` : "";
  const some = selected.size ? `, ${selected.size.toLocaleString("en")} selected` : "";
  byId("status").textContent = `${shown.length.toLocaleString("en")} of ${counted(set.count, "pair")}${whole}${some}`;
}

function selectionChanged() {
  grid.mark();
  for (const button of document.querySelectorAll("[data-needs-selection]")) button.disabled = selected.size === 0;
  showStatus();
}

// --- switches ------------------------------------------------------------------------------------------------

/** Sets a switch: a class of the page ("with-outlines"), and the state of all its buttons. */
function setSwitch(name, on) {
  document.body.classList.toggle(`with-${name}`, on);
  for (const button of document.querySelectorAll(`[data-action="${name}"]`)) button.setAttribute("aria-pressed", on);
}

function isOn(name) {
  return document.body.classList.contains(`with-${name}`);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme-name").textContent = dark ? "Light" : "Dark";
}

const actions = {
  outlines: () => {
    setSwitch("outlines", !isOn("outlines"));
    if (!isOn("outlines")) setSwitch("blink", false);
  },
  blink: () => {
    setSwitch("blink", !isOn("blink"));
    if (isOn("blink")) setSwitch("outlines", true);
  },
  labels: () => {
    setSwitch("labels", !isOn("labels"));
    viewer.showLabels(isOn("labels"));
  },
  theme: () => setTheme(document.documentElement.dataset.theme !== "dark"),
  help: () => byId("help").showModal(),
  direction: () => {
    find.descending = !find.descending;
    byId("direction").setAttribute("aria-pressed", find.descending);
    byId("direction").textContent = find.descending ? "Descending" : "Ascending";
    refresh();
  },
  reset: () => {
    byId("query").value = find.query = "";
    byId("only-selected").checked = false;
    facets.reset();
    refresh();
    byId("grid").focus();
  },
  "select-shown": () => {
    for (const pair of shown) selected.add(pair);
    selectionChanged();
  },
  "select-none": () => {
    selected.clear();
    selectionChanged();
    if (find.only !== null) refresh();
  },
  "save-txt": () => save("txt", "text/plain", selection().map(({ image }) => `${image}\n`).join("")),
  "save-json": () => {
    const { bundle, data } = set.about.header;
    const list = { set: set.about.name, notice: set.about.notice, bundle, licence: data.licence, pairs: selection() };
    save("json", "application/json", `${JSON.stringify(list, null, 1)}\n`);
  },
};

// --- the selection as a list ---------------------------------------------------------------------------------

/** The selected pairs in the order of the set; paths are relative to its folder. */
function selection() {
  const { index, image, mask } = set.columns;
  return [...selected].sort((a, b) => a - b).map((pair) => ({ index: index[pair], image: image[pair], mask: mask[pair] }));
}

function save(suffix, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const name = `${set.about.name.replace(/[^\w.-]+/g, "_")}-selection.${suffix}`;
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// --- wiring --------------------------------------------------------------------------------------------------

document.addEventListener("click", (event) => actions[event.target.closest("[data-action]")?.dataset.action]?.());
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target.closest("input:not([type=checkbox]), select")) {
    if (event.target.id === "query" && event.key === "Enter") byId("grid").focus();
    return;
  }
  if (event.key === "/" && !viewer.dialog.open) {
    byId("query").focus();
    event.preventDefault();
    return;
  }
  const action = { o: "outlines", b: "blink", m: "labels", t: "theme", "?": "help" }[event.key.toLowerCase()];
  if (!action || (action === "labels" && !viewer.dialog.open)) return;
  actions[action]();
  event.preventDefault();
});
byId("query").addEventListener("input", (event) => {
  find.query = event.target.value;
  refreshSoon();
});
byId("sort").addEventListener("change", (event) => {
  find.sort = event.target.value;
  refresh();
});
byId("size").addEventListener("change", (event) => grid.setSide(Number(event.target.value)));
byId("only-selected").addEventListener("change", refresh);
byId("outline-colour").addEventListener("input", (event) =>
  document.documentElement.style.setProperty("--outline", event.target.value));

byId("set-name").textContent = set.about.name;
byId("notice").title = set.about.notice;
document.title = `${set.about.name}: msdm gallery`;
byId("origin").textContent = `Bundle ${set.about.header.bundle.name} ${set.about.header.bundle.sha256.slice(0, 12)} · data licence ${set.about.header.data.licence}`;
byId("origin").title = `SHA-256 of the bundle ${set.about.header.bundle.sha256}`;
byId("about").replaceChildren(...describeSet(set.about));
byId("sort").append(
  element("option", { value: "index" }, "index"),
  ...set.columns.measures.map(({ key, label }) => element("option", { value: key }, lowerFirst(label))),
  element("option", { value: "morphology" }, "morphology"));
const systemDark = matchMedia("(prefers-color-scheme: dark)");
systemDark.addEventListener("change", () => setTheme(systemDark.matches));
setTheme(systemDark.matches);
setSwitch("outlines", true);
refresh();
selectionChanged();
