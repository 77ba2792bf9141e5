"""Which earlier answers a prompt quotes: who said what to whom.

An answer is known by its words, as a comparison of runs knows it (see :mod:`.quotes`): the whole, its
beginning, a line, or a field of its JSON. A short one, such as "yes", counts only behind the name of
who said it, or as a message of its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..display.formatting import OF_NO_ACTOR, counted, one_line
from ..display.printable import printable
from .conversations import ANSWERING_ROLE
from .forms import Form, forms
from .quotes import CUT_WORDS, KEY_WORDS, LONG_ANSWER
from .texts import Text, text_of

if TYPE_CHECKING:
    from .conversations import Call
    from .runs import RecordedRun

Words = tuple[str, ...]

NAME_WORDS = 4  # words before a short quote among which the name must be
# With the same words or beginning; if more answers have them, a quote says nothing.
MOST_ANSWERS = 200
CALLS_AHEAD = 1  # calls by which actors may be ahead of each other
QUOTE_CHARACTERS = 60  # characters of a quote
END_TOKENS = 4
ACTORS_SHOWN = 8
_END = re.compile(r"\s*(…|\.\.\.|\[\.\.\.\]|[\"'”»\n]|\Z)")


class CallPosition(NamedTuple):
    """A call, or its answer: the actor, and the place among that actor's calls, from 0."""

    actor: str
    place: int


class Heard(NamedTuple):
    """An answer that a prompt quotes.

    :param message: the number of the message that quotes it, from 1.
    :param actor: who gave the answer.
    :param call: the number of the call among that actor's, from 1.
    :param text: the words of the message that quote it.
    :param others: how many other answers have the same words.
    """

    message: int
    actor: str
    call: int
    text: str
    others: int

    def in_words(self) -> str:
        """Return it as a line."""
        source = f"{printable(self.actor)}, call {self.call}"
        if self.others:
            source += f", or {counted(self.others, 'other answer')} with the same words"
        quote = printable(one_line(self.text, QUOTE_CHARACTERS))
        return f'message {self.message} quotes {source}: "{quote}"'


class QuotedWords(NamedTuple):
    """Words of a text that some answers have.

    :param begin: the number of the first word.
    :param end: the number of the word after the last one.
    :param size: the characters of these words.
    :param sources: the answers.
    """

    begin: int
    end: int
    size: int
    sources: tuple[CallPosition, ...]


