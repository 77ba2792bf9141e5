// The grid: an actor a row, a round or a call a column, as many columns as there is room for.

const ROW = 68, HIT = 72, NAME = 132, CELL = 200; // pixels
const box = find("box"), rows = find("rows");

let shownRows = rowNames.map((_, row) => row); // those of which a cell is shown
let shownColumns = columnNames.map((_, column) => column); // likewise
let isShown = null; // of each cell, whether the filters let it through; null: all
let hits = null; // the cells that were searched for; null: no search
let firstColumn = 0, columns = 1; // which of the shown columns are in sight
let activeCell = 0, openedCell = -1; // the cell that Tab reaches; the one whose conversation is open

// A list of which only the rows in sight are built

const list = { height: ROW, count: 0, build: null, built: new Map() };

function showList(height, count, build) {
  const focused = rows.contains(document.activeElement);
  Object.assign(list, { height, count, build });
  list.built.clear();
  rows.replaceChildren();
  rows.style.height = `${height * count}px`;
  fill();
  if (focused) rows.querySelector(`[data-cell="${activeCell}"]`)?.focus({ preventScroll: true });
}

function fill() {
  const first = Math.max(0, Math.floor(box.scrollTop / list.height) - 4);
  const last = Math.min(list.count, Math.ceil((box.scrollTop + box.clientHeight) / list.height) + 4);
  for (const [number, element] of list.built) {
    if ((number < first || number >= last) && !element.contains(document.activeElement)) {
      element.remove();
      list.built.delete(number);
    }
  }
  for (let number = first; number < last; number++) {
    if (list.built.has(number)) continue;
    const element = list.build(number);
    element.style.top = `${number * list.height}px`;
    list.built.set(number, element);
    rows.append(element);
  }
}

function reveal(number) {
  const top = number * list.height;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + list.height > box.scrollTop + box.clientHeight) box.scrollTop = top + list.height - box.clientHeight;
  fill();
}

// Rows and cells

function layOut() {
  columns = Math.max(1, Math.min(shownColumns.length, Math.floor((box.clientWidth - NAME) / CELL)));
  firstColumn = Math.max(0, Math.min(firstColumn, shownColumns.length - columns));
  rows.style.setProperty("--columns", columns);
  find("head").style.setProperty("--columns", columns);
}

function showGrid() {
  layOut();
  const heads = columnsInSight().map((column) => columnNames[column]);
  const range = heads.length > 1 ? `${heads[0]} – ${heads[heads.length - 1]}` : heads[0] ?? "no calls";
  find("shown").textContent = `${range}, of ${plural(shownColumns.length, "column")}`;
  find("earlier").disabled = firstColumn === 0;
  find("later").disabled = firstColumn + columns >= shownColumns.length;
  find("head").replaceChildren(...["actor", ...heads].map((text) => make("div", { dir: "auto" }, text)));
  rows.setAttribute("role", "grid");
  rows.setAttribute("aria-label", "Answers by actor and call");
  rows.setAttribute("aria-rowcount", shownRows.length);
  rows.setAttribute("aria-colcount", columnNames.length + 1);
  showList(ROW, shownRows.length, buildRow);
}

const columnsInSight = () => shownColumns.slice(firstColumn, firstColumn + columns);

function buildRow(number) {
  const row = shownRows[number], name = rowNames[row];
  const nameStart = name.lastIndexOf("/") + 1;
  const element = make("div", { class: "row", role: "row", "aria-rowindex": number + 1 },
    make("div", { class: "name", role: "rowheader", dir: "auto", title: name },
      make("span", { class: "outer" }, name.slice(0, nameStart)), name.slice(nameStart)));
  for (const column of columnsInSight()) {
    const cell = cellAt(row, column);
    const content = cell < 0 ? [] : [buildCell(cell)];
    element.append(make("div", { role: "gridcell", "aria-colindex": column + 2 }, ...content));
  }
  return element;
}

