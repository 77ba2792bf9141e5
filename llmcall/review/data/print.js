// Printing: all columns of the rows that are shown, in their order. The grid has only what is in sight, so paper has a list of its own.

const PRINTED = 3000; // calls

function buildPaper() {
  const paper = find("paper");
  paper.replaceChildren();
  let left = PRINTED, printed = 0;
  const shown = hits ? [...new Set(hits.map((cell) => cells.row[cell]))] : shownRows;
  const among = hits && new Set(hits);
  for (const row of shown) {
    const found = [];
    for (let cell = starts[row]; cell < starts[row + 1]; cell++) {
      if (among ? among.has(cell) : isShown === null || isShown[cell]) found.push(cell);
    }
    if (left < found.length) break;
    left -= found.length;
    printed += 1;
    paper.append(make("section", null, make("h3", { dir: "auto" }, rowNames[row]), make("ol", null, ...found.map(paperCell))));
  }
  if (printed < shown.length) paper.append(make("p", null, `The first ${printed.toLocaleString("en")} of ${plural(shown.length, "actor")}.`));
}

function paperCell(cell) {
  const [first, second] = callsOf(cell).map(answerOf);
  const item = make("li", { class: `${cells.status[cell]}${cell in parted ? " parted" : ""}` },
    make("span", { class: "where", dir: "auto" }, columnNames[cells.column[cell]]), " ", ...signs(cell),
    make("span", { dir: "auto" }, opening(first, 300)));
  if (second !== undefined && second !== first) item.append(make("span", { class: "second", dir: "auto" }, opening(second, 300)));
  return item;
}
