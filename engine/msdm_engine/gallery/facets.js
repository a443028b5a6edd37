// Statistics beside the pictures: a histogram for each measure, with the range to filter by below it.

/** Measures whose histogram is of nuclei, not of pairs: title and axis. */
const OF_NUCLEI = {
  area: { title: "Nuclear area (px)", axis: "nuclear area (px)" },
  aspect: { title: "Aspect ratio", axis: "aspect ratio of a nucleus (long : short axis)" },
};

class Facets {
  /** changed: called with a Map measure key -> [low, high] whenever a range changes. */
  constructor(root, set, changed) {
    this.set = set;
    this.changed = changed;
    this.everyPair = [...set.columns.index.keys()];
    this.drawings = [
      ...set.columns.measures.map((measure) => this.measureFacet(root, measure)),
      ...REGIONS.map((region, number) => this.colourFacet(root, region, number)),
    ];
  }

  show(pairs) {
    for (const draw of this.drawings) draw(pairs);
  }

  reset() {
    for (const { inputs } of this.limits) for (const input of inputs) input.value = "";
  }

  /** Measure key -> [low, high], null where open; without those that are open on both sides. */
  ranges() {
    const ranges = new Map();
    for (const { key, inputs } of this.limits) {
      const limits = inputs.map((input) => (Number.isFinite(input.valueAsNumber) ? input.valueAsNumber : null));
      if (limits.some((limit) => limit !== null)) ranges.set(key, limits);
    }
    return ranges;
  }

  measureFacet(root, measure) {
    const ofNuclei = Object.hasOwn(OF_NUCLEI, measure.key);
    const unit = measure.unit ? ` (${measure.unit})` : "";
    const { title, axis } = ofNuclei
      ? OF_NUCLEI[measure.key] : { title: measure.label + unit, axis: lowerFirst(measure.label) + unit };
    const chart = svgElement("svg", { class: "chart" });
    const summary = element("figcaption");
    root.append(element("fieldset", { className: "facet" },
      element("legend", { title: measure.about }, title),
      element("figure", {}, chart, summary), this.rangeInputs(measure)));
    const bins = ofNuclei ? this.set.columns.nuclei[measure.key].bins : measureBins(measure.values);
    const count = (pairs) =>
      (ofNuclei ? this.set.nucleiCounts(measure.key, pairs) : measureCounts(measure.values, bins, pairs));
    const all = count(this.everyPair);
    return (pairs) => {
      const shown = count(pairs);
      summary.textContent = ofNuclei
        ? this.nucleiSummary(bins, shown, measure.unit)
        : this.pairSummary(pairs.map((pair) => measure.values[pair]), measure.unit);
      drawHistogram(chart, bins, all, shown, {
        xLabel: axis,
        yLabel: ofNuclei ? "nuclei (%)" : "pairs (%)",
        description: `Histogram, ${axis}. ${summary.textContent}`,
      });
    };
  }

  /** Nuclei are known by their bins, so their quartiles are about right. */
  nucleiSummary(bins, counts, unit) {
    const total = counts.reduce((sum, count) => sum + count, 0);
    const what = counted(total, "whole nucleus", "whole nuclei");
    if (total === 0) return what;
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => formatted(quantile(counts, bins, share)));
    return `${what}; median about ${middle}${unit && ` ${unit}`}, middle half ${low} to ${high}`;
  }

  pairSummary(values, unit) {
    const known = values.filter((value) => value !== null).sort((a, b) => a - b);
    const what = counted(known.length, "pair");
    if (known.length === 0) return what;
    const [low, middle, high] = [0.25, 0.5, 0.75].map((share) => formatted(known[Math.floor(share * (known.length - 1))]));
    return `${what}; median ${middle}${unit && ` ${unit}`}, middle half ${low} to ${high}`;
  }

  rangeInputs(measure) {
    const known = measure.values.filter((value) => value !== null);
    const ends = known.length ? [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))] : [null, null];
    const inputs = ["from", "to"].map((end, number) => element("input", {
      type: "number", step: "any", className: "limit", placeholder: ends[number] === null ? "" : String(Number(ends[number].toFixed(2))),
      "aria-label": `${measure.label}, ${end}`, "data-limit": `${measure.key} ${end}`, oninput: () => this.changed(),
    }));
    this.limits = [...(this.limits ?? []), { key: measure.key, inputs }];
    const what = Object.hasOwn(OF_NUCLEI, measure.key) ? "Pairs with a median from" : "Pairs from";
    return element("div", { className: "range" }, element("span", {}, what), inputs[0], element("span", {}, "to"), inputs[1]);
  }

  colourFacet(root, region, number) {
    const chart = svgElement("svg", { class: "chart" });
    const summary = element("figcaption");
    root.append(element("fieldset", { className: "facet" },
      element("legend", {}, `Colour of the ${region}`), element("figure", {}, chart, summary)));
    return (pairs) => {
      const means = pairs.map((pair) => this.set.columns.measured[region][pair]).filter((colour) => colour !== null);
      const mean = [0, 1, 2].map((channel) => means.reduce((sum, colour) => sum + colour[channel], 0) / means.length);
      summary.replaceChildren(counted(means.length, "pair"));
      if (means.length) summary.append("; mean ", swatch(mean), ` ${mean.map(Math.round).join(", ")}`);
      drawColourHistogram(chart, this.set.colourShares(number, pairs), {
        xLabel: `red, green, blue of ${region} pixels (0 to 255)`,
        yLabel: "pixels (%)",
        description: `Histogram of red, green and blue over ${region} pixels. ${summary.textContent}`,
      });
    };
  }
}

function lowerFirst(text) {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** A patch of a colour, [red, green, blue, ...]; its numbers stand beside it or in its title. */
function swatch(colour, title = "") {
  const patch = element("span", { className: "swatch", title });
  patch.style.backgroundColor = `rgb(${colour.slice(0, 3).map(Math.round).join(" ")})`;
  return patch;
}
