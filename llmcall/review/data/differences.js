// Two texts side by side: which words of each the other lacks.

const MOST_WORDS = 1500; // of a text that is compared word by word; beyond, its middle is marked as a whole

/** Return the pieces of a text, and whether each is one that another text lacks. */
function pieces(text, other) {
  const words = text.match(WORD) ?? [], otherWords = other.match(WORD) ?? [];
  let begin = 0;
  while (begin < words.length && begin < otherWords.length && words[begin] === otherWords[begin]) begin++;
  let end = 0;
  while (end < words.length - begin && end < otherWords.length - begin && words[words.length - 1 - end] === otherWords[otherWords.length - 1 - end]) end++;
  const middle = words.slice(begin, words.length - end);
  const isCommon = inCommon(middle, otherWords.slice(begin, otherWords.length - end));
  const segments = [];
  const add = (word, isNew) => {
    const last = segments[segments.length - 1];
    if (last && last[1] === isNew) last[0] += word;
    else segments.push([word, isNew]);
  };
  words.slice(0, begin).forEach((word) => add(word, false));
  middle.forEach((word, number) => add(word, !isCommon[number]));
  words.slice(words.length - end).forEach((word) => add(word, false));
  return segments;
}

const WORD = /[\p{L}\p{N}_'’]+|\s+|[^]/gu;

/** Return which words of a list stand in its longest common subsequence with another. */
function inCommon(words, otherWords) {
  const isCommon = words.map(() => false);
  if (words.length > MOST_WORDS || otherWords.length > MOST_WORDS) return isCommon;
  const width = otherWords.length + 1;
  const lengths = new Uint16Array((words.length + 1) * width); // of the common subsequence from i and j on
  for (let i = words.length - 1; i >= 0; i--) {
    for (let j = otherWords.length - 1; j >= 0; j--) {
      lengths[i * width + j] = words[i] === otherWords[j] ? lengths[(i + 1) * width + j + 1] + 1
        : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < words.length && j < otherWords.length;) {
    if (words[i] === otherWords[j]) { isCommon[i] = true; i++; j++; }
    else if (lengths[(i + 1) * width + j] >= lengths[i * width + j + 1]) i++;
    else j++;
  }
  return isCommon;
}

/** Return the messages of another call that stand beside those that differ: the same place among those of their role. */
function counterparts(ours, theirs) {
  const candidates = theirs.filter((message) => !ours.includes(message));
  const pairs = new Map();
  for (const message of ours.filter((each) => !theirs.includes(each))) {
    const index = candidates.findIndex((each) => messages[each][0] === messages[message][0]);
    if (index >= 0) pairs.set(message, candidates.splice(index, 1)[0]);
  }
  return pairs;
}
