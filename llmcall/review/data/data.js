// The calls that stand in the page as JSON. Texts become text nodes only.

const data = JSON.parse(document.getElementById("data").textContent);
const { actors, texts, messages, nodes, calls, cells, parted, survey } = data;
const { rows: rowNames, columns: columnNames } = cells;
const STATUS = { changed: "≠ changed", added: "+ only in the other run", missing: "− only in this run", same: "" };
const SIGNS = { changed: "≠", added: "+", missing: "−", same: "" };
const MARKS = { refused: "⊘", cut: "✂", "asked again": "↻" };
const MARK_WORDS = { refused: "refused", cut: "cut: ended by length", "asked again": "not usable, asked again" };
const isCompared = cells.status.some(Boolean);

const find = (id) => document.getElementById(id);

/** Make an element; children are nodes or texts. */
function make(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// Texts

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function brief(text, limit = 160) {
  const flat = text.slice(0, 4 * limit).replace(/\s+/g, " ").trim();
  return flat.length > limit || text.length > 4 * limit ? `${flat.slice(0, limit - 1)}…` : flat;
}

/** Return the first words of an answer; of JSON without its brackets and quotes. */
function opening(text, limit = 160) {
  const words = /^\s*[[{]/.test(text) ? text.slice(0, 4 * limit).replace(/[{}[\]"]/g, "") : text;
  return brief(words, limit) || "(empty)";
}

function dollars(cost) {
  if (cost < 0.0001) return `$${cost.toPrecision(2)}`;
  return `$${cost.toFixed(cost < 1 ? 4 : 2)}`;
}

const textsOf = (message) => messages[message][1].map((text) => texts[text]);
const answerOf = (call) => calls.answers[call].flatMap(textsOf).join(" ");

// Calls

/** Return the histories with which a call begins, the shortest first; the last message of each is new. */
function histories(call) {
  const path = [];
  for (let node = calls.node[call]; node >= 0; node = nodes[node][0]) path.push(node);
  return path.reverse();
}

/** Return the messages that a call asked, the first one first. */
const messagesOf = (call) => histories(call).map((node) => nodes[node][1]);

// Cells: row r has those from starts[r] to starts[r + 1], in the order of the columns

const cellCount = cells.row.length;
const starts = [0];
for (let cell = 1; cell <= cellCount; cell++) {
  if (cell === cellCount || cells.row[cell] !== cells.row[cell - 1]) starts.push(cell);
}

/** Return the calls of a cell: of this run, of the other one, or of both. */
const callsOf = (cell) => [cells.one[cell], cells.other[cell]].filter((call) => call >= 0);
const marksOf = (cell) => [...new Set(callsOf(cell).flatMap((call) => calls.marks[call]))];
const differs = (cell) => cells.status[cell] !== "" && cells.status[cell] !== "same";

/** Return the cell of a row in a column, or -1. */
function cellAt(row, column) {
  for (let cell = starts[row]; cell < starts[row + 1] && cells.column[cell] <= column; cell++) {
    if (cells.column[cell] === column) return cell;
  }
  return -1;
}

/** Return what a call is called: whose it is, its number, and what stands above its column. */
function nameOf(cell) {
  const number = cells.call[cell].replace("+", "");
  const column = columnNames[cells.column[cell]];
  const more = column === `call ${number}` ? "" : ` · ${column}`;
  return `${actors[cells.actor[cell]]} · call ${number}${more}`;
}

// Links name the scope and the call, so they hold in another page of the same run.

const linkOf = (cell) => `#${encodeURIComponent(actors[cells.actor[cell]])}:${cells.call[cell]}`;
const cellOfLink = new Map();
for (let cell = 0; cell < cellCount; cell++) cellOfLink.set(`${actors[cells.actor[cell]]}:${cells.call[cell]}`, cell);

/** Return the cell that a link names, or -1. */
function linkedCell(hash) {
  try {
    return cellOfLink.get(decodeURIComponent(hash.slice(1))) ?? -1;
  } catch {
    return -1;
  }
}
