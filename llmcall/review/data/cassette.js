"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const articles = all("article");
  const scopes = all("details.scope").map((element) => ({
    element,
    link: document.querySelector(`a[data-scope="${element.id}"]`).parentElement,
    articles: Array.from(element.querySelectorAll("article")),
  }));
  const search = find("search");
  const marks = typeof Highlight === "function" && CSS.highlights ? new Highlight() : null;
  if (marks) CSS.highlights.set("found", marks);
  let texts = null;

  function mark(article, words) {
    const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue;
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          const range = document.createRange();
          range.setStart(node, at);
          range.setEnd(node, at + word.length);
          marks.add(range);
        }
      }
    }
  }

  function unfoldHits(article, words) {
    for (const fold of article.querySelectorAll("details")) {
      const text = fold.textContent.toLowerCase();
      if (words.some((word) => text.includes(word))) fold.open = true;
    }
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    texts ??= new Map(articles.map((article) => [article, article.textContent.toLowerCase()]));
    if (marks) marks.clear();
    let count = 0;
    for (const scope of scopes) {
      const path = scope.element.firstElementChild.textContent.toLowerCase();
      let here = 0;
      for (const article of scope.articles) {
        const text = texts.get(article);
        const hit = words.every((word) => text.includes(word) || path.includes(word));
        article.hidden = !hit;
        if (!hit) continue;
        here += 1;
        if (words.length) unfoldHits(article, words);
        if (words.length && marks && count + here <= 500) mark(article, words);
      }
      scope.element.hidden = scope.link.hidden = !here;
      if (here && words.length) scope.element.open = true;
      count += here;
    }
    find("nothing").hidden = count > 0 || !articles.length;
    find("found").textContent = words.length ? `${count} of ${articles.length}` : "";
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 80);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== search) {
      event.preventDefault();
      search.select();
    } else if (event.key === "Escape" && document.activeElement === search) {
      search.value = "";
      filter();
    }
  });
  find("fold").addEventListener("click", () => scopes.forEach((scope) => { scope.element.open = false; }));
  find("unfold").addEventListener("click", () => all("details").forEach((each) => { each.open = true; }));

  function show() {
    const target = location.hash && find(location.hash.slice(1));
    if (!target) return;
    if (target.closest("[hidden]")) {
      search.value = "";
      filter();
    }
    for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", show);
  document.querySelector(".tools").hidden = false;
  show();
})();
