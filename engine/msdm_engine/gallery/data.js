// The set as the page holds it: columns over all pairs, and details that are read when a pair comes into view.

/** Detail blocks whose lines are kept: enough for a screen of pairs in any order. */
const KEPT_BLOCKS = 48;
const COLOUR_BINS = 32;
const REGIONS = ["foreground", "background"];

function readJson(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** An element with properties and children; texts become text nodes, never markup. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function formatted(value, unit = "") {
  if (value === null) return "none";
  const digits = Number.isInteger(value) ? 0 : Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0;
  const number = value.toLocaleString("en", { minimumFractionDigits: 0, maximumFractionDigits: digits });
  return unit ? `${number} ${unit}` : number;
}

function counted(count, noun, plural = `${noun}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? noun : plural}`;
}

class PairSet {
  constructor() {
    this.about = readJson("set-data");
    this.columns = readJson("pair-data");
    this.count = this.columns.index.length;
    this.blocks = [...document.querySelectorAll("script.detail")];
    this.lines = new Map();
    this.levels = new Uint8Array(128);
    [...this.columns.alphabet].forEach((letter, level) => { this.levels[letter.charCodeAt(0)] = level; });
    this.texts = this.searchTexts();
  }

  /** Thumbnail (address) and outlines (text) of a pair. */
  detail(pair) {
    const number = Math.floor(pair / this.about.block);
    let lines = this.lines.get(number);
    if (lines === undefined) {
      lines = this.blocks[number].textContent.split("\n");
      if (this.lines.size >= KEPT_BLOCKS) this.lines.delete(this.lines.keys().next().value);
    }
    this.lines.delete(number);
    this.lines.set(number, lines); // the last one used is the last one to go
    const [thumbnail, outlines] = lines[pair % this.about.block].split("\t");
    return { thumbnail: `data:image/webp;base64,${thumbnail}`, outlines };
  }

  condition(pair) {
    return this.columns.conditions[this.columns.condition[pair]];
  }

  /** Address of "image" or "mask" of a pair, relative to the page. */
  address(pair, kind) {
    return this.about.base + this.columns[kind][pair].split("/").map(encodeURIComponent).join("/");
  }

  /** What a pair is, in words: the alternative to its picture. */
  words(pair) {
    const { morphology, metadata } = this.condition(pair);
    const nuclei = counted(this.columns.measures[0].values[pair], "nucleus", "nuclei");
    return [`Pair ${this.columns.index[pair]}`, nuclei, morphology, ...Object.values(metadata)].join(", ");
  }

  /** Lower-case text of each pair that the words of a query are looked for in. */
  searchTexts() {
    const shared = this.columns.conditions.map(({ morphology, metadata, other }) =>
      [morphology, ...Object.values(metadata), JSON.stringify(other)].join("\n").toLowerCase());
    return this.columns.image.map((image, pair) => `${image.toLowerCase()}\n${shared[this.columns.condition[pair]]}`);
  }

  /**
   * Pairs that meet all filters, in order.
   * query: words, all of which must occur; ranges: measure key -> [low, high], null where open;
   * sort: "index", "morphology" or a measure's key; only: a Set of pairs, or null.
   */
  find({ query, ranges, sort, descending, only }) {
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const limits = this.columns.measures
      .filter(({ key }) => ranges.has(key))
      .map(({ key, values }) => ({ values, low: ranges.get(key)[0] ?? -Infinity, high: ranges.get(key)[1] ?? Infinity }));
    const found = [];
    for (let pair = 0; pair < this.count; pair += 1) {
      if (only !== null && !only.has(pair)) continue;
      if (!words.every((word) => this.texts[pair].includes(word))) continue;
      // A pair without a value (a median of no whole nucleus) is in no range.
      if (!limits.every(({ values, low, high }) => values[pair] !== null && values[pair] >= low && values[pair] <= high)) continue;
      found.push(pair);
    }
    return this.sorted(found, sort, descending);
  }

  sorted(pairs, sort, descending) {
    const sign = descending ? -1 : 1;
    const keys = this.sortKeys(sort);
    const before = typeof keys[0] === "string" ? (a, b) => a.localeCompare(b, "en", { numeric: true }) : (a, b) => a - b;
    return pairs.sort((a, b) => {
      if (keys[a] === null || keys[b] === null) return (keys[a] === null) - (keys[b] === null) || a - b;
      return sign * before(keys[a], keys[b]) || a - b;
    });
  }

  sortKeys(sort) {
    if (sort === "index") return this.columns.index;
    if (sort === "morphology") return this.columns.condition.map((row) => this.columns.conditions[row].morphology);
    return this.columns.measures.find(({ key }) => key === sort).values;
  }

  /** Nuclei of the pairs in each bin of "area" or "aspect". */
  nucleiCounts(name, pairs) {
    const { bins, text } = this.columns.nuclei[name];
    const counts = new Float64Array(bins.count);
    for (const pair of pairs) {
      const letters = text[pair];
      for (let i = 0; i < letters.length; i += 1) counts[this.levels[letters.charCodeAt(i)]] += 1;
    }
    return counts;
  }

  /** Mean share of the pixels of a region in each colour bin: three arrays, for red, green and blue. */
  colourShares(region, pairs) {
    const shares = [0, 1, 2].map(() => new Float64Array(COLOUR_BINS));
    for (const pair of pairs) {
      const letters = this.columns.colour[pair];
      let at = region * 3 * COLOUR_BINS;
      for (const channel of shares) {
        for (let bin = 0; bin < COLOUR_BINS; bin += 1, at += 1) channel[bin] += this.levels[letters.charCodeAt(at)];
      }
    }
    for (const channel of shares) {
      const sum = channel.reduce((total, value) => total + value, 0) || 1;
      channel.forEach((value, bin) => { channel[bin] = value / sum; });
    }
    return shares;
  }
}
