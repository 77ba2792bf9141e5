// Shows the calls of a page, which are in it as JSON. Texts only become text nodes, so no text is run.

const find = (id) => document.getElementById(id);
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const DIVERGES = "◆ the runs diverge here", FOLLOWS = "◇ this may have followed from another change";
const clamped = (number, length) => Math.max(0, Math.min(length - 1, number));

/** Make an element; children are nodes or texts. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Return [-removed-] and {+added+} words as elements. */
function changes(text) {
  return text.split(/(\[-.*?-\]|\{\+.*?\+\})/).map((piece) => {
    const tag = piece.startsWith("[-") ? "del" : piece.startsWith("{+") ? "ins" : null;
    return tag ? make(tag, { dir: "auto" }, piece.slice(2, -2)) : piece;
  });
}

function parse(query) {
  const matches = query.toLowerCase().matchAll(/(scope:)?(?:"([^"]*)"?|(\S+))/g);
  return Array.from(matches, ([, scope, phrase, word]) => ({ isScope: Boolean(scope), text: phrase ?? word })).filter((term) => term.text);
}

/** Return what the calls of some data are called, and which have the words of a search. */
function readCalls(data) {
  const { runs, texts, messages, nodes, calls, cells, divergences, causes, scopes, rows: rowNames, words_of_marks: MARKS } = data;
  const STATUS = { changed: "Δ changed", added: `+ only in ${runs[1]}`, missing: `− only in ${runs[0]}`, same: "" };
  const callsOf = (cell) => [cells.one[cell], cells.other[cell]].filter((call) => call >= 0);
  const marksOf = (cell) => [...new Set(callsOf(cell).flatMap((call) => calls.marks[call]))];
  const linkOf = (cell) => `#${encodeURIComponent(scopes[cells.scope[cell]])}:${cells.call[cell]}`;
  let lowerTexts = null;

  /** Return the words for a cell: that the runs diverge there, its status, how its answers ended. */
  function labelsOf(cell) {
    const sign = cell in causes ? `${FOLLOWS}: ` : `${DIVERGES}: `;
    const status = cell in divergences ? sign + divergences[cell] : STATUS[cells.status[cell]];
    return [status, ...marksOf(cell).map((mark) => MARKS[mark])].filter(Boolean);
  }

  /** Return the function that returns whether a cell has a term. */
  function matcherOf({ isScope, text }) {
    if (isScope) return (cell) => [scopes[cells.scope[cell]], rowNames[cells.row[cell]]].some((name) => name.toLowerCase().includes(text));
    lowerTexts ??= texts.map((text) => text.toLowerCase());
    const inText = lowerTexts.map((lowerText) => lowerText.includes(text));
    const inMessage = messages.map(([, parts]) => parts.some((part) => inText[part]));
    const inCall = calls.node.map((node, call) => {
      if ([calls.title, calls.parameters].some((column) => inText[column[call]]) || calls.answers[call].some((answer) => inMessage[answer])) return true;
      for (let left = calls.new[call]; left > 0 && node >= 0; left--, node = nodes[node][0]) if (inMessage[nodes[node][1]]) return true;
      return text.length > 3 && (inText[calls.served[call]] || `key ${calls.key[call]}`.includes(text)); // a digit is in every key
    });
    return (cell) => callsOf(cell).some((call) => inCall[call]) || labelsOf(cell).join("\n").toLowerCase().includes(text);
  }

  return { STATUS, callsOf, marksOf, linkOf, labelsOf, matcherOf };
}