function buildCell(cell) {
  const status = cells.status[cell], isFiltered = isShown !== null && !isShown[cell];
  const button = make("button", {
    type: "button", class: `cell ${status}${cell in parted ? " parted" : ""}${isFiltered ? " filtered" : ""}`,
    "data-cell": cell, dir: "auto", tabindex: cell === activeCell ? 0 : -1, "aria-pressed": cell === openedCell,
    onclick: () => open(cell),
  });
  if (isFiltered) {
    button.append(make("span", { class: "hidden" }, `${nameOf(cell)}, not searched for`), make("span", { "aria-hidden": "true" }, "·"));
    return button;
  }
  const [first, second] = callsOf(cell).map(answerOf);
  button.append(make("span", { class: "words", dir: "auto" }, ...signs(cell), opening(first)));
  if (second !== undefined && second !== first) {
    button.classList.add("both");
    button.append(make("span", { class: "second", dir: "auto" }, opening(second)));
  }
  return button;
}

/** Return signs with words for those who do not see them: the status of a call, and its marks. */
function signs(cell) {
  const status = cells.status[cell];
  const labelledSigns = [];
  if (cell in parted) labelledSigns.push(["◆", `the runs part here: ${parted[cell][0]}`]);
  else if (SIGNS[status]) labelledSigns.push([SIGNS[status], STATUS[status]]);
  for (const mark of marksOf(cell)) labelledSigns.push([MARKS[mark], MARK_WORDS[mark]]);
  return labelledSigns.flatMap(([sign, words]) => [
    make("span", { class: "sign", dir: "ltr", title: words },
      make("span", { "aria-hidden": "true" }, sign), make("span", { class: "hidden" }, words)), " ",
  ]);
}

// Moving about

/** Make the cell the one that Tab reaches, and bring it into sight. */
function activate(cell, focus) {
  activeCell = cell;
  const number = hits ? hits.indexOf(cell) : shownRows.indexOf(cells.row[cell]);
  if (number < 0) return;
  const column = shownColumns.indexOf(cells.column[cell]);
  if (!hits && column >= 0 && (column < firstColumn || column >= firstColumn + columns)) {
    firstColumn = column < firstColumn ? column : column - columns + 1;
    const top = box.scrollTop;
    showGrid();
    box.scrollTop = top;
  }
  reveal(number);
  for (const button of rows.querySelectorAll("[data-cell]")) {
    button.tabIndex = Number(button.dataset.cell) === cell ? 0 : -1;
    if (focus && button.tabIndex === 0) button.focus({ preventScroll: true });
  }
}

function move(event) {
  const page = Math.max(1, Math.floor(box.clientHeight / list.height) - 1);
  const down = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key] ?? 0;
  const right = hits ? 0 : { ArrowRight: 1, ArrowLeft: -1, Home: -cellCount, End: cellCount }[event.key] ?? 0;
  if (!down && !right) return;
  event.preventDefault();
  if (hits) {
    activate(hits[clamped(hits.indexOf(activeCell) + down, hits.length)], true);
    return;
  }
  const row = shownRows[clamped(shownRows.indexOf(cells.row[activeCell]) + down, shownRows.length)];
  const rowLength = starts[row + 1] - starts[row];
  const index = right ? activeCell - starts[row] + right : nearestIndex(row, cells.column[activeCell]);
  activate(starts[row] + clamped(index, rowLength), true);
}

const clamped = (number, length) => Math.max(0, Math.min(length - 1, number));

/** Return the place in a row of the cell that is nearest to a column. */
function nearestIndex(row, column) {
  let index = 0;
  for (let cell = starts[row]; cell < starts[row + 1] && cells.column[cell] <= column; cell++) index = cell - starts[row];
  return index;
}

/** Show other columns. */
function step(offset) {
  firstColumn += offset;
  const top = box.scrollTop;
  showGrid();
  box.scrollTop = top;
  fill();
}
