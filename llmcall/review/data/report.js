"use strict";
// Shows the calls that stand in the page as JSON. Texts become text nodes only, and only what is seen is built.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { actors, texts, messages, nodes, calls, cells, parted, spread } = data;
  const find = (id) => document.getElementById(id);
  const STATUS = { changed: "≠ changed", added: "+ only in the other run", missing: "− only in this run", same: "" };
  const SHORT = { changed: "≠", added: "+", missing: "−", same: "" };
  const ROLES = new Set(["system", "developer", "user", "assistant", "tool", "function"]);
  const ROW = 68, HIT = 72, NAME = 132, CELL = 200, OPEN = 1500, MOST = 30_000; // pixels; characters of a text; pixels of a list that are printed
  const compared = cells.status.some(Boolean);

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

  const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
  const brief = (text, limit = 160) => {
    const flat = text.slice(0, 4 * limit).replace(/\s+/g, " ").trim();
    return flat.length > limit || text.length > 4 * limit ? `${flat.slice(0, limit - 1)}…` : flat;
  };
  /** Return the first words of an answer; of JSON without its brackets and quotes. */
  const opening = (text) => brief(/^\s*[[{]/.test(text) ? text.slice(0, 400).replace(/[{}[\]"]/g, "") : text) || "(empty)";
  const dollars = (cost) => (cost < 0.0001 ? `$${cost.toPrecision(2)}` : cost < 1 ? `$${cost.toFixed(4)}` : `$${cost.toFixed(2)}`);
  const textsOf = (message) => messages[message][1].map((text) => texts[text]);
  const answerOf = (call) => calls.answers[call].flatMap(textsOf).join(" ");

  /** Return the messages that a call asked, the first one first. */
  function asked(call, most = Infinity) {
    const found = [];
    for (let node = calls.node[call]; node >= 0 && found.length < most; node = nodes[node][0]) found.push(nodes[node][1]);
    return found.reverse();
  }

  // The cells of each actor: actor a has those from starts[a] to starts[a + 1]
  const starts = [0];
  for (let cell = 1; cell <= cells.actor.length; cell++) {
    if (cell === cells.actor.length || cells.actor[cell] !== cells.actor[cell - 1]) starts.push(cell);
  }
  let rounds = 0;
  for (let actor = 0; actor < actors.length; actor++) rounds = Math.max(rounds, starts[actor + 1] - starts[actor]);
  const roundOf = (cell) => cell - starts[cells.actor[cell]];

  // A list of which only the rows in sight are built

  const box = find("box"), rows = find("rows");
  const list = { height: ROW, count: 0, build: null, built: new Map() };

  function showList(height, count, build) {
    const focused = rows.contains(document.activeElement);
    Object.assign(list, { height, count, build });
    list.built.clear();
    rows.replaceChildren();
    rows.style.height = `${height * count}px`;
    fill();
    if (focused) rows.querySelector(`[data-cell="${active}"]`)?.focus({ preventScroll: true });
  }

  function fill() {
    const first = Math.max(0, Math.floor(box.scrollTop / list.height) - 4);
    const last = Math.min(list.count, Math.ceil((box.scrollTop + Math.min(box.clientHeight, MOST)) / list.height) + 4);
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

  // The grid: an actor a row, a round a column, as many rounds as there is room for

  let shownActors = actors.map((_, actor) => actor), hits = null, terms = [], firstRound = 0, columns = 1, active = 0, opened = -1;

  function layOut() {
    columns = Math.max(1, Math.min(rounds, Math.floor((box.clientWidth - NAME) / CELL)));
    firstRound = Math.max(0, Math.min(firstRound, rounds - columns));
    rows.style.setProperty("--columns", columns);
    find("head").style.setProperty("--columns", columns);
  }

  function showGrid() {
    layOut();
    const last = Math.min(rounds, firstRound + columns) - 1;
    find("shown").textContent = rounds ? `round${last > firstRound ? "s" : ""} ${firstRound}${last > firstRound ? `–${last}` : ""} of ${rounds}` : "no calls";
    find("earlier").disabled = firstRound === 0;
    find("later").disabled = last >= rounds - 1;
    const heads = ["actor"];
    for (let round = firstRound; round <= last; round++) heads.push(`round ${round}`);
    find("head").replaceChildren(...heads.map((text) => make("div", null, text)));
    rows.setAttribute("role", "grid");
    rows.setAttribute("aria-label", "Answers by actor and round");
    rows.setAttribute("aria-rowcount", shownActors.length);
    rows.setAttribute("aria-colcount", rounds + 1);
    showList(ROW, shownActors.length, buildRow);
  }

  function buildRow(number) {
    const actor = shownActors[number];
    const row = make("div", { class: "row", role: "row", "aria-rowindex": number + 1 });
    const at = actors[actor].lastIndexOf("/") + 1;
    row.append(make("div", { class: "name", role: "rowheader", dir: "auto", title: actors[actor] },
      make("span", { class: "outer" }, actors[actor].slice(0, at)), actors[actor].slice(at)));
    for (let round = firstRound; round < firstRound + columns; round++) {
      const cell = starts[actor] + round;
      row.append(cell < starts[actor + 1] ? buildCell(cell, round) : make("div", { class: "none", role: "gridcell" }));
    }
    return row;
  }

  function buildCell(cell, round) {
    const one = cells.one[cell], other = cells.other[cell], status = cells.status[cell];
    const here = make("div", { role: "gridcell", "aria-colindex": round + 2 });
    const button = make("button", {
      type: "button", class: `cell ${status}${cell in parted ? " parted" : ""}`, "data-cell": cell, dir: "auto",
      tabindex: cell === active ? 0 : -1, "aria-pressed": cell === opened,
      onclick: () => open(cell),
    });
    const words = make("span", { class: "words", dir: "auto" });
    if (cell in parted) words.append(mark("◆", `the runs part here: ${parted[cell][0]}`), " ");
    else if (SHORT[status]) words.append(mark(SHORT[status], STATUS[status]), " ");
    const answer = one >= 0 ? answerOf(one) : answerOf(other);
    words.append(opening(answer));
    button.append(words);
    if (status === "changed" && answerOf(other) !== answer) {
      button.classList.add("both");
      button.append(make("span", { class: "second", dir: "auto" }, opening(answerOf(other))));
    }
    here.append(button);
    return here;
  }

  const mark = (sign, words) => make("span", { class: "sign", dir: "ltr" }, make("span", { "aria-hidden": "true" }, sign), make("span", { class: "hidden" }, words));

  /** Make the cell the one that Tab reaches, and bring it into sight. */
  function activate(cell, focus) {
    active = cell;
    const number = hits ? hits.indexOf(cell) : shownActors.indexOf(cells.actor[cell]);
    if (number < 0) return;
    const round = roundOf(cell);
    if (!hits && (round < firstRound || round >= firstRound + columns)) {
      firstRound = round < firstRound ? round : round - columns + 1;
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
    const right = hits ? 0 : { ArrowRight: 1, ArrowLeft: -1, Home: -rounds, End: rounds }[event.key] ?? 0;
    if (!down && !right) return;
    event.preventDefault();
    if (hits) {
      activate(hits[Math.max(0, Math.min(hits.length - 1, hits.indexOf(active) + down))], true);
      return;
    }
    const number = Math.max(0, Math.min(shownActors.length - 1, shownActors.indexOf(cells.actor[active]) + down));
    const actor = shownActors[number], length = starts[actor + 1] - starts[actor];
    activate(starts[actor] + Math.max(0, Math.min(length - 1, roundOf(active) + right)), true);
  }

  // The search

  let lower = null;

  /** Return the terms of a search: words, "phrases", and scope:words. */
  function parsed(query) {
    return Array.from(query.toLowerCase().matchAll(/(scope:)?(?:"([^"]*)"?|(\S+))/g), ([, scope, phrase, word]) => ({
      scope: Boolean(scope), text: phrase ?? word,
    })).filter((term) => term.text);
  }

  function search() {
    const begin = performance.now();
    const changedOnly = find("changed").checked;
    terms = parsed(find("search").value);
    lower ??= texts.map((text) => text.toLowerCase());
    let found = null;
    if (terms.length) {
      const words = terms.filter((term) => !term.scope).map((term) => {
        const inText = lower.map((text) => text.includes(term.text));
        const inMessage = messages.map(([, said]) => said.some((text) => inText[text]));
        const inCall = calls.node.map((_, call) => inText[calls.title[call]] || inText[calls.parameters[call]]
          || calls.answers[call].some((said) => inMessage[said]) || isNew(call, inMessage));
        return (cell) => inCall[cells.one[cell]] || inCall[cells.other[cell]];
      });
      const paths = actors.map((path) => terms.every((term) => !term.scope || path.toLowerCase().includes(term.text)));
      found = [];
      for (let cell = 0; cell < cells.actor.length; cell++) {
        if (paths[cells.actor[cell]] && words.every((has) => has(cell))) found.push(cell);
      }
    }
    if (changedOnly) found = (found ?? cells.actor.map((_, cell) => cell)).filter((cell) => cells.status[cell] !== "same");
    hits = found;
    find("found").textContent = hits ? `${plural(hits.length, "call")} of ${cells.actor.length.toLocaleString("en")}` : "";
    find("nothing").hidden = !hits || hits.length > 0;
    find("overview").classList.toggle("searching", Boolean(hits));
    box.scrollTop = 0;
    if (hits) {
      if (hits.length && !hits.includes(active)) active = hits[0];
      rows.setAttribute("role", "list");
      rows.setAttribute("aria-label", "Calls found");
      showList(HIT, hits.length, buildHit);
    } else {
      showGrid();
      activate(active, false);
    }
    if (opened >= 0 && !find("conversation").hidden) showConversation();
    document.documentElement.dataset.searched = Math.round(performance.now() - begin);
  }

  /** Tell whether one of the messages that a call is the first of its conversation to ask is among those. */
  function isNew(call, among) {
    let node = calls.node[call];
    for (let left = calls.new[call]; left > 0 && node >= 0; left--, node = nodes[node][0]) if (among[nodes[node][1]]) return true;
    return false;
  }

  function buildHit(number) {
    const cell = hits[number], call = cells.one[cell] >= 0 ? cells.one[cell] : cells.other[cell];
    const words = terms.filter((term) => !term.scope).map((term) => term.text);
    const said = [...calls.answers[call], ...asked(call, calls.new[call]).reverse()].flatMap(textsOf);
    let text = said[0] ?? "";
    for (const each of said) if (words.some((word) => each.toLowerCase().includes(word))) { text = each; break; }
    const at = Math.max(0, ...words.map((word) => text.toLowerCase().indexOf(word)));
    const snippet = (at > 60 ? "…" : "") + brief(text.slice(Math.max(0, at - 60)), 220);
    const button = make("button", {
      type: "button", class: `hit ${cells.status[cell]}`, "data-cell": cell, tabindex: cell === active ? 0 : -1,
      "aria-pressed": cell === opened, onclick: () => open(cell),
    }, make("span", { class: "where", dir: "auto" }, `${actors[cells.actor[cell]]} · round ${roundOf(cell)}`,
      cell in parted ? " · ◆ the runs part" : cells.status[cell] in SHORT && STATUS[cells.status[cell]] ? ` · ${STATUS[cells.status[cell]]}` : ""),
    make("span", { class: "snippet", dir: "auto" }, ...marked(snippet)));
    return make("div", { class: "row", role: "listitem" }, button);
  }

  /** Return a text as nodes, with what was searched for marked. */
  function marked(text) {
    const words = terms.filter((term) => !term.scope).map((term) => term.text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    if (!words.length) return [text];
    return text.split(new RegExp(`(${words.join("|")})`, "gi")).map((piece, number) => (number % 2 ? make("mark", null, piece) : piece));
  }

  // The conversation

  function open(cell) {
    location.hash = `c${cell}`;
    if (opened !== cell) show(cell);
  }

  function show(cell) {
    opened = cell;
    find("conversation").hidden = false;
    document.body.classList.add("reading");
    for (const button of rows.querySelectorAll("[data-cell]")) button.setAttribute("aria-pressed", Number(button.dataset.cell) === cell);
    if (!hits) { showGrid(); }
    activate(cell, false);
    showConversation();
    find("conversation").scrollTop = 0;
    find("title").focus({ preventScroll: true });
    find("conversation").scrollIntoView({ block: find("overview").offsetParent ? "nearest" : "start" });
  }

  function showConversation() {
    const actor = cells.actor[opened], status = cells.status[opened];
    find("title").textContent = `${actors[actor]} · round ${roundOf(opened)}`;
    find("previous").disabled = opened === starts[actor];
    find("next").disabled = opened + 1 >= starts[actor + 1];
    const told = parted[opened];
    find("status").replaceChildren(...(told ? [`◆ The runs part here: ${told[0]}: `, ...changes(told[1])] : [STATUS[status] ?? ""]));
    find("status").hidden = !find("status").textContent;
    const sides = [[cells.one[opened], "this run"], [cells.other[opened], "the other run"]].filter(([call]) => call >= 0);
    find("sides").className = sides.length > 1 ? "two" : "";
    find("sides").replaceChildren(...sides.map(([call, name], number) => side(call, name, sides[1 - number]?.[0])));
  }

  /** Return [-what went-] and {+what came+} as elements. */
  function changes(text) {
    return text.split(/(\[-.*?-\]|\{\+.*?\+\})/).map((piece) => (
      piece.startsWith("[-") ? make("del", { dir: "auto" }, piece.slice(2, -2)) : piece.startsWith("{+") ? make("ins", { dir: "auto" }, piece.slice(2, -2)) : piece
    ));
  }

  function side(call, name, other) {
    const path = asked(call), known = Math.max(0, path.length - calls.new[call]);
    const theirs = other === undefined ? null : new Set([...asked(other), ...calls.answers[other]]);
    const differs = (said) => theirs !== null && !theirs.has(said);
    const head = make("p", { class: "about" }, make("strong", { dir: "auto" }, texts[calls.title[call]]));
    const facts = [calls.draw[call] && `draw #${calls.draw[call]}`, calls.input[call] !== null && `${calls.input[call]} tokens in`,
      calls.output[call] !== null && `${calls.output[call]} out`, calls.cost[call] !== null && dollars(calls.cost[call]), `key ${calls.key[call]}`];
    head.append(` ${facts.filter(Boolean).join(" · ")}`);
    const parameters = texts[calls.parameters[call]];
    const article = make("article", { "aria-label": name }, ...(compared ? [make("h3", null, name)] : []), head);
    if (parameters) article.append(folded(parameters, 90, "parameters"));
    const said = (message) => bubble(message, false, differs(message));
    if (known > 1) {
      const earlier = path.slice(0, known), different = earlier.filter(differs).length;
      const isOpen = terms.length > 0 && earlier.some((message) => textsOf(message).some((text) => marked(text).length > 1));
      const summary = plural(known, "earlier message") + (different ? `, ${different} of them ≠ different` : "");
      article.append(make("details", isOpen ? { open: "" } : null, make("summary", null, summary), ...earlier.map(said)));
    } else article.append(...path.slice(0, known).map(said));
    article.append(...path.slice(known).map(said), ...calls.answers[call].map((answer) => bubble(answer, true, differs(answer))));
    return article;
  }

  function folded(text, limit, name) {
    const body = make("div", { class: "text data", dir: "auto" }, ...marked(text));
    return text.length <= limit ? body : make("details", { class: "fold" }, make("summary", null, name), body);
  }

  function bubble(message, isAnswer, differs) {
    const [role, parts] = messages[message], kind = role.split(/[ ,]/, 1)[0];
    const content = make("div", { class: "content" }, ...(parts.length ? parts.map((text) => block(texts[text])) : [block("")]));
    return make("div", { class: `message ${ROLES.has(kind) ? kind : "other"}${isAnswer ? " answer" : ""}${differs ? " differs" : ""}` },
      make("div", { class: "role", dir: "auto" }, role, differs ? make("span", { class: "sign" }, " ≠ differs") : ""), content);
  }

  /** Return a piece of a message: JSON laid out, with a way to see it as written; a long text cut, with a way to see all. */
  function block(text) {
    const laid = laidOut(text);
    const body = make("div", { class: laid === null ? "text" : "text json", dir: "auto" });
    const fill = (words) => body.replaceChildren(...marked(words || "(empty)"));
    let whole = text.length <= OPEN || terms.length > 0, raw = false;
    const draw = () => { const words = raw || laid === null ? text : laid; fill(whole ? words : `${words.slice(0, OPEN)}…`); };
    draw();
    const all = make("button", { type: "button", class: "small", onclick: () => { whole = true; all.remove(); draw(); } }, `all ${plural(text.length, "character")}`);
    const swap = make("button", { type: "button", class: "small", "aria-pressed": "false", onclick: () => { raw = !raw; swap.setAttribute("aria-pressed", raw); draw(); } }, "as written");
    const parts = [body, ...(whole ? [] : [all]), ...(laid === null || laid === text ? [] : [swap])];
    return make("div", null, ...parts);
  }

  /** Return JSON with line ends and indentation, its tokens as they are; null where it is no object or array. */
  function laidOut(text) {
    if (!/^\s*[[{]/.test(text)) return null;
    try { JSON.parse(text); } catch { return null; }
    let out = "", depth = 0;
    const tokens = text.match(/"(?:[^"\\]|\\.)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g);
    const line = () => `\n${"  ".repeat(depth)}`;
    tokens.forEach((token, number) => {
      if (token === "}" || token === "]") {
        depth -= 1;
        out += (tokens[number - 1] === "{" || tokens[number - 1] === "[" ? "" : line()) + token;
      } else {
        if (number && (tokens[number - 1] === "," || tokens[number - 1] === "{" || tokens[number - 1] === "[")) out += line();
        out += token === ":" ? ": " : token;
        if (token === "{" || token === "[") depth += 1;
      }
    });
    return out;
  }

  function close() {
    const cell = opened;
    leave();
    if (!hits) showGrid();
    activate(cell, true);
  }

  function leave() {
    find("conversation").hidden = true;
    document.body.classList.remove("reading");
    opened = -1;
    history.replaceState(null, "", location.pathname + location.search);
  }

  // Costs and draws

  function showCosts() {
    const sides = compared ? ["one", "other"] : ["one"];
    const isCost = calls.cost.some((cost) => cost !== null && cost > 0);
    const of = (call) => (call < 0 ? 0 : isCost ? calls.cost[call] ?? 0 : (calls.input[call] ?? 0) + (calls.output[call] ?? 0));
    const sums = actors.map((name, actor) => {
      const found = sides.map(() => 0);
      for (let cell = starts[actor]; cell < starts[actor + 1]; cell++) sides.forEach((side, number) => { found[number] += of(cells[side][cell]); });
      return [name, found];
    });
    const size = ([, found]) => Math.max(...found);
    sums.sort((a, b) => size(b) - size(a));
    if (!sums.length || size(sums[0]) === 0) return;
    const rest = sums.splice(20);
    const largest = size(sums[0]), label = isCost ? dollars : (sum) => `${sum.toLocaleString("en")} tokens`;
    find("costs").hidden = false;
    find("costs-heading").textContent = `${isCost ? "Cost" : "Tokens"} by scope${rest.length ? `: the ${sums.length} largest of ${actors.length.toLocaleString("en")}` : ""}`;
    find("bars").replaceChildren(...sums.map(([name, found]) => make("tr", null, make("th", { scope: "row", dir: "auto" }, name),
      make("td", null, ...found.map((sum, number) => {
        const bar = make("span", { class: `bar side${number}` });
        bar.style.width = `${(60 * sum) / largest}%`;
        return make("div", null, bar, ` ${label(sum)}${compared ? (number ? " other run" : " this run") : ""}`);
      })))));
    if (rest.length) {
      const sum = rest.reduce((sofar, [, found]) => sofar + found[0], 0);
      find("bars").append(make("tr", null, make("th", { scope: "row" }, plural(rest.length, "more scope")), make("td", null, `together ${label(sum)}`)));
    }
  }

  let spreadShown = 0;
  function showSpread() {
    find("draws").hidden = !spread.length;
    const cellOf = new Map(cells.one.map((call, cell) => [call, cell]));
    for (const [drawn, counts] of spread.slice(spreadShown, spreadShown + 20)) {
      const last = asked(drawn[0], 1)[0];
      const item = make("div", { class: "question" }, make("button", { type: "button", class: "link", dir: "auto", onclick: () => open(cellOf.get(drawn[0])) },
        brief(last === undefined ? texts[calls.title[drawn[0]]] : textsOf(last).join(" "), 120)),
      make("p", { class: "dim" }, `${plural(drawn.length, "draw")}, ${plural(counts.length, "different answer")}`));
      const rows = counts.slice(0, 6).map(([answer, count]) => {
        const bar = make("span", { class: "bar side0" });
        bar.style.width = `${(70 * count) / drawn.length}%`;
        return make("tr", null, make("td", null, ...(counts[0][1] > 1 ? [bar] : []), ` ${count} ×`), make("td", { dir: "auto" }, brief(texts[answer], 100) || "(empty)"));
      });
      if (counts.length > 6) rows.push(make("tr", null, make("td", null, ""), make("td", null, `and ${counts.length - 6} more`)));
      item.append(make("table", { class: "answers" }, make("tbody", null, ...rows)));
      find("spread").append(item);
    }
    spreadShown += 20;
    find("more").hidden = spreadShown >= spread.length;
  }

  // Everything together

  function follow() {
    const cell = Number(/^#c(\d+)$/.exec(location.hash)?.[1] ?? NaN);
    if (cell === opened || !(cell < cells.actor.length)) return;
    if (hits && !hits.includes(cell)) { find("search").value = ""; find("changed").checked = false; search(); }
    show(cell);
  }

  let waiting = 0;
  const step = (columnsMoved) => { firstRound += columnsMoved; const top = box.scrollTop; showGrid(); box.scrollTop = top; fill(); };
  find("search").addEventListener("input", () => {
    if (opened >= 0 && !find("overview").offsetParent) leave(); // a narrow window shows the calls or the conversation
    clearTimeout(waiting);
    waiting = setTimeout(search, 60);
  });
  find("changed").addEventListener("change", search);
  document.querySelector(".tools").addEventListener("submit", (event) => { event.preventDefault(); if (hits?.length) open(hits[0]); });
  find("earlier").addEventListener("click", () => step(-columns));
  find("later").addEventListener("click", () => step(columns));
  find("previous").addEventListener("click", () => open(opened - 1));
  find("next").addEventListener("click", () => open(opened + 1));
  find("close").addEventListener("click", close);
  find("more").addEventListener("click", showSpread);
  box.addEventListener("scroll", fill);
  rows.addEventListener("keydown", move);
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); find("search").select(); find("search").focus(); }
    else if (event.key === "Escape" && typing) { find("search").value = ""; search(); }
    else if (event.key === "Escape" && opened >= 0) close();
  });
  addEventListener("hashchange", follow);
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) { fill(); return; }
    width = box.clientWidth;
    if (hits) fill(); else step(0);
  }).observe(box);
  addEventListener("beforeprint", () => {
    document.body.classList.add("printing");
    box.scrollTop = 0;
    fill();
    if (list.built.size < list.count) find("shown").textContent += `, the first ${list.built.size} of ${plural(list.count, "actor")}`;
  });
  addEventListener("afterprint", () => { document.body.classList.remove("printing"); if (!hits) showGrid(); });

  document.querySelector(".tools").hidden = false;
  find("overview").hidden = false;
  find("changed-label").hidden = find("legend").hidden = !compared;
  for (const item of document.querySelectorAll(".partings li")) item.replaceChildren(...changes(item.textContent));
  showGrid();
  showCosts();
  showSpread();
  follow();
  (globalThis.requestIdleCallback ?? setTimeout)(() => { lower ??= texts.map((text) => text.toLowerCase()); });
})();
