// Two texts side by side: which words of each the other lacks.

const MOST_WORDS = 1500; // of a text that is compared word by word; beyond, its middle is marked as a whole

/** Return the pieces of a text, and whether each is one that another text lacks. */
function pieces(text, other) {
  const one = text.match(WORD) ?? [], two = other.match(WORD) ?? [];
  let begin = 0;
  while (begin < one.length && begin < two.length && one[begin] === two[begin]) begin++;
  let end = 0;
  while (end < one.length - begin && end < two.length - begin && one[one.length - 1 - end] === two[two.length - 1 - end]) end++;
  const middle = one.slice(begin, one.length - end);
  const common = kept(middle, two.slice(begin, two.length - end));
  const found = [];
  const add = (word, isNew) => {
    const last = found[found.length - 1];
    if (last && last[1] === isNew) last[0] += word;
    else found.push([word, isNew]);
  };
  one.slice(0, begin).forEach((word) => add(word, false));
  middle.forEach((word, number) => add(word, !common[number]));
  one.slice(one.length - end).forEach((word) => add(word, false));
  return found;
}

const WORD = /[\p{L}\p{N}_'’]+|\s+|[^]/gu;

/** Return which words of a list stand in its longest common subsequence with another. */
function kept(one, two) {
  const found = one.map(() => false);
  if (one.length > MOST_WORDS || two.length > MOST_WORDS) return found;
  const width = two.length + 1;
  const lengths = new Uint16Array((one.length + 1) * width); // of the common subsequence from i and j on
  for (let i = one.length - 1; i >= 0; i--) {
    for (let j = two.length - 1; j >= 0; j--) {
      lengths[i * width + j] = one[i] === two[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < one.length && j < two.length;) {
    if (one[i] === two[j]) { found[i] = true; i++; j++; }
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
    else j++;
  }
  return found;
}

/** Return the messages of another call that stand beside those that differ: the same place among those of their role. */
function counterparts(ours, theirs) {
  const left = theirs.filter((message) => !ours.includes(message));
  const found = new Map();
  for (const message of ours.filter((each) => !theirs.includes(each))) {
    const at = left.findIndex((each) => messages[each][0] === messages[message][0]);
    if (at >= 0) found.set(message, left.splice(at, 1)[0]);
  }
  return found;
}
