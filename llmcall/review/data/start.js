// Everything together.

let waiting = 0;
find("search").addEventListener("input", () => {
  if (openedCell >= 0 && !find("overview").offsetParent) leave(); // a narrow window shows the calls or the conversation
  clearTimeout(waiting);
  waiting = setTimeout(search, 60);
});
for (const name of ["only", "model"]) find(name).addEventListener("change", search);
document.querySelector(".tools").addEventListener("submit", (event) => {
  event.preventDefault();
  if (hits?.length) open(hits[0]);
});
find("earlier").addEventListener("click", () => step(-columns));
find("later").addEventListener("click", () => step(columns));
find("previous").addEventListener("click", () => open(openedCell - 1));
find("next").addEventListener("click", () => open(openedCell + 1));
find("close").addEventListener("click", close);
box.addEventListener("scroll", fill);
rows.addEventListener("keydown", move);
document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    find("search").select();
    find("search").focus();
  } else if (event.key === "Escape" && isTyping) {
    find("search").value = "";
    search();
  } else if (event.key === "Escape" && openedCell >= 0) close();
});
addEventListener("hashchange", follow);
let boxWidth = 0;
new ResizeObserver(() => {
  if (box.clientWidth === boxWidth) { fill(); return; }
  boxWidth = box.clientWidth;
  if (hits) fill(); else step(0);
}).observe(box);
addEventListener("beforeprint", buildPaper);
addEventListener("afterprint", () => find("paper").replaceChildren());

document.querySelector(".tools").hidden = false;
find("overview").hidden = false;
find("legend").hidden = !isCompared;
for (const item of document.querySelectorAll(".partings li")) item.replaceChildren(...changes(item.textContent));
offerFilters();
showSurvey();
showGrid();
showCosts();
follow();
(globalThis.requestIdleCallback ?? setTimeout)(() => { lowerTexts ??= texts.map((text) => text.toLowerCase()); });
