// One call: its conversation as it stood; of two runs, both side by side.

const SHOWN_CHARACTERS = 1500; // characters of a text that are shown at once
const ROLES = new Set(["system", "developer", "user", "assistant", "tool", "function"]);

function open(cell) {
  location.hash = linkOf(cell);
  if (openedCell !== cell) show(cell);
}

function show(cell) {
  openedCell = cell;
  find("conversation").hidden = false;
  document.body.classList.add("reading");
  for (const button of rows.querySelectorAll("[data-cell]")) button.setAttribute("aria-pressed", Number(button.dataset.cell) === cell);
  if (!hits) showGrid();
  activate(cell, false);
  showConversation();
  find("conversation").scrollTop = 0;
  find("title").focus({ preventScroll: true });
  find("conversation").scrollIntoView({ block: find("overview").offsetParent ? "nearest" : "start" });
}

function showConversation() {
  const row = cells.row[openedCell], status = cells.status[openedCell];
  find("title").textContent = nameOf(openedCell);
  find("previous").disabled = openedCell === starts[row];
  find("next").disabled = openedCell + 1 >= starts[row + 1];
  const why = parted[openedCell];
  find("status").replaceChildren(...(why ? [`◆ The runs part here: ${why[0]}: `, ...changes(why[1])] : [STATUS[status] ?? ""]));
  find("status").hidden = !find("status").textContent;
  const sides = [[cells.one[openedCell], "this run"], [cells.other[openedCell], "the other run"]].filter(([call]) => call >= 0);
  find("sides").className = sides.length > 1 ? "two" : "";
  find("sides").replaceChildren(...sides.map(([call, name], number) => side(call, name, sides[1 - number]?.[0], number)));
}

/** Return [-what went-] and {+what came+} as elements. */
function changes(text) {
  return text.split(/(\[-.*?-\]|\{\+.*?\+\})/).map((piece) => {
    if (piece.startsWith("[-")) return make("del", { dir: "auto" }, piece.slice(2, -2));
    return piece.startsWith("{+") ? make("ins", { dir: "auto" }, piece.slice(2, -2)) : piece;
  });
}

function side(call, name, other, number) {
  const path = histories(call), repeated = Math.max(0, path.length - calls.new[call]);
  const comparison = comparisonOf(call, other);
  const view = (message, isAnswer, node) => bubble(message, {
    isAnswer, node, differs: comparison !== null && !comparison.theirs.has(message), other: comparison?.pairs.get(message), tag: number ? "ins" : "del",
  });
  const article = make("article", { "aria-label": name }, ...(isCompared ? [make("h3", null, name)] : []), about(call));
  const parameters = texts[calls.parameters[call]];
  if (parameters) article.append(folded(parameters, 90, "parameters"));
  const earlier = path.slice(0, repeated).map((node) => nodes[node][1]);
  const bubbles = path.map((node) => view(nodes[node][1], false, node));
  if (repeated > 1) {
    const different = comparison === null ? 0 : earlier.filter((message) => !comparison.theirs.has(message)).length;
    const isOpen = terms.length > 0 && earlier.some((message) => textsOf(message).some((text) => marked(text).length > 1));
    const summary = plural(repeated, "earlier message") + (different ? `, ${different} of them ≠ different` : "");
    article.append(make("details", isOpen ? { open: "" } : null, make("summary", null, summary), ...bubbles.slice(0, repeated)));
  } else article.append(...bubbles.slice(0, repeated));
  article.append(...bubbles.slice(repeated), ...calls.answers[call].map((answer) => view(answer, true)));
  return article;
}

/** Return the messages and answers of the call beside a call, and which of them belongs to which; null if none is there. */
function comparisonOf(call, other) {
  if (other === undefined) return null;
  const ours = messagesOf(call), theirs = messagesOf(other);
  const pairs = counterparts(ours, theirs);
  for (const [message, counterpart] of counterparts(calls.answers[call], calls.answers[other])) pairs.set(message, counterpart);
  return { theirs: new Set([...theirs, ...calls.answers[other]]), pairs };
}

/** Return the line about a call: model, draw, tokens, cost, how it ended. */
function about(call) {
  const title = texts[calls.title[call]], served = texts[calls.served[call]];
  const facts = [
    served && served !== title && `served by ${served}`,
    calls.draw[call] && `draw #${calls.draw[call]}`,
    calls.input[call] !== null && `${calls.input[call]} tokens in`,
    calls.output[call] !== null && `${calls.output[call]} out`,
    calls.cost[call] !== null && dollars(calls.cost[call]),
    `key ${calls.key[call]}`,
  ].filter(Boolean).join(" · ");
  const ends = calls.marks[call].map((mark) => make("span", { class: "ending" }, `${MARKS[mark]} ${MARK_WORDS[mark]}`));
  return make("p", { class: "about" }, make("strong", { dir: "auto" }, title), ` ${facts} `, ...ends);
}

