// Printing: all columns of the rows that are shown, in their order. The grid has only what is in sight, so paper has a list of its own.

const PRINTED = 3000; // calls

function buildPaper() {
  const paper = find("paper");
  paper.replaceChildren();
  let remaining = PRINTED, printed = 0;
  const printedRows = hits ? [...new Set(hits.map((cell) => cells.row[cell]))] : shownRows;
  const hitCells = hits && new Set(hits);
  for (const row of printedRows) {
    const rowCells = [];
    for (let cell = starts[row]; cell < starts[row + 1]; cell++) {
      if (hitCells ? hitCells.has(cell) : isShown === null || isShown[cell]) rowCells.push(cell);
    }
    if (remaining < rowCells.length) break;
    remaining -= rowCells.length;
    printed += 1;
    paper.append(make("section", null, make("h3", { dir: "auto" }, rowNames[row]), make("ol", null, ...rowCells.map(paperCell))));
  }
  if (printed < printedRows.length) paper.append(make("p", null, `The first ${printed.toLocaleString("en")} of ${plural(printedRows.length, "actor")}.`));
}

function paperCell(cell) {
  const [first, second] = callsOf(cell).map(answerOf);
  const item = make("li", { class: `${cells.status[cell]}${cell in parted ? " parted" : ""}` },
    make("span", { class: "where", dir: "auto" }, columnNames[cells.column[cell]]), " ", ...signs(cell),
    make("span", { dir: "auto" }, opening(first, 300)));
  if (second !== undefined && second !== first) item.append(make("span", { class: "second", dir: "auto" }, opening(second, 300)));
  return item;
}
