// Histograms as inline SVG: shares in percent, so that a filtered part is comparable with the whole set.

const CHART = { width: 288, height: 132, left: 34, right: 8, top: 8, bottom: 34 };

/** The least of 1, 2, 2.5, 5 times a power of ten that is not below the value. */
function niceStep(atLeast) {
  if (!(atLeast > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= atLeast * (1 - 1e-9));
}

/** Bins of a measure of pairs, about thirty of a round width; whole numbers get whole bins, and at least seven. */
function measureBins(values) {
  const known = values.filter((value) => value !== null);
  if (known.length === 0) return { low: 0, step: 1, count: 1, open: false };
  let low = Infinity;
  let high = -Infinity;
  for (const value of known) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const whole = known.every(Number.isInteger);
  let step = niceStep((high - low) / 30);
  if (whole) step = Math.max(1, Math.ceil(step));
  if (whole && high - low < 6) [low, high] = [Math.max(0, low - 3), Math.max(6, high + 3)];
  low = Math.floor(low / step) * step;
  return { low, step, count: Math.floor((high - low) / step + 1e-9) + 1, open: false, whole };
}

function measureCounts(values, bins, pairs) {
  const counts = new Float64Array(bins.count);
  for (const pair of pairs) {
    if (values[pair] === null) continue;
    counts[Math.min(bins.count - 1, Math.floor((values[pair] - bins.low) / bins.step + 1e-9))] += 1;
  }
  return counts;
}

function shares(counts) {
  const sum = counts.reduce((total, count) => total + count, 0);
  return counts.map((count) => (sum ? count / sum : 0));
}

/** The value below which a share of what was counted lies, taken as spread evenly within its bin. */
function quantile(counts, bins, share) {
  let left = share * counts.reduce((total, count) => total + count, 0);
  for (let bin = 0; bin < counts.length; bin += 1) {
    if (left <= counts[bin] && counts[bin] > 0) return bins.low + (bin + left / counts[bin]) * bins.step;
    left -= counts[bin];
  }
  return null;
}

/** Axes with ticks and labels; returns the functions from values to coordinates. */
function drawAxes(svg, bins, top, xLabel, yLabel) {
  const { width, height, left, right, bottom } = CHART;
  const span = bins.step * bins.count;
  const x = (value) => left + ((value - bins.low) / span) * (width - left - right);
  const y = (share) => height - bottom - (share / top) * (height - bottom - CHART.top);
  const axis = svgElement("g", { class: "axis" });
  axis.append(svgElement("path", { d: `M${left} ${y(0) + 0.5}H${width - right}` }));
  const tick = bins.whole ? Math.ceil(niceStep(span / 5)) : niceStep(span / 5);
  const inBin = bins.whole && bins.step === 1 ? 0.5 : 0; // a bin of one whole number has it in its middle
  // The last bin of open bins takes all that is beyond: its left edge is the last tick, with room before it.
  const lastEdge = bins.low + span - bins.step;
  const end = (bins.open ? lastEdge - 0.6 * tick : bins.low + span - 2 * inBin) / tick + 1e-9;
  const ticks = [];
  for (let number = Math.ceil(bins.low / tick - 1e-9); number <= end; number += 1) ticks.push(number * tick);
  if (bins.open) ticks.push(lastEdge);
  for (const value of ticks) {
    const last = bins.open && value === lastEdge;
    const place = x(value + inBin);
    axis.append(svgElement("path", { d: `M${place} ${y(0)}v4` }));
    const label = `${last ? "≥ " : ""}${Number(value.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 })}`;
    const atEnd = place > width - right - 8;
    axis.append(svgElement("text", { x: atEnd ? width - 1 : place, y: y(0) + 14, "text-anchor": atEnd ? "end" : "middle" }, label));
  }
  const step = niceStep((top * 100) / 3);
  for (let percent = step; percent <= top * 100 * (1 + 1e-9); percent += step) {
    axis.append(svgElement("path", { class: "rule", d: `M${left} ${y(percent / 100)}H${width - right}` }));
    axis.append(svgElement("text", { x: left - 5, y: y(percent / 100) + 3.5, "text-anchor": "end" }, `${percent}`));
  }
  axis.append(svgElement("text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle", class: "name" }, xLabel));
  const middle = (CHART.top + height - bottom) / 2;
  axis.append(svgElement("text", {
    transform: `translate(9 ${middle}) rotate(-90)`, "text-anchor": "middle", class: "name",
  }, yLabel));
  svg.append(axis);
  return { x, y };
}

function beginChart(svg, description) {
  svg.setAttribute("viewBox", `0 0 ${CHART.width} ${CHART.height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", description);
  svg.replaceChildren();
}

/** Bars of the pairs shown on a shadow of the whole set. */
function drawHistogram(svg, bins, all, shown, { xLabel, yLabel, description }) {
  beginChart(svg, description);
  const [whole, part] = [shares(all), shares(shown)];
  const top = Math.max(0.01, ...whole, ...part) * 1.06;
  const { x, y } = drawAxes(svg, bins, top, xLabel, yLabel);
  const bars = (values, inset) => values.reduce((path, value, bin) => {
    if (value === 0) return path;
    const from = x(bins.low + bin * bins.step) + inset;
    const to = Math.max(from + 0.5, x(bins.low + (bin + 1) * bins.step) - inset);
    return `${path}M${from} ${y(0)}V${y(value)}H${to}V${y(0)}Z`;
  }, "");
  svg.append(svgElement("path", { class: "bars all", d: bars([...whole], 0) }));
  svg.append(svgElement("path", { class: "bars shown", d: bars([...part], 0.75) }));
}

/** Three step lines, named at their peaks, so that they are told apart without their colours. */
function drawColourHistogram(svg, channels, { xLabel, yLabel, description }) {
  beginChart(svg, description);
  const bins = { low: 0, step: 256 / channels[0].length, count: channels[0].length, open: false };
  const top = Math.max(0.01, ...channels.map((channel) => Math.max(...channel))) * 1.16;
  const { x, y } = drawAxes(svg, bins, top, xLabel, yLabel);
  channels.forEach((channel, number) => {
    const name = ["red", "green", "blue"][number];
    let d = `M${x(0)} ${y(0)}`;
    channel.forEach((share, bin) => { d += `V${y(share)}H${x((bin + 1) * bins.step)}`; });
    svg.append(svgElement("path", { class: `channel ${name}`, d: `${d}V${y(0)}` }));
    const peak = channel.indexOf(Math.max(...channel));
    const at = { x: x((peak + 0.5) * bins.step), y: y(channel[peak]) - 3, "text-anchor": "middle", class: `channel-name ${name}` };
    if (channel[peak] > 0) svg.append(svgElement("text", at, name[0].toUpperCase()));
  });
}