class AnswerIndex:
    """The answers of a run, by the words with which they begin.

    :param run: the run.
    :param conversations: its calls by actor.
    """

    def __init__(self, run: RecordedRun, conversations: Mapping[str, Sequence[Call]]) -> None:
        self._run = run
        self._calls = conversations
        self._by_words: dict[Words, dict[Words, dict[CallPosition, None]]] = {}
        self._by_beginning: dict[Words, dict[Words, dict[CallPosition, None]]] = {}
        self._quotes_by_text: dict[str, tuple[QuotedWords, ...]] = {}
        self._names = {
            actor: [set(text_of(name).words) for name in actor.split("/")]
            for actor in conversations
        }
        for actor, calls in conversations.items():
            for place, call in enumerate(calls):
                for form in forms(call.record, run.normalize).values():
                    self._add(form, CallPosition(actor, place))

    def _add(self, form: Form, source: CallPosition) -> None:
        if not form.words:
            return
        sources_by_words = self._by_words.setdefault(form.words[:KEY_WORDS], {})
        sources_by_words.setdefault(form.words, {})[source] = None
        if len(form.words) > CUT_WORDS and form.size > LONG_ANSWER:
            sources_by_words = self._by_beginning.setdefault(form.words[:CUT_WORDS], {})
            sources_by_words.setdefault(form.words, {})[source] = None

    def heard(self, actor: str, place: int, first: int = 0) -> Iterator[Heard]:
        """Yield the earlier answers that the prompt of a call quotes, in the order of its words.

        :param actor: who made the call.
        :param place: the call's place among the actor's, from 0.
        :param first: the number of the first message that is looked at, from 0.
        """
        call = self._calls[actor][place]
        for number, message in enumerate(call.messages[first:], first + 1):
            for text in message.texts:
                is_own = message.role == ANSWERING_ROLE
                yield from self._heard_in(text, number, CallPosition(actor, place), is_own=is_own)

    def _heard_in(
        self, text: str, number: int, quoting_call: CallPosition, *, is_own: bool
    ) -> Iterator[Heard]:
        """Yield what a message quotes.

        :param is_own: whether it may repeat the actor's own answer, as a chat's history does.
        """
        tokenized = text_of(text)
        end = 0
        for quote in self._quotes(text):
            if quote.begin < end:
                continue
            earlier = [each for each in quote.sources if self._may_come_before(each, quoting_call)]
            if len(tokenized.words) > quote.end - quote.begin and quote.size < LONG_ANSWER:
                before = tokenized.words[max(0, quote.begin - NAME_WORDS) : quote.begin]
                earlier = [each for each in earlier if self._is_named(each.actor, before)]
            own = [each for each in earlier if each.actor == quoting_call.actor]
            if is_own and own:
                earlier = own
            if earlier:
                end = quote.end
                source = max(
                    earlier, key=lambda each: self._nearness(each, quoting_call, quote, tokenized)
                )
                begin = tokenized.word_tokens[quote.begin]
                last = tokenized.word_tokens[quote.end - 1]
                quoted_text = "".join(tokenized.tokens[begin : last + 1])
                yield Heard(number, source.actor, source.place + 1, quoted_text, len(earlier) - 1)

    def _may_come_before(self, source: CallPosition, quoting_call: CallPosition) -> bool:
        """Return whether an answer may have come before a call.

        A recording keeps no order between actors. So another's answer may have, unless it stands in
        a later round, or clearly later among its actor's calls. A call outside the rounds may read or
        precede them all.
        """
        if source.actor == quoting_call.actor:
            return source.place < quoting_call.place
        if self._run.rounds is not None:
            rounds = self._round_number(source), self._round_number(quoting_call)
            return -1 in rounds or rounds[0] <= rounds[1]
        is_later = source.place > quoting_call.place + CALLS_AHEAD
        return not (is_later and self._progress(source) > self._progress(quoting_call))

    def _round_number(self, position: CallPosition) -> int:
        call = self._calls[position.actor][position.place]
        return self._run.round_number(call.record)

    def _progress(self, position: CallPosition) -> float:
        return position.place / len(self._calls[position.actor])

    def _nearness(
        self, source: CallPosition, quoting_call: CallPosition, quote: QuotedWords, tokenized: Text
    ) -> tuple[Any, ...]:
        """Return what is largest for the likeliest source of a quote: one that the text names, of
        an earlier round, and of these the last.
        """
        before = tokenized.words[max(0, quote.begin - NAME_WORDS) : quote.begin]
        return self._is_named(source.actor, before), source.place < quoting_call.place, source.place

    def _is_named(self, actor: str, words: Collection[str]) -> bool:
        """Return whether some words name an actor, by a level of its scope path."""
        return any(name and name <= set(words) for name in self._names[actor])

    def _quotes(self, text: str) -> tuple[QuotedWords, ...]:
        if text not in self._quotes_by_text:
            self._quotes_by_text[text] = tuple(self._find_quotes(text_of(text)))
        return self._quotes_by_text[text]

    def _find_quotes(self, text: Text) -> Iterator[QuotedWords]:
        """Yield the quotes in a text from left to right, each time the longest."""
        begin = 0
        while begin < len(text.words):
            quote = max(
                (*self._whole_quotes(text.words, begin), *self._cut_quotes(text, begin)),
                key=lambda each: each.end,
                default=None,
            )
            if quote is not None:
                yield quote
            begin = begin + 1 if quote is None or quote.size < LONG_ANSWER else quote.end

    def _whole_quotes(self, words: Words, begin: int) -> Iterator[QuotedWords]:
        for length in range(1, KEY_WORDS + 1):
            candidates = self._by_words.get(words[begin : begin + length])
            for count in {len(each) for each in candidates or ()}:
                sources = candidates.get(words[begin : begin + count]) if candidates else None
                if sources and len(sources) <= MOST_ANSWERS and begin + count <= len(words):
                    yield _quote(words, begin, begin + count, sources)

    def _cut_quotes(self, text: Text, begin: int) -> Iterator[QuotedWords]:
        """Yield the answers of which a text has the beginning, and then ends or breaks off."""
        words = text.words
        candidates = self._by_beginning.get(words[begin : begin + CUT_WORDS], {})
        for form, sources in candidates.items() if len(candidates) <= MOST_ANSWERS else ():
            most = min(len(form), len(words) - begin)
            count = next(
                (index for index in range(most) if form[index] != words[begin + index]), most
            )
            if count < most and form[count].startswith(words[begin + count]):  # a word that was cut
                count += 1
            if KEY_WORDS <= count < len(form) and _breaks_off(text, begin + count):
                yield _quote(words, begin, begin + count, sources)


