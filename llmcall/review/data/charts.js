// Pictures: the answers of a survey, and what actors cost.

const SHADES = 8; // colours of a distribution; the values that have none are (in parentheses)

// A survey

function showSurvey() {
  find("survey").hidden = !survey.length;
  find("distributions").replaceChildren(...survey.map(({ field, values, rows: groupCounts }) => {
    const shades = shadesOf(values);
    const legend = values.map((value, number) => make("span", { class: "key" }, make("span", { class: `swatch ${shades[number]}` }), ` ${value}`));
    const lines = groupCounts.map(([group, counts]) => {
      const sum = counts.reduce((total, number) => total + number, 0);
      const segments = counts.map((number, index) => [number, values[index], shades[index]]).filter(([number]) => number);
      const bar = make("div", { class: "stack", "aria-hidden": "true" }, ...segments.map(([number, value, shade]) => {
        const share = number / sum;
        const piece = make("span", { class: shade, title: `${value}: ${number} of ${sum} (${percent(share)})` }, share > 0.12 ? percent(share) : "");
        piece.style.flexGrow = number;
        return piece;
      }));
      const words = segments.map(([number, value]) => `${value}: ${number}`).join(", ");
      return make("tr", null, make("th", { scope: "row", dir: "auto" }, group),
        make("td", null, bar, make("span", { class: "hidden" }, words)), make("td", { class: "number" }, sum.toLocaleString("en")));
    });
    return make("div", { class: "distribution" }, make("h3", { dir: "auto" }, field),
      make("div", { class: "legend", dir: "auto" }, ...legend),
      make("table", { class: "stacks", "aria-label": field }, make("tbody", null, ...lines)));
  }));
}

const percent = (share) => `${Math.round(100 * share)}%`;

const NO_VALUE = { "(refused)": "shade-refused", "(cut)": "shade-cut" };

/** Return the class that colours each value; why an answer has no value is grey or red. */
function shadesOf(values) {
  let number = 0;
  return values.map((value) => NO_VALUE[value] ?? (/^\(.*\)$/.test(value) ? "shade-none" : `shade-${number++ % SHADES}`));
}

// Costs

const LARGEST = 20;

function showCosts() {
  const sides = isCompared ? ["one", "other"] : ["one"];
  const isCost = calls.cost.some((cost) => cost !== null && cost > 0);
  const numbers = isCost ? [calls.cost] : [calls.input, calls.output];
  const amountOf = (call) => {
    const amounts = numbers.map((each) => each[call] ?? null).filter((number) => number !== null);
    return { known: amounts.length ? amounts.reduce((total, number) => total + number) : null, unknown: calls.by_model[call] && !amounts.length ? 1 : 0 };
  };
  const sums = rowNames.map((name, row) => [name, sides.map((side) => sumOf(cells[side].slice(starts[row], starts[row + 1]).map(amountOf)))]);
  const size = ([, totals]) => Math.max(...totals.map(({ known }) => known));
  sums.sort((first, second) => size(second) - size(first));
  // A picture of bars that are all alike, or of nothing known, says nothing.
  if (survey.length || !size(sums[0] ?? ["", [0]]) || sums.length < 2 || size(sums[0]) < 1.5 * size(sums[sums.length - 1])) return;
  const rest = sums.splice(LARGEST);
  const largest = size(sums[0]), format = isCost ? dollars : (sum) => `${sum.toLocaleString("en")} tokens`;
  const label = ({ known, unknown }, number) => {
    const amount = known === null ? (unknown ? "unknown" : "no answer of a model") : format(known) + (unknown ? `, ${unknown.toLocaleString("en")} unknown` : "");
    return isCompared ? `${amount} ${number ? "other run" : "this run"}` : amount;
  };
  find("costs").hidden = false;
  find("costs-heading").textContent = `${isCost ? "Cost" : "Tokens"} by scope${rest.length ? `: the ${sums.length} largest of ${rowNames.length.toLocaleString("en")}` : ""}`;
  find("bars").replaceChildren(...sums.map(([name, totals]) => make("tr", null, make("th", { scope: "row", dir: "auto" }, name),
    make("td", null, ...totals.map((total, number) => make("div", null, bar((60 * total.known) / largest, number), ` ${label(total, number)}`))))));
  if (rest.length) {
    const totals = sides.map((_, number) => sumOf(rest.map(([, each]) => each[number])));
    find("bars").append(make("tr", null, make("th", { scope: "row" }, plural(rest.length, "more scope")),
      make("td", null, ...totals.map((total, number) => make("div", null, `together ${label(total, number)}`)))));
  }
}

/** Return the sum of what is known (null if nothing is), and of how many answers it is unknown. */
function sumOf(amounts) {
  return amounts.reduce((total, { known, unknown }) => ({
    known: known === null ? total.known : total.known + known, unknown: total.unknown + unknown,
  }), { known: null, unknown: 0 });
}

function bar(width, side) {
  const element = make("span", { class: `bar side${side}` });
  element.style.width = `${width}%`;
  return element;
}