function folded(text, limit, name) {
  const body = make("div", { class: "text data", dir: "auto" }, ...marked(text));
  return text.length <= limit ? body : make("details", { class: "fold" }, make("summary", null, name), body);
}

/** Return a message. Its view says whether it is an answer, differs, which other message stands beside it, and its history. */
function bubble(message, view) {
  const [role, parts] = messages[message], kind = role.split(/[ ,]/, 1)[0];
  const otherTexts = view.other === undefined ? [] : messages[view.other][1];
  const blocks = parts.map((text, number) => block(texts[text], otherTexts[number] === undefined ? null : texts[otherTexts[number]], view.tag));
  const content = make("div", { class: "content" }, ...(blocks.length ? blocks : [block("", null)]));
  const classes = ["message", ROLES.has(kind) ? kind : "other", view.isAnswer && "answer", view.differs && "differs"];
  const sign = view.differs ? make("span", { class: "sign" }, " ≠ differs") : "";
  return make("div", { class: classes.filter(Boolean).join(" ") },
    make("div", { class: "role", dir: "auto" }, role, sign), content);
}

/** Return a piece of a message: JSON laid out, with a way to see it as written; a long text cut, with a way to see all. */
function block(text, other, tag) {
  const formatted = formattedJSON(text), otherFormatted = other === null ? null : formattedJSON(other);
  const body = make("div", { class: formatted === null ? "text" : "text json", dir: "auto" });
  let isWhole = text.length <= SHOWN_CHARACTERS || terms.length > 0 || other !== null, isRaw = false;
  const draw = () => {
    const words = isRaw || formatted === null ? text : formatted;
    if (other === null) body.replaceChildren(...marked((isWhole ? words : `${words.slice(0, SHOWN_CHARACTERS)}…`) || "(empty)"));
    else body.replaceChildren(...compare(words, isRaw || otherFormatted === null ? other : otherFormatted, tag));
  };
  draw();
  const allButton = make("button", { type: "button", class: "small", onclick: () => { isWhole = true; allButton.remove(); draw(); } }, `all ${plural(text.length, "character")}`);
  const rawButton = make("button", { type: "button", class: "small", "aria-pressed": "false", onclick: () => { isRaw = !isRaw; rawButton.setAttribute("aria-pressed", isRaw); draw(); } }, "as written");
  const parts = [body, ...(isWhole ? [] : [allButton]), ...(formatted === null || formatted === text ? [] : [rawButton])];
  return make("div", null, ...parts);
}

/** Return a text as nodes, with the words marked that another one lacks. */
function compare(text, other, tag) {
  if (!text) return ["(empty)"];
  return pieces(text, other).flatMap(([words, isNew]) => (isNew ? [make(tag, null, ...marked(words))] : marked(words)));
}

/** Return JSON with line ends and indentation, its tokens as they are; null if it is no object or array. */
function formattedJSON(text) {
  if (!/^\s*[[{]/.test(text)) return null;
  try { JSON.parse(text); } catch { return null; }
  let output = "", depth = 0;
  const tokens = text.match(/"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g);
  const line = () => `\n${"  ".repeat(depth)}`;
  tokens.forEach((token, number) => {
    if (token === "}" || token === "]") {
      depth -= 1;
      output += (tokens[number - 1] === "{" || tokens[number - 1] === "[" ? "" : line()) + token;
    } else {
      if (number && (tokens[number - 1] === "," || tokens[number - 1] === "{" || tokens[number - 1] === "[")) output += line();
      output += token === ":" ? ": " : token;
      if (token === "{" || token === "[") depth += 1;
    }
  });
  return output;
}

function close() {
  const cell = openedCell;
  leave();
  if (!hits) showGrid();
  activate(cell, true);
}

function leave() {
  find("conversation").hidden = true;
  document.body.classList.remove("reading");
  openedCell = -1;
  history.replaceState(null, "", location.pathname + location.search);
}

/** Open the call that the address names. */
function follow() {
  const cell = linkedCell(location.hash);
  if (cell === openedCell || cell < 0) return;
  if (hits ? !hits.includes(cell) : isShown !== null && !isShown[cell]) {
    find("search").value = find("only").value = find("model").value = "";
    search();
  }
  show(cell);
}
