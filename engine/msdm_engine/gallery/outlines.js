// Outlines of nuclei: from the turns that the page holds (grammar: outlines.py) to SVG paths.

const SVG = "http://www.w3.org/2000/svg";
const TRIPLES = "ABCDEFGHIJKLMNOPQRSTUVWXYZa";
const SINGLES = "lsr";
const STEP_X = [1, 0, -1, 0];
const STEP_Y = [0, 1, 0, -1];

function svgElement(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Turns of a loop, -1 left, 0 straight, 1 right. */
function* turnsOf(text) {
  for (const letter of text) {
    const triple = TRIPLES.indexOf(letter);
    if (triple >= 0) {
      yield Math.floor(triple / 9) - 1;
      yield (Math.floor(triple / 3) % 3) - 1;
      yield (triple % 3) - 1;
    } else {
      yield SINGLES.indexOf(letter) - 1;
    }
  }
}

/**
 * One loop as a path. With a tolerance (in px of the picture), corners nearer than that to the last one are left
 * out: a thumbnail cannot show them, and drawing thousands of them takes time.
 */
function loopPath(loop, tolerance) {
  const [, startX, startY, turns] = /^(\d+)\.(\d+)(.*)$/.exec(loop);
  let x = Number(startX) + 1;
  let y = Number(startY);
  let heading = 0;
  let lastX = x - 1;
  let lastY = y;
  let path = `M${lastX} ${lastY}`;
  for (const turn of turnsOf(turns)) {
    if (turn !== 0 && Math.abs(x - lastX) + Math.abs(y - lastY) >= tolerance) {
      path += `L${x} ${y}`;
      lastX = x;
      lastY = y;
    }
    heading = (heading + turn + 4) % 4;
    x += STEP_X[heading];
    y += STEP_Y[heading];
  }
  return `${path}Z`;
}

/** Paths of the nuclei of a pair in the order of their labels. */
function nucleusPaths(outlines, tolerance = 0) {
  if (outlines === "") return [];
  return outlines.split(";").map((nucleus) => nucleus.split(",").map((loop) => loopPath(loop, tolerance)).join(""));
}

/** Puts outlines into an SVG: a dark line below a bright one, so that they show on any stain. */
function drawOutlines(svg, width, height, paths) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const d = paths.join("");
  svg.replaceChildren(svgElement("path", { class: "halo", d }), svgElement("path", { class: "line", d }));
}

/** Each nucleus filled with a colour of its own; neighbours in number are far apart in hue (golden angle). */
function drawLabels(group, paths) {
  group.replaceChildren(...paths.map((d, label) =>
    svgElement("path", { d, fill: `hsl(${(label * 137.508) % 360} 85% 55%)`, "fill-rule": "evenodd" })));
}