/** Show the calls of some data. */
function showCalls(data) {
  const { runs, texts, messages, nodes, calls, cells, divergences, causes, variables, rows: rowNames, words_of_marks: MARKS } = data;
  const { STATUS, callsOf, marksOf, linkOf, labelsOf, matcherOf } = readCalls(data);
  const isCompared = cells.status.some(Boolean);
  const cellCount = cells.row.length;
  const cellOfLink = new Map(cells.row.map((_, cell) => [linkOf(cell), cell]));

  const WRAPPED = /^\s*\{\s*"value"\s*:\s*("(?:[^"\\]|\\.)*"|[^"{}[\],]+)\s*\}\s*$/; // as structured output wraps a value

  /** Return the first words of an answer; JSON without its brackets and quotes, a wrapped value without its name. */
  function opening(text, limit = 160) {
    const start = text.slice(0, 4 * limit).replace(WRAPPED, "[$1]");
    const words = (/^\s*[[{]/.test(start) ? start.replace(/[{}[\]"]/g, "") : start).replace(/\s+/g, " ").trim();
    return (words.length > limit || text.length > 4 * limit ? `${words.slice(0, limit - 1)}…` : words) || "(empty)";
  }

  // Calls: a node is a history of messages: the history before its last message, and that message.

  function messagesOf(call) {
    const path = [];
    for (let node = calls.node[call]; node >= 0; node = nodes[node][0]) path.push(nodes[node][1]);
    return path.reverse();
  }

  const answerOf = (call) => calls.answers[call].flatMap((message) => messages[message][1].map((text) => texts[text])).join(" ");

  /** Return the first words of a cell's answers: of both runs, if they differ. */
  const openingsOf = (cell) => [...new Set(callsOf(cell).map((call) => opening(answerOf(call))))];

  // Cells: row r has the cells from starts[r] to starts[r + 1], in the order of the columns. Links name the scope and the call,
  // so they hold in another page of the same run.

  const starts = [0];
  for (let cell = 1; cell <= cellCount; cell++) if (cells.row[cell] !== cells.row[cell - 1]) starts.push(cell);
  const columnCount = Math.max(0, ...starts.slice(1).map((end, row) => end - starts[row]));
  const nameOf = (cell) => `${rowNames[cells.row[cell]]} · call ${cells.call[cell].replace("+", "")}`;

  /** Return the signs of a cell, with words for screen readers. */
  const signs = (cell) => labelsOf(cell).flatMap((label) => [make("span", { class: "sign", dir: "ltr", title: label, role: "img", "aria-label": label.slice(2) }, label[0]), " "]);

  // The grid: only the cells in sight are built.

  const LINE = 18.4, PADDING = 13, CELL = 200, FIELD = 130, NARROW = 700; // pixels
  const MAX_LINES = 3; // of a cell; a name has as many as it needs
  const box = find("box"), grid = find("rows");
  let isShown = null; // whether search and filter show each cell; null: all
  let shownRows = rowNames.map((_, row) => row), shownColumns = Array.from({ length: columnCount }, (_, column) => column);
  let activeCell = 0, openedCell = -1, chosenCell = -1; // the cell that Tab reaches; the one whose conversation is open; the one with lines
  let width = CELL, nameWidth = 0, tops = [0]; // pixels; row n is shown from tops[n] to tops[n + 1]
  let fields = [], edge = 0; // the names of the rows' variables that are shown, and the pixels before the first call

  const pen = document.createElement("canvas").getContext("2d");
  const widths = new Map(); // of texts as they are written in the grid

  function lengthOf(text, weight = "") {
    const key = weight + text;
    if (!widths.has(key)) {
      pen.font = `${weight} 13.6px ${getComputedStyle(document.body).fontFamily}`;
      widths.set(key, pen.measureText(text).width);
    }
    return widths.get(key);
  }

  /** Return how many lines a text of some length has. They are seldom full to their ends. */
  const linesIn = (length, room) => (length <= room ? 1 : Math.ceil(length / (room * 0.85)));

  /** Return the levels around an actor, and its own name. */
  function partsOf(name) {
    const start = name.lastIndexOf("/") + 1;
    return [name.slice(0, start), name.slice(start)];
  }

  function nameLength(row) {
    const [outer, own] = partsOf(rowNames[row]);
    return lengthOf(outer) + lengthOf(own, "600") + 1;
  }

  function heightOf(row) {
    const lines = cellsOf(row).map((cell) => {
      const [first, ...others] = openingsOf(cell);
      const isTwo = others.length > 0;
      return Math.min(MAX_LINES - isTwo, linesIn(lengthOf("◆ ".repeat(labelsOf(cell).length) + first), width - 18)) + isTwo;
    });
    return Math.round(LINE * Math.max(linesIn(nameLength(row), nameWidth - 18), ...lines) + PADDING);
  }

  /** Return which of the shown rows is at some height. */
  function rowAt(height) {
    let first = 0, last = shownRows.length - 1;
    while (first < last) {
      const middle = Math.ceil((first + last) / 2);
      if (tops[middle] <= height) first = middle; else last = middle - 1;
    }
    return first;
  }

  const isVisible = (cell) => isShown === null || isShown[cell];
  const cellsOf = (row) => Array.from({ length: starts[row + 1] - starts[row] }, (_, index) => starts[row] + index).filter(isVisible);

  function layOut() {
    const most = Math.max(132, Math.min(320, box.clientWidth * 0.4));
    nameWidth = Math.min(most, shownRows.reduce((widest, row) => Math.max(widest, nameLength(row) + 19), 132));
    box.style.setProperty("--name-width", `${nameWidth}px`);
    fields = box.clientWidth < NARROW ? [] : variables.names;
    edge = nameWidth + FIELD * fields.length;
    width = Math.max(CELL, (box.clientWidth - edge) / Math.max(1, shownColumns.length));
    tops = [0];
    for (const row of shownRows) tops.push(tops[tops.length - 1] + heightOf(row));
    grid.style.width = `${edge + width * shownColumns.length}px`;
    grid.style.height = `${tops[tops.length - 1] + find("head").offsetHeight}px`;
    grid.setAttribute("aria-rowcount", shownRows.length + 1);
    grid.setAttribute("aria-colcount", shownColumns.length + fields.length + 1);
    fill();
  }

  function fill() {
    const isFocused = grid.contains(document.activeElement);
    const slice = (list, begin, size, room) => list.slice(Math.max(0, Math.floor(begin / size) - 1), Math.ceil((begin + room) / size) + 1);
    const columns = slice(shownColumns.map((column, place) => [column, place]), Math.max(0, box.scrollLeft - edge + nameWidth), width, box.clientWidth);
    const begin = Math.max(0, rowAt(box.scrollTop) - 1);
    const rows = shownRows.slice(begin, rowAt(box.scrollTop + box.clientHeight) + 2).map((row, place) => [row, begin + place]);
    find("head").replaceChildren(make("div", { class: "name", role: "columnheader" }, "actor"),
      ...fields.map((name, number) => field(make("div", { role: "columnheader" }, name), number)), ...columns.map(([column, place]) =>
      placed(make("div", { class: "heading", role: "columnheader", "aria-colindex": place + fields.length + 2 }, `call ${column + 1}`), place)));
    const top = find("head").offsetHeight;
    grid.replaceChildren(find("head"), ...rows.map(([row, place]) => buildRow(row, place, columns, top)), drawing);
    drawLines();
    if (isFocused) grid.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  function field(element, number) {
    element.className = "field";
    element.style.left = `${nameWidth + number * FIELD}px`;
    element.style.width = `${FIELD}px`;
    return element;
  }

  function placed(element, place) {
    element.style.left = `${edge + place * width}px`;
    element.style.width = `${width}px`;
    return element;
  }

  function buildRow(row, place, columns, top) {
    const name = rowNames[row], [outer, own] = partsOf(name);
    const element = make("div", { class: "row", role: "row", "aria-rowindex": place + 2 }, make("div", { class: "name", role: "rowheader", dir: "auto", title: name },
      make("span", { class: "outer" }, outer), make("wbr"), own),
      ...fields.map((_, number) => field(make("div", { role: "gridcell", dir: "auto", title: variables.values[row][number] }, variables.values[row][number]), number)));
    for (const [column, number] of columns) {
      const cell = starts[row] + column;
      if (cell < starts[row + 1] && isVisible(cell)) element.append(placed(make("div", { class: "place", role: "gridcell", "aria-colindex": number + fields.length + 2 }, buildCell(cell)), number));
    }
    element.style.top = `${top + tops[place]}px`;
    element.style.height = `${tops[place + 1] - tops[place]}px`;
    return element;
  }

  function buildCell(cell) {
    const [first, ...others] = openingsOf(cell);
    const button = make("button", {
      type: "button", class: `cell ${cells.status[cell]}${cell in divergences ? " diverges" : ""}`, "data-cell": cell, dir: "auto",
      tabindex: cell === activeCell ? 0 : -1, "aria-pressed": cell === openedCell, onclick: () => { location.hash = linkOf(cell); show(cell); },
    }, make("span", { class: "words", dir: "auto" }, ...signs(cell), first), ...others.map((words) => make("span", { class: "second", dir: "auto" }, words)));
    return button;
  }

  // Lines from the chosen call to those that may have followed from it, and from these on.

  const MAX_DRAWN = 300; // lines
  const drawing = find("lines"), followers = new Map();
  for (const [cell, cause] of Object.entries(causes)) followers.set(cause, [...(followers.get(cause) ?? []), Number(cell)]);

  /** Return the pairs of a call and one that may have followed from it, beginning with a chosen one. */
  function consequencesOf(cell) {
    const found = [], waiting = [cell], seen = new Set(waiting);
    while (waiting.length) {
      const cause = waiting.pop();
      for (const follower of (followers.get(cause) ?? []).filter((candidate) => !seen.has(candidate))) {
        seen.add(follower);
        waiting.push(follower);
        found.push([cause, follower]);
      }
    }
    return found;
  }

  /** Return where a cell is in the grid, or null if the filter hides it. */
  function boxOf(cell) {
    const row = cells.row[cell], place = shownRows.indexOf(row), column = shownColumns.indexOf(cell - starts[row]);
    if (place < 0 || column < 0 || !isVisible(cell)) return null;
    const top = find("head").offsetHeight;
    return { left: edge + column * width, right: edge + (column + 1) * width, middle: top + (tops[place] + tops[place + 1]) / 2 };
  }

  function drawLines() {
    const pairs = chosenCell < 0 ? [] : consequencesOf(chosenCell);
    const boxes = pairs.length > MAX_DRAWN ? [] : pairs.map((pair) => pair.map(boxOf)).filter((pair) => pair.every(Boolean));
    const draw = (tag, attributes) => {
      const element = document.createElementNS(drawing.namespaceURI, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    drawing.replaceChildren(...boxes.flatMap(([cause, follower]) => {
      const [x, end] = [cause.right - 6, follower.left + 6], bend = Math.max(24, Math.abs(end - x) / 2);
      return [draw("path", { d: `M${x} ${cause.middle}C${x + bend} ${cause.middle} ${end - bend} ${follower.middle} ${end} ${follower.middle}` }),
        draw("circle", { cx: end, cy: follower.middle, r: 4 })];
    }));
  }

  /** Make a cell the one that Tab reaches, and scroll to it. */
  function activate(cell, isFocused) {
    activeCell = chosenCell = cell;
    const place = shownRows.indexOf(cells.row[cell]), left = edge - nameWidth + shownColumns.indexOf(cell - starts[cells.row[cell]]) * width;
    const [high, wide] = [box.clientHeight - find("head").offsetHeight, box.clientWidth - nameWidth];
    box.scrollTop = Math.max(tops[place + 1] - high, Math.min(tops[place], box.scrollTop));
    box.scrollLeft = Math.max(left + width - wide, Math.min(left, box.scrollLeft));
    fill();
    if (isFocused) grid.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
  }

  function move(event) {
    const page = Math.max(1, rowAt(box.scrollTop + box.clientHeight) - rowAt(box.scrollTop) - 1);
    const down = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key] ?? 0;
    const right = { ArrowRight: 1, ArrowLeft: -1, Home: -cellCount, End: cellCount }[event.key] ?? 0;
    if (!down && !right) return;
    event.preventDefault();
    const row = cells.row[activeCell], column = activeCell - starts[row];
    const target = shownRows[clamped(shownRows.indexOf(row) + down, shownRows.length)];
    const choices = cellsOf(target);
    const nearest = choices.filter((cell) => cell - starts[target] <= column).length - 1;
    activate(choices[clamped(right ? choices.indexOf(activeCell) + right : nearest, choices.length)], true);
  }

  // The search finds words, "phrases" and scope:words in the texts that a call has first. The filter shows differences and failures.

  let terms = [];
  const FILTERS = {
    differs: ["only what differs", (cell) => !["", "same"].includes(cells.status[cell])],
    diverges: ["where the runs diverge", (cell) => cell in divergences],
    ...Object.fromEntries(Object.keys(MARKS).map((mark) => [mark, [mark, (cell) => marksOf(cell).includes(mark)]])),
  };

  function search() {
    terms = parse(find("search").value);
    const tests = [...terms.map(matcherOf), ...(find("only").value ? [FILTERS[find("only").value][1]] : [])];
    isShown = tests.length ? cells.row.map((_, cell) => tests.every((test) => test(cell))) : null;
    const seen = cells.row.flatMap((row, cell) => (isVisible(cell) ? [[row, cell - starts[row], cell]] : []));
    const [inRows, inColumns] = [0, 1].map((index) => new Set(seen.map((position) => position[index])));
    shownRows = rowNames.map((_, row) => row).filter((row) => inRows.has(row));
    shownColumns = Array.from({ length: columnCount }, (_, column) => column).filter((column) => inColumns.has(column));
    find("found").textContent = isShown === null ? "" : `${plural(seen.length, "call")} of ${cellCount.toLocaleString("en")}`;
    if (seen.length && !isVisible(activeCell)) [[, , activeCell]] = seen;
    box.scrollTop = box.scrollLeft = 0;
    layOut();
    if (openedCell >= 0) showConversation();
  }

  /** Return a text as nodes, with the search terms marked. */
  function marked(text) {
    const words = terms.filter((term) => !term.isScope).map((term) => term.text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!words.length) return [text];
    return text.split(new RegExp(`(${words.join("|")})`, "gi")).map((piece, number) => (number % 2 ? make("mark", null, piece) : piece));
  }

  // One call: its conversation so far; for two runs, both side by side.

  function show(cell) {
    openedCell = cell;
    find("conversation").hidden = false;
    document.body.classList.add("reading");
    layOut();
    activate(cell, false);
    showConversation();
    find("conversation").scrollTop = 0;
    find("title").focus({ preventScroll: true });
    find("conversation").scrollIntoView({ block: find("overview").offsetParent ? "nearest" : "start" });
  }

  function showConversation() {
    const row = cells.row[openedCell];
    find("title").textContent = nameOf(openedCell);
    find("previous").disabled = openedCell === starts[row];
    find("next").disabled = openedCell + 1 >= starts[row + 1];
    const later = consequencesOf(openedCell).length, words = [labelsOf(openedCell)[0], later && `${plural(later, "call")} may have followed from it`];
    find("status").replaceChildren(...changes(words.filter(Boolean).join(" · ")));
    find("status").hidden = !find("status").textContent;
    const sides = [[cells.one[openedCell], runs[0], "del"], [cells.other[openedCell], runs[1], "ins"]].filter(([call]) => call >= 0);
    find("sides").className = sides.length > 1 ? "two" : "";
    find("sides").replaceChildren(...sides.map(([call, name, tag], number) => side(call, name, tag, sides[1 - number]?.[0])));
  }

  function side(call, name, tag, other) {
    const ours = messagesOf(call), theirs = other === undefined ? null : messagesOf(other);
    const answers = calls.answers[call], repeated = ours.length - calls.new[call];
    const partners = theirs && new Map([...partnersOf(ours, theirs), ...partnersOf(answers, calls.answers[other])]);
    const bubbles = ours.map((message) => bubble(message, false, partners, tag));
    const different = partners === null ? 0 : ours.slice(0, repeated).filter((message) => partners.has(message)).length;
    const summary = plural(repeated, "earlier message") + (different ? `, ${different} of them different` : "");
    const earlier = repeated > 1 ? [make("details", null, make("summary", null, summary), ...bubbles.slice(0, repeated))] : bubbles.slice(0, repeated);
    const parameters = texts[calls.parameters[call]];
    return make("article", { "aria-label": name }, ...(isCompared ? [make("h3", null, name)] : []), about(call),
      ...(parameters ? [make("details", null, make("summary", null, "parameters"), make("div", { class: "text data", dir: "auto" }, ...marked(parameters)))] : []),
      ...earlier, ...bubbles.slice(repeated), ...answers.map((answer) => bubble(answer, true, partners, tag)));
  }

  /** Return the messages that differ, each with the other call's next differing message of the same role, or -1. */
  function partnersOf(ours, theirs) {
    const rest = theirs.filter((message) => !ours.includes(message));
    return ours.filter((message) => !theirs.includes(message)).map((message) => {
      const index = rest.findIndex((candidate) => messages[candidate][0] === messages[message][0]);
      return [message, index < 0 ? -1 : rest.splice(index, 1)[0]];
    });
  }

  /** Return the line about a call: model, draw, tokens, cost, how it ended. */
  function about(call) {
    const title = texts[calls.title[call]], served = texts[calls.served[call]];
    const facts = [served && served !== title && `served by ${served}`, calls.facts[call], `key ${calls.key[call]}`].filter(Boolean).join(" · ");
    return make("p", { class: "about" }, make("strong", { dir: "auto" }, title), ` ${facts} `, ...calls.marks[call].map((mark) => make("span", { class: "ending" }, MARKS[mark])));
  }

  function bubble(message, isAnswer, partners, tag) {
    const [role, parts] = messages[message], partner = partners?.get(message);
    const others = partner >= 0 ? messages[partner][1] : [];
    const blocks = parts.map((text, number) => block(laidOut(texts[text]), others[number] === undefined ? null : laidOut(texts[others[number]]), tag));
    return make("div", { class: `message ${role.split(/[ ,]/, 1)[0]}${isAnswer ? " answer" : ""}` },
      make("div", { class: "role", dir: "auto" }, role, partner === undefined ? "" : make("span", { class: "sign" }, " Δ differs")),
      make("div", { class: "content" }, ...(blocks.length ? blocks : ["(empty)"])));
  }

  const MAX_SHOWN = 3000; // characters shown at first

  function block(text, other, tag) {
    if (other !== null) return make("div", { class: "text", dir: "auto" }, ...pieces(text, other).flatMap(([words, isNew]) => (isNew ? [make(tag, null, ...marked(words))] : marked(words))));
    const body = make("div", { class: "text", dir: "auto" }, ...marked((terms.length ? text : text.slice(0, MAX_SHOWN)) || "(empty)"));
    if (text.length <= MAX_SHOWN || terms.length) return body;
    const all = make("button", { type: "button", class: "small", onclick: () => { body.replaceChildren(text); all.remove(); } }, `all ${plural(text.length, "character")}`);
    return make("div", null, body, all);
  }

  /** Return JSON with line breaks and indentation, if nothing else changes; any other text unchanged. */
  function laidOut(text) {
    if (!/^\s*[[{]/.test(text)) return text;
    try {
      const lines = JSON.stringify(JSON.parse(text), null, 2);
      return lines.replace(/\s/g, "") === text.replace(/\s/g, "") ? lines : text;
    } catch { return text; }
  }

  const MAX_PAIRS = 2_000_000; // pairs of words to compare; in longer texts, everything between the common ends is marked

  /** Return the pieces of a text, each with whether another text lacks it. */
  function pieces(text, other) {
    const [words, theirs] = [text, other].map((side) => side.match(/[\p{L}\p{N}_'’]+|\s+|[^]/gu) ?? []);
    let begin = 0, end = 0;
    const least = Math.min(words.length, theirs.length);
    while (begin < least && words[begin] === theirs[begin]) begin++;
    while (end < least - begin && words[words.length - 1 - end] === theirs[theirs.length - 1 - end]) end++;
    const [middle, rest] = [words, theirs].map((side) => side.slice(begin, side.length - end));
    const isNew = words.map((_, number) => number >= begin && number < words.length - end);
    if (middle.length * rest.length <= MAX_PAIRS) {
      const across = rest.length + 1, common = new Uint16Array((middle.length + 1) * across); // the longest common subsequence from i and j on
      for (let i = middle.length - 1; i >= 0; i--) {
        for (let j = rest.length - 1; j >= 0; j--) common[i * across + j] = middle[i] === rest[j] ? common[(i + 1) * across + j + 1] + 1 : Math.max(common[(i + 1) * across + j], common[i * across + j + 1]);
      }
      for (let i = 0, j = 0; i < middle.length && j < rest.length;) {
        if (middle[i] === rest[j]) { isNew[begin + i] = false; i++; j++; } else if (common[(i + 1) * across + j] >= common[i * across + j + 1]) i++; else j++;
      }
    }
    const segments = [];
    words.forEach((word, number) => {
      const last = segments[segments.length - 1];
      if (last?.[1] === isNew[number]) last[0] += word; else segments.push([word, isNew[number]]);
    });
    return segments.length ? segments : [["(empty)", false]];
  }

  function close() {
    const cell = openedCell;
    openedCell = -1;
    find("conversation").hidden = true;
    document.body.classList.remove("reading");
    history.replaceState(null, "", location.pathname + location.search);
    layOut();
    activate(cell, true);
  }

  /** Open the call that the address names. */
  function follow() {
    const cell = cellOfLink.get(location.hash) ?? -1;
    if (cell === openedCell || cell < 0) return;
    if (!isVisible(cell)) {
      find("search").value = find("only").value = "";
      search();
    }
    show(cell);
  }

  /** Return what the signs in the cells mean, of those that are there. */
  function legend() {
    const statuses = new Set(cells.status), marks = new Set(calls.marks.flat());
    const isCause = Object.keys(divergences).some((cell) => !(cell in causes));
    const signs = [...(isCause ? [DIVERGES] : []), ...(Object.keys(causes).length ? [FOLLOWS] : []), ...Object.entries({ ...STATUS, ...MARKS })
      .filter(([name, words]) => words && (statuses.has(name) || marks.has(name))).map(([, words]) => words)];
    return [...(cellCount ? ["☞ click a call to read it"] : []), ...signs, ...(statuses.has("changed") ? [`┈ below the line: ${runs[1]}`] : []),
      ...(followers.size ? ["→ lines lead to calls that may have followed from the chosen one"] : [])];
  }

  // Paper gets a list, because the grid has only the cells in sight.

  const MAX_PRINTED = 3000; // calls

  function buildPaper() {
    let left = MAX_PRINTED;
    const printed = shownRows.filter((row) => (left -= cellsOf(row).length) >= 0);
    find("paper").replaceChildren(...printed.map((row) => make("section", null, make("h3", { dir: "auto" }, rowNames[row]), make("ol", null, ...cellsOf(row).map((cell) => {
      const answers = [...new Set(callsOf(cell).map(answerOf))];
      return make("li", { class: cells.status[cell], value: cell - starts[row] + 1 }, ...signs(cell), ...answers.map((answer) => make("div", { dir: "auto" }, opening(answer, 300))));
    })))));
    if (printed.length < shownRows.length) find("paper").append(make("p", null, `The first ${printed.length.toLocaleString("en")} of ${plural(shownRows.length, "actor")}.`));
  }

  // Everything together

  let waiting = 0;
  find("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 60); });
  find("only").addEventListener("change", search);
  document.querySelector(".tools").addEventListener("submit", (event) => {
    event.preventDefault();
    if (shownRows.length) grid.querySelector("[tabindex='0']")?.click();
  });
  for (const [id, step] of [["previous", -1], ["next", 1]]) find(id).addEventListener("click", () => { location.hash = linkOf(openedCell + step); follow(); });
  find("close").addEventListener("click", close);
  box.addEventListener("scroll", fill);
  grid.addEventListener("keydown", move);
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof HTMLInputElement;
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      find("search").focus();
    } else if (event.key === "Escape" && isTyping) {
      find("search").value = "";
      search();
    } else if (event.key === "Escape" && openedCell >= 0) close();
  });
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", buildPaper);
  addEventListener("afterprint", () => find("paper").replaceChildren());
  for (const [value, [name, accepts]] of Object.entries(FILTERS)) {
    const count = cells.row.filter((_, cell) => accepts(cell)).length;
    if (count) find("only").append(make("option", { value }, `${name} (${count.toLocaleString("en")})`));
  }
  find("legend").append(...legend().map((words) => make("span", { dir: "auto" }, make("span", { class: "sign" }, words[0]), words.slice(1))));
  find("only-label").hidden = find("only").options.length < 2;
  document.querySelector(".tools").hidden = find("overview").hidden = false;
  new ResizeObserver(layOut).observe(box);
  layOut();
  follow();
}

for (const item of document.querySelectorAll(".divergences li")) item.replaceChildren(...changes(item.textContent));
showCalls(JSON.parse(find("data").textContent));