def _breaks_off(text: Text, end: int) -> bool:
    """Return whether what was quoted ends before a word: with the text, its line, or an ellipsis."""
    begin = text.word_tokens[end - 1] + 1
    return _END.match("".join(text.tokens[begin : begin + END_TOKENS])) is not None


def _quote(words: Words, begin: int, end: int, sources: Iterable[CallPosition]) -> QuotedWords:
    return QuotedWords(begin, end, sum(map(len, words[begin:end])), tuple(sources))


# One call


def call_position(
    run: RecordedRun, calls: Mapping[str, Sequence[Call]], scope: str, number: int
) -> tuple[str, int]:
    """Return the actor that made a call, and the call's place among its calls, from 0.

    :param calls: those of the run, by actor.
    :param scope: the actor, or the whole scope path of the call if rounds are a level of it.
    :param number: the call's number in it, from 1.
    :raises ValueError: if the run has no such call.
    """
    if scope in calls:
        positions = [(scope, place) for place in range(len(calls[scope]))]
    else:
        positions = [
            (actor, place)
            for actor, actor_calls in calls.items()
            for place, call in enumerate(actor_calls)
            if call.record.scope == scope
        ]
    if not positions:
        names = [printable(actor) or OF_NO_ACTOR for actor in list(calls)[:ACTORS_SHOWN]]
        more = f" and {len(calls) - ACTORS_SHOWN:,} more" if len(calls) > ACTORS_SHOWN else ""
        raise ValueError(f"{run.name} has no scope {scope!r}; it has {', '.join(names)}{more}")
    if not 1 <= number <= len(positions):
        count = counted(len(positions), "call")
        raise ValueError(
            f"{scope!r} has no call {number} in {run.name}; it has {count}, numbered from 1"
        )
    return positions[number - 1]


def heard_lines(name: str, actor: str, quotes: Sequence[Heard]) -> Iterator[str]:
    """Yield what a prompt quotes, a line each; an actor's own answers, which its history repeats,
    in one.

    :param name: what the call is called.
    """
    yield name
    own_quotes = [each for each in quotes if each.actor == actor]
    other_quotes = [each for each in quotes if each.actor != actor]
    if own_quotes:
        messages, calls = {each.message for each in own_quotes}, {each.call for each in own_quotes}
        repeats = "repeat" if len(messages) > 1 else "repeats"
        answers = f"its own answers of {_numbers_in_words('call', calls)}"
        yield f"{_numbers_in_words('message', messages)} {repeats} {answers}"
    yield from (each.in_words() for each in other_quotes)
    if not other_quotes:
        yield "no message quotes an earlier answer of another actor"


def _numbers_in_words(noun: str, numbers: Collection[int]) -> str:
    """Return numbers in words: "messages 3, 5 to 7"."""
    stretches: list[list[int]] = []
    for number in sorted(numbers):
        if not stretches or stretches[-1][-1] != number - 1:
            stretches.append([])
        stretches[-1].append(number)
    words = [str(each[0]) if len(each) == 1 else f"{each[0]} to {each[-1]}" for each in stretches]
    return f"{noun}{'s' if len(numbers) > 1 else ''} {', '.join(words)}"
