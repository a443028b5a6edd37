// The conditions of a pair, and the header of the set, as text and colour.

function term(name, ...values) {
  return [element("dt", {}, name), element("dd", {}, ...values)];
}

function asText(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A colour as a patch with its numbers: mean and standard deviation of red, green, blue. */
function colourCell(colour, absent) {
  if (colour === null) return element("td", { className: "absent" }, absent);
  const numbers = colour.map(Math.round);
  return element("td", {}, swatch(colour), " ", element("span", { className: "numbers" }, numbers.slice(0, 3).join(" ")),
    element("small", {}, `± ${numbers.slice(3).join(" ")}`));
}

function colourTable(set, pair) {
  const asked = set.condition(pair);
  const head = element("tr", {}, element("th", { scope: "col" }, ""), element("th", { scope: "col" }, "asked"), element("th", { scope: "col" }, "measured"));
  const rows = REGIONS.map((region) => element("tr", {},
    element("th", { scope: "row" }, region),
    colourCell(asked[region], "left to the model"),
    colourCell(set.columns.measured[region][pair], "no pixels")));
  return element("table", { className: "colours" },
    element("caption", {}, "Colour: red, green, blue (mean ± standard deviation, 0 to 255)"),
    element("thead", {}, head), element("tbody", {}, ...rows));
}

function describePair(set, pair) {
  const { columns } = set;
  const asked = set.condition(pair);
  const metadata = Object.entries(asked.metadata);
  const link = (kind) => element("a", { href: set.address(pair, kind), target: "_blank", rel: "noopener" }, columns[kind][pair]);
  const heading = (text) => element("h3", {}, text);
  return [
    heading("Asked for"),
    element("dl", {}, ...term("Morphology", asked.morphology),
      ...(metadata.length ? metadata.flatMap(([name, text]) => term(name, text)) : term("Metadata", "none given")),
      ...term("Seed", columns.seed[pair]),
      ...Object.entries(asked.other).flatMap(([name, value]) => term(name, asText(value)))),
    heading("Measured"),
    element("dl", {}, ...columns.measures.flatMap(({ label, unit, values }) => term(label, formatted(values[pair], unit))),
      ...term("Size", `${columns.width[pair]} × ${columns.height[pair]} px`)),
    colourTable(set, pair),
    heading("Files"),
    element("dl", {}, ...term("Image", link("image")), ...term("Mask", link("mask"), " (16-bit labels: black to the eye)")),
  ];
}

/** The header of the set, one list of names and values for each part. */
function describeSet(about) {
  const shown = { bundle: "Bundle", data: "Training data", engine: "Engine", sampling: "Sampling", request: "Request" };
  return Object.entries(about.header).flatMap(([part, values]) => {
    const pairs = Object.entries(Object(values)).filter(([, value]) => value !== null && value !== "" && value !== false);
    return [element("dt", { className: "part" }, shown[part]),
      ...pairs.map(([name, value]) => element("dd", {}, element("span", { className: "name" }, name), " ", element("span", { className: "value" }, asText(value))))];
  });
}
