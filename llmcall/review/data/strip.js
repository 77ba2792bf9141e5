// The strip: every call a few pixels, actors downwards, rounds or calls to the right.

const KINDS = ["refused", "cut", "asked again", "parted", "added", "missing", "changed", "same", "answered"]; // the first that holds colours
const TALLEST = 440, WIDEST = 18, HIGHEST = 11; // pixels: of the strip, of a call
const BARS = 26; // pixels above the strip, for the share of changed calls

/** Return what colours a call. */
function kindOf(cell) {
  const marks = marksOf(cell);
  const mark = KINDS.find((kind) => marks.includes(kind));
  if (mark) return mark;
  if (cell in parted) return "parted";
  return cells.status[cell] || "answered";
}

/** Return whether there is more to see than in the grid: several columns, or something to be found. */
function hasStrip(kinds) {
  if (survey.length) return false; // its picture is the distribution
  return rowNames.length > 1 && columnNames.length > 2 && (compared || kinds.some((kind) => kind !== "answered"));
}

function showStrip() {
  const kinds = cells.row.map((_, cell) => kindOf(cell));
  if (!hasStrip(kinds)) return;
  find("strip").hidden = false;
  const lines = Math.ceil(rowNames.length / Math.ceil((2 * rowNames.length) / TALLEST)); // of several actors each, if they are many
  const perLine = Math.ceil(rowNames.length / lines);
  const height = Math.max(2, Math.min(HIGHEST, Math.floor(TALLEST / lines)));
  const width = Math.max(3, Math.min(WIDEST, Math.floor(900 / columnNames.length)));
  const top = compared ? BARS : 0;
  const worst = new Map(); // of each place, the kind that is told
  kinds.forEach((kind, cell) => {
    const place = `${cells.column[cell]},${Math.floor(cells.row[cell] / perLine)}`;
    if (!worst.has(place) || KINDS.indexOf(kind) < KINDS.indexOf(worst.get(place))) worst.set(place, kind);
  });
  const paths = new Map(KINDS.map((kind) => [kind, ""]));
  const gap = height > 4 && width > 4 ? 1 : 0;
  for (const [place, kind] of worst) {
    const [column, line] = place.split(",").map(Number);
    paths.set(kind, `${paths.get(kind)}M${column * width} ${top + line * height}h${width - gap}v${height - gap}h${gap - width}z`);
  }
  const size = { width: columnNames.length * width, height: top + lines * height };
  const title = makeSVG("title", null);
  const picture = filled(find("strip-svg"), {
    viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height,
    "aria-label": `${plural(rowNames.length, "actor")} × ${plural(columnNames.length, "column")}: ${counted(kinds)}`,
  }, [title, ...(compared ? shareBars(width) : []),
    ...KINDS.filter((kind) => paths.get(kind)).map((kind) => makeSVG("path", { class: kindClass(kind), d: paths.get(kind) }))]);
  const cellUnder = (event) => {
    const frame = picture.getBoundingClientRect();
    const column = Math.floor(((event.clientX - frame.left) / frame.width) * columnNames.length);
    const line = Math.floor((((event.clientY - frame.top) / frame.height) * size.height - top) / height);
    for (let row = line * perLine; row < Math.min((line + 1) * perLine, rowNames.length); row++) {
      const cell = row < 0 ? -1 : cellAt(row, column);
      if (cell >= 0 && kinds[cell] === worst.get(`${column},${line}`)) return cell;
    }
    return -1;
  };
  picture.addEventListener("mousemove", (event) => {
    const cell = cellUnder(event);
    title.textContent = cell < 0 ? "" : `${nameOf(cell)}: ${kinds[cell]}`;
  });
  picture.addEventListener("click", (event) => {
    const cell = cellUnder(event);
    if (cell >= 0) open(cell);
  });
  const legend = KINDS.filter((kind) => kinds.includes(kind)).map((kind) => make("span", { class: "key" },
    make("span", { class: `swatch ${kindClass(kind)}` }), ` ${kind === "parted" ? "the runs part" : kind} (${kinds.filter((each) => each === kind).length.toLocaleString("en")})`));
  const each = perLine > 1 ? `, ${perLine} actors a line` : "";
  find("strip-about").textContent = `Actors downwards${each}, ${columnNames[0]} to ${columnNames[columnNames.length - 1]} to the right.${compared ? " Bars: the share of changed calls." : ""}`;
  find("strip-legend").replaceChildren(...legend);
}

const kindClass = (kind) => `kind-${kind.replace(" ", "-")}`;

function counted(kinds) {
  return KINDS.map((kind) => [kinds.filter((each) => each === kind).length, kind]).filter(([number]) => number)
    .map(([number, kind]) => `${number} ${kind}`).join(", ");
}

/** Return a bar for each column: how many of its calls that both runs have changed. */
function shareBars(width) {
  const both = columnNames.map(() => 0), changed = columnNames.map(() => 0);
  cells.status.forEach((status, cell) => {
    if (status === "same" || status === "changed") both[cells.column[cell]]++;
    if (status === "changed") changed[cells.column[cell]]++;
  });
  return columnNames.map((_, column) => {
    const size = both[column] ? ((BARS - 4) * changed[column]) / both[column] : 0;
    return makeSVG("rect", { class: "share", x: column * width, y: BARS - 3 - size, width: Math.max(1, width - 1), height: size + 1 });
  });
}
