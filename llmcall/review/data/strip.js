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
  return rowNames.length > 1 && columnNames.length > 2 && (isCompared || kinds.some((kind) => kind !== "answered"));
}

function showStrip() {
  const kinds = cells.row.map((_, cell) => kindOf(cell));
  if (!hasStrip(kinds)) return;
  find("strip").hidden = false;
  const shape = shapeOf();
  const kindByPosition = shownKinds(kinds, shape);
  const title = makeSVG("title", null);
  const picture = filled(find("strip-svg"), {
    viewBox: `0 0 ${shape.wide} ${shape.high}`, width: shape.wide, height: shape.high,
    "aria-label": `${plural(rowNames.length, "actor")} × ${plural(columnNames.length, "column")}: ${kindCounts(kinds)}`,
  }, [title, ...(isCompared ? shareBars(shape.width) : []), ...paths(kindByPosition, shape)]);
  const cellUnder = (event) => {
    const position = positionUnder(event, picture, shape);
    return cellsAt(position, shape).find((cell) => kinds[cell] === kindByPosition.get(position.join())) ?? -1;
  };
  picture.addEventListener("mousemove", (event) => {
    const cell = cellUnder(event);
    title.textContent = cell < 0 ? "" : `${nameOf(cell)}: ${kinds[cell]}`;
  });
  picture.addEventListener("click", (event) => {
    const cell = cellUnder(event);
    if (cell >= 0) open(cell);
  });
  const lineNote = shape.perLine > 1 ? `, ${shape.perLine} actors a line` : "";
  const barsNote = isCompared ? " Bars: the share of changed calls." : "";
  find("strip-about").textContent = `Actors downwards${lineNote}, ${columnNames[0]} to ${columnNames[columnNames.length - 1]} to the right.${barsNote}`;
  find("strip-legend").replaceChildren(...legendOf(kinds));
}

/** Return the sizes of the strip in pixels, and how many actors stand in one line of it. */
function shapeOf() {
  const perLine = Math.ceil((2 * rowNames.length) / TALLEST);
  const lines = Math.ceil(rowNames.length / perLine);
  const height = Math.max(2, Math.min(HIGHEST, Math.floor(TALLEST / lines)));
  const width = Math.max(3, Math.min(WIDEST, Math.floor(900 / columnNames.length)));
  const top = isCompared ? BARS : 0;
  return { perLine, height, width, top, wide: columnNames.length * width, high: top + lines * height };
}

/** Return, of each column and line that has calls, the kind that is told. */
function shownKinds(kinds, shape) {
  const kindByPosition = new Map();
  kinds.forEach((kind, cell) => {
    const position = [cells.column[cell], Math.floor(cells.row[cell] / shape.perLine)].join();
    if (!kindByPosition.has(position) || KINDS.indexOf(kind) < KINDS.indexOf(kindByPosition.get(position))) kindByPosition.set(position, kind);
  });
  return kindByPosition;
}

/** Return a path for each kind, with a rectangle for each place. */
function paths(kindByPosition, { width, height, top }) {
  const gap = height > 4 && width > 4 ? 1 : 0;
  const rectangles = new Map();
  for (const [position, kind] of kindByPosition) {
    const [column, line] = position.split(",").map(Number);
    const rectangle = `M${column * width} ${top + line * height}h${width - gap}v${height - gap}h${gap - width}z`;
    rectangles.set(kind, (rectangles.get(kind) ?? "") + rectangle);
  }
  return Array.from(rectangles, ([kind, d]) => makeSVG("path", { class: kindClass(kind), d }));
}

/** Return the column and the line under the pointer. */
function positionUnder(event, picture, { height, width, top, wide, high }) {
  const frame = picture.getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * wide;
  const y = ((event.clientY - frame.top) / frame.height) * high;
  return [Math.floor(x / width), Math.floor((y - top) / height)];
}

/** Return the cells of a column in a line. */
function cellsAt([column, line], { perLine }) {
  const cellsInLine = [];
  for (let row = Math.max(0, line * perLine); row < Math.min((line + 1) * perLine, rowNames.length); row++) cellsInLine.push(cellAt(row, column));
  return cellsInLine.filter((cell) => cell >= 0);
}

function legendOf(kinds) {
  return KINDS.filter((kind) => kinds.includes(kind)).map((kind) => {
    const number = kinds.filter((each) => each === kind).length.toLocaleString("en");
    return make("span", { class: "key" }, make("span", { class: `swatch ${kindClass(kind)}` }), ` ${kind === "parted" ? "the runs part" : kind} (${number})`);
  });
}

const kindClass = (kind) => `kind-${kind.replace(" ", "-")}`;

function kindCounts(kinds) {
  return KINDS.map((kind) => [kinds.filter((each) => each === kind).length, kind]).filter(([number]) => number)
    .map(([number, kind]) => `${number} ${kind}`).join(", ");
}

/** Return a bar for each column: how many of its calls that both runs have changed. */
function shareBars(width) {
  const sharedCounts = columnNames.map(() => 0), changedCounts = columnNames.map(() => 0);
  cells.status.forEach((status, cell) => {
    if (status === "same" || status === "changed") sharedCounts[cells.column[cell]]++;
    if (status === "changed") changedCounts[cells.column[cell]]++;
  });
  return columnNames.map((_, column) => {
    const size = sharedCounts[column] ? ((BARS - 4) * changedCounts[column]) / sharedCounts[column] : 0;
    return makeSVG("rect", { class: "share", x: column * width, y: BARS - 3 - size, width: Math.max(1, width - 1), height: size + 1 });
  });
}
