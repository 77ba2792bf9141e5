
// A page of many calls: all actors with their counts, and the calls of one part of them at a time.

const parts = document.querySelectorAll("script.part");
const { names, from, to, ...counts } = JSON.parse(find("index").textContent);
const { calls: callCounts, differing, ...marked } = counts; // by row
const blank = [".tools", ".columns"].map((selector) => document.querySelector(selector).cloneNode(true));
const dataOf = (part) => JSON.parse(parts[part].textContent);
let shownPart = -1, shown = null, ending = new AbortController();

function showPart(part) {
  ending.abort();
  ending = new AbortController();
  shownPart = part;
  for (const element of blank) document.querySelector(`.${element.classList[0]}`).replaceWith(element.cloneNode(true));
  document.body.classList.remove("reading");
  find("earlier").disabled = part === 0;
  find("later").disabled = part + 1 === parts.length;
  const ends = [...new Set([names[from[part]], names[to[part]]])].join(" to ");
  find("part").textContent = `part ${(part + 1).toLocaleString("en")} of ${parts.length.toLocaleString("en")}: ${ends}`;
  shown = showCalls(dataOf(part), ending.signal);
}

/** Show the part with an actor's first calls, or with the first that have the words, and go to them. */
function choose(row) {
  const part = foundIn[row] ?? to.findIndex((last) => last >= row);
  if (part !== shownPart) showPart(part);
  if (find("search").value !== find("words").value) {
    find("search").value = find("words").value;
    shown.search();
  }
  shown.goTo(row - from[part]);
}

// The list of actors: only those in sight are built.

const ACTOR = 28; // pixels
const KINDS = { differing: ["only what differs", "differ"], ...Object.fromEntries(Object.keys(marked).map((mark) => [mark, [mark, mark]])) };
let found = null, foundIn = []; // how many calls of each actor have the words, and the first part with one
let rows = names.map((_, row) => row);

function fillActors() {
  const list = find("list"), begin = Math.max(0, Math.floor(list.scrollTop / ACTOR) - 2);
  const inSight = rows.slice(begin, begin + Math.ceil(list.clientHeight / ACTOR) + 4);
  find("names").style.height = `${rows.length * ACTOR}px`;
  find("names").replaceChildren(...inSight.map((row, place) => {
    const words = [plural(callCounts[row], "call"), ...Object.entries(KINDS).filter(([name]) => counts[name][row]).map(([name, [, word]]) => `${counts[name][row].toLocaleString("en")} ${word}`)];
    if (found) words.unshift(`${found[row].toLocaleString("en")} found`);
    const button = make("button", { type: "button", class: "actor", onclick: () => choose(row) }, make("span", { dir: "auto" }, names[row]), make("span", { class: "about" }, words.join(" · ")));
    button.style.top = `${(begin + place) * ACTOR}px`;
    return make("div", { role: "listitem", "aria-posinset": begin + place + 1, "aria-setsize": rows.length }, button);
  }));
}

function filterActors() {
  const kind = find("which").value;
  rows = names.map((_, row) => row).filter((row) => (!kind || counts[kind][row]) && (!found || found[row]));
  find("list").scrollTop = 0;
  fillActors();
}

let searches = 0;

async function searchAll() {
  const terms = parse(find("words").value), number = ++searches;
  found = terms.length ? names.map(() => 0) : null;
  foundIn = [];
  for (let part = 0; part < parts.length && terms.length; part++) {
    const data = dataOf(part), tests = terms.map(readCalls(data).matcherOf);
    data.cells.row.forEach((row, cell) => {
      if (!tests.every((test) => test(cell))) return;
      found[from[part] + row]++;
      foundIn[from[part] + row] ??= part;
    });
    find("matches").textContent = `searching: ${Math.round((100 * part) / parts.length)} %`;
    await new Promise((go) => setTimeout(go));
    if (number !== searches) return;
  }
  const calls = found?.reduce((sum, count) => sum + count, 0), actors = found?.filter(Boolean).length;
  find("matches").textContent = found ? `${plural(calls, "call")} of ${plural(actors, "actor")}` : "";
  filterActors();
}

/** Show the call that the address names, in whichever part it is. */
function openLink() {
  const hash = location.hash, scope = decodeURIComponent(hash.slice(1, hash.lastIndexOf(":")));
  const quoted = JSON.stringify(scope).replaceAll("<", "\\u003c");
  for (let part = 0; part < parts.length && hash.includes(":"); part++) {
    if (!parts[part].textContent.includes(quoted)) continue;
    const data = dataOf(part), { linkOf } = readCalls(data);
    if (!data.cells.row.some((_, cell) => linkOf(cell) === hash)) continue;
    if (part !== shownPart) showPart(part);
    return true;
  }
  return false;
}

for (const [name, [words]] of Object.entries(KINDS)) {
  const actors = counts[name].filter(Boolean).length;
  if (actors) find("which").append(make("option", { value: name }, `${words} (${plural(actors, "actor")})`));
}
find("which-label").hidden = find("which").options.length < 2;
find("everywhere").addEventListener("submit", (event) => { event.preventDefault(); searchAll(); });
find("words").addEventListener("search", searchAll);
find("which").addEventListener("change", filterActors);
find("list").addEventListener("scroll", fillActors);
for (const [id, step] of [["earlier", -1], ["later", 1]]) find(id).addEventListener("click", () => showPart(shownPart + step));
addEventListener("hashchange", openLink);
find("actors").hidden = false;
new ResizeObserver(fillActors).observe(find("list"));
fillActors();
if (!openLink()) showPart(0);
