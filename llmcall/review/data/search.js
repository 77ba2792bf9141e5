// The search and the filters. A search gives a list of calls; filters keep the grid.

let lowerTexts = null; // the texts in small letters
let terms = []; // of the search

/** Return the terms of a search: words, "phrases", and scope:words. A quote inside a phrase is written \". */
function parseQuery(query) {
  const matches = query.toLowerCase().matchAll(/(scope:)?(?:"((?:\\.|[^"\\]|"(?=\S))*)(?:"(?=\s|$)|$)|(\S+))/g);
  return Array.from(matches, ([, scope, phrase, word]) => ({
    scope: Boolean(scope), text: (phrase ?? word).replace(/\\(["\\])/g, "$1"),
  })).filter((term) => term.text);
}

const searchWords = () => terms.filter((term) => !term.scope).map((term) => term.text);

const IDENTIFIER = 4; // characters from which on words are sought in models' names and keys, too

/** Return what the page itself says of a call: that the runs part there, and how it ended. */
function labelsOf(cell) {
  const labels = [STATUS[cells.status[cell]] ?? ""];
  if (cell in parted) labels.push("◆ the runs part here", ...parted[cell]);
  labels.push(...marksOf(cell).map((mark) => MARK_WORDS[mark]));
  return labels.join("\n").toLowerCase();
}

/** Tell whether a model's name or a key has some words. */
function isIdentified(call, words) {
  return words.length >= IDENTIFIER && (lowerTexts[calls.served[call]].includes(words) || `key ${calls.key[call]}`.includes(words));
}

/** Return what tells whether a cell has some words. */
function matcherFor(words) {
  const inText = lowerTexts.map((text) => text.includes(words));
  const inMessage = messages.map(([, parts]) => parts.some((text) => inText[text]));
  const inCall = calls.node.map((_, call) => inText[calls.title[call]] || inText[calls.parameters[call]]
    || calls.answers[call].some((answer) => inMessage[answer]) || asksNew(call, inMessage) || isIdentified(call, words));
  return (cell) => inCall[cells.one[cell]] || inCall[cells.other[cell]] || labelsOf(cell).includes(words);
}

/** Tell whether one of the messages that a call is the first of its conversation to ask is among those. */
function asksNew(call, isMatch) {
  let node = calls.node[call];
  for (let remaining = calls.new[call]; remaining > 0 && node >= 0; remaining--, node = nodes[node][0]) {
    if (isMatch[nodes[node][1]]) return true;
  }
  return false;
}

function search() {
  const begin = performance.now();
  terms = parseQuery(find("search").value);
  lowerTexts ??= texts.map((text) => text.toLowerCase());
  isShown = filteredCells();
  shownRows = withShownCells(rowNames, cells.row);
  shownColumns = withShownCells(columnNames, cells.column);
  hits = terms.length ? searchedCells() : null;
  const callCount = hits ? hits.length : isShown?.filter(Boolean).length;
  find("found").textContent = callCount === undefined ? "" : `${plural(callCount, "call")} of ${cellCount.toLocaleString("en")}`;
  find("nothing").hidden = callCount !== 0;
  find("overview").classList.toggle("searching", Boolean(hits));
  box.scrollTop = 0;
  if (hits) {
    if (hits.length && !hits.includes(activeCell)) activeCell = hits[0];
    rows.setAttribute("role", "list");
    rows.setAttribute("aria-label", "Calls found");
    for (const name of ["aria-rowcount", "aria-colcount"]) rows.removeAttribute(name);
    showList(HIT, hits.length, buildHit);
  } else {
    if (isShown !== null && !isShown[activeCell]) activeCell = Math.max(0, isShown.indexOf(true));
    showGrid();
    activate(activeCell, false);
  }
  if (openedCell >= 0 && !find("conversation").hidden) showConversation();
  document.documentElement.dataset.searched = Math.round(performance.now() - begin);
}

/** Return the numbers of the rows or columns of which the filters show a cell. */
function withShownCells(names, numberOfCell) {
  const numbers = names.map((_, number) => number);
  if (isShown === null) return numbers;
  const shownNumbers = new Set(numberOfCell.filter((_, cell) => isShown[cell]));
  return numbers.filter((number) => shownNumbers.has(number));
}

/** Return the cells that have all terms of the search, among those that the filters show. */
function searchedCells() {
  const matchers = searchWords().map(matcherFor);
  const paths = actors.map((path) => terms.every((term) => !term.scope || path.toLowerCase().includes(term.text)));
  const matchingCells = [];
  for (let cell = 0; cell < cellCount; cell++) {
    if ((isShown === null || isShown[cell]) && paths[cells.actor[cell]] && matchers.every((isMatch) => isMatch(cell))) matchingCells.push(cell);
  }
  return matchingCells;
}

// Filters

const FILTERS = {
  differs: ["only what differs", differs],
  parted: ["where the runs part", (cell) => cell in parted],
  cut: ["cut", (cell) => marksOf(cell).includes("cut")],
  refused: ["refused", (cell) => marksOf(cell).includes("refused")],
  "asked again": ["asked again", (cell) => marksOf(cell).includes("asked again")],
};

/** Return, of each cell, whether the filters show it; null if they show all. */
function filteredCells() {
  const [, accepts] = FILTERS[find("only").value] ?? [];
  const model = find("model").value;
  if (!accepts && !model) return null;
  return cells.row.map((_, cell) => (!accepts || accepts(cell)) && (!model || modelsOf(cell).includes(model)));
}

/** Return the models of a cell, each with the one that served it if that has another name. */
function modelsOf(cell) {
  return callsOf(cell).map((call) => {
    const model = texts[calls.model[call]], served = texts[calls.served[call]];
    return served && served !== model ? `${model}, served by ${served}` : model;
  });
}

function offerFilters() {
  const options = Object.entries(FILTERS).map(([value, [name, accepts]]) => {
    const number = cells.row.filter((_, cell) => accepts(cell)).length;
    return number ? make("option", { value }, `${name} (${number.toLocaleString("en")})`) : null;
  });
  find("only").append(...options.filter(Boolean));
  find("only-label").hidden = find("only").options.length < 2;
  const models = new Map();
  for (let cell = 0; cell < cellCount; cell++) for (const model of new Set(modelsOf(cell))) models.set(model, (models.get(model) ?? 0) + 1);
  find("model").append(...[...models].map(([model, number]) => make("option", { value: model }, `${model} (${number.toLocaleString("en")})`)));
  find("model-label").hidden = models.size < 2;
}

// What was found

function buildHit(number) {
  const cell = hits[number], [call] = callsOf(cell);
  const hitTexts = [...callsOf(cell).flatMap((each) => calls.answers[each]), ...messagesOf(call).slice(-Math.max(1, calls.new[call])).reverse()].flatMap(textsOf);
  const words = searchWords();
  const text = hitTexts.find((each) => words.some((word) => each.toLowerCase().includes(word))) ?? hitTexts[0] ?? "";
  const index = Math.max(0, ...words.map((word) => text.toLowerCase().indexOf(word)));
  const snippet = (index > 60 ? "…" : "") + brief(text.slice(Math.max(0, index - 60)), 220);
  const labels = [cell in parted ? "◆ the runs part" : STATUS[cells.status[cell]], ...marksOf(cell).map((mark) => `${MARKS[mark]} ${mark}`)];
  const button = make("button", {
    type: "button", class: `hit ${cells.status[cell]}`, "data-cell": cell, tabindex: cell === activeCell ? 0 : -1,
    "aria-pressed": cell === openedCell, onclick: () => open(cell),
  }, make("span", { class: "where", dir: "auto" }, [nameOf(cell), ...labels].filter(Boolean).join(" · ")),
  make("span", { class: "snippet", dir: "auto" }, ...marked(snippet)));
  return make("div", { class: "row", role: "listitem" }, button);
}

/** Return a text as nodes, with what was searched for marked. */
function marked(text) {
  const words = searchWords().map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  if (!words.length) return [text];
  return text.split(new RegExp(`(${words.join("|")})`, "gi")).map((piece, number) => (number % 2 ? make("mark", null, piece) : piece));
}
