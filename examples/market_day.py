"""Play a day at a village market: five people, three goods, six rounds, every word from a language
model.

Then play the same day again with one person changed half-way, and show which answers stay and which
are asked again. `python market_day.py --help` says how to play a day of your own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field

import llmcall

USAGE = """\
A day at a village market: five people, three goods, six rounds, every word from a language model.

  %(prog)s            replay the recorded day: no key, no network, about two seconds
  %(prog)s --local    play your own day with a local model (extra "local"; LLMCALL_MODEL=any.gguf chooses it)
  %(prog)s --live     play your own day with the configured model

Your own day is kept in .llmcall. If you play it again, it is the same day, without a call. --fresh plays another day.
"""
FOLDER = pathlib.Path(__file__).parent
DAYS = ("market_day.jsonl", "market_day_changed.jsonl")  # the recorded days, beside this program
MODEL = "qwen2.5-coder-1.5b-instruct"  # of the recorded days: a file of 1.1 GB
# as in [Prices]: USD per million input and output tokens
PRICES = {MODEL: (0.10, 0.50)}
PRICED_AS = {MODEL: " at gpt-6-luna's price"}
WIDEST = 100  # characters in a line, even on a wider terminal
TRIES = 10  # how many times to ask somebody for new words
LOOSE_END = re.compile(
    r" (an?|and|are|at|but|by|for|ha[sv]e?|I|if|i[ns]|it's|my|o[fnr]|than|the|to|who|will|with).$"
)
OPENING = {"bread": 5, "apples": 3, "cheese": 7}
STEP = {"buy": 1, "sell": -1, "haggle": -1, "wait": 0}  # what a decision does to the price
TOPICS = (
    "the church bell",
    "Otto's goats",
    "the cheese",
    "Pip's frog",
    "the captain's ship",
    "the old bridge",
)


class Person(NamedTuple):
    """Somebody at the market, with a sample answer that shows the others what to do."""

    name: str
    who: str
    decision: str
    item: str
    says: str


PEOPLE = [
    Person(
        "Greta",
        "a cook with a hungry soup",
        "wait",
        "apples",
        "My soup still sleeps, the apples can wait.",
    ),
    Person(
        "Otto",
        "a farmer who loves his goats",
        "sell",
        "cheese",
        "My goat Berta signed this cheese.",
    ),
    Person("Mira", "a poet in love", "haggle", "bread", "I offer a short poem for a long bread."),
    Person(
        "Bruno",
        "a captain who fears water",
        "sell",
        "cheese",
        "This cheese has crossed the sea twice.",
    ),
    Person(
        "Pip", "a boy with a frog", "haggle", "apples", "Mother said apples, or was it candles?"
    ),
]


class Decision(BaseModel):
    """What somebody does, and says: one plain sentence, with one comma at most."""

    decision: Literal["buy", "sell", "haggle", "wait"]
    item: Literal["bread", "apples", "cheese"]
    says: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z' ]{11,75}(, [A-Za-z' ]{4,60})?[.!?]$")]


# What changes when the day is played a second time.
CHANGED, CHANGE, LOST = "Pip", 4, "a boy who lost his frog"

SYSTEM = """\
Play people at a village market. Each decides, and says one short, funny sentence. {{ heard | join(" ") }}

{% for person, prices in examples -%}
{{ person.name }}, {{ person.who }}. Prices: {{ prices }}.
{"decision": "{{ person.decision }}", "item": "{{ person.item }}", "says": "{{ person.says }}"}

{% endfor %}"""
USER = "{{ person.name }}, {{ person.who }}. Prices: {{ prices }}."
EXAMPLE_PRICES = (
    "bread 5, apples 3, cheese 7",
    "bread 4, apples 2, cheese 6",
    "bread 6, apples 4, cheese 8",
)
RUMOURS = [
    {
        "role": "system",
        "content": "You tell rumours at a village market. Each rumour is one short, funny sentence.",
    },
    {"role": "user", "content": "Tell a rumour about the baker."},
    {"role": "assistant", "content": "The baker's oven snores at night."},
    {"role": "user", "content": "Tell a rumour about the mayor."},
    {"role": "assistant", "content": "The mayor paid for his hat with a duck."},
    {"role": "user", "content": "Tell a rumour about a goat."},
    {"role": "assistant", "content": "The goat was seen reading the price list."},
]


class Market:
    """A market on which people talk and trade, one after the other.

    Inside a scope, a repeated question is a new draw, and each draw replays. So if a sentence has
    been heard before, the market simply asks again, and the day is still the same whenever you play
    it.

    :param changes: whether one person changes in round ``CHANGE``.
    :param earlier_keys: the keys of an earlier day's answers.
    :ivar keys: the keys of this day's answers.
    """

    def __init__(
        self,
        client: llmcall.LLMClient,
        changes: bool = False,
        earlier_keys: frozenset[str] = frozenset(),
    ) -> None:
        self.client, self.changes, self.earlier_keys = client, changes, earlier_keys
        self.keys: set[str] = set()
        self.ask = llmcall.LLMCall(
            system=SYSTEM,
            user=USER,
            output_type=Decision,
            client=client,
            temperature=0.8,
            max_tokens=90,
        )
        self.prices = dict(OPENING)
        self.spoken = [words for person in PEOPLE for words in (person.who, person.says)]
        self.spoken += [message["content"] for message in RUMOURS]
        self.heard: list[str] = []

    def rounds(self) -> Iterator[tuple[str, list[tuple[Person, Decision, bool]]]]:
        """Yield each round's rumour, with each person's decision and whether the earlier day did
        not have it.
        """
        with llmcall.scope("market day"):
            for number, topic in enumerate(TOPICS):
                rumour = self.rumour(topic)
                moves = [(person, *self.decision(person, number)) for person in PEOPLE]
                for _, move, _ in moves:
                    self.prices[move.item] = max(1, self.prices[move.item] + STEP[move.decision])
                yield rumour, moves

    def rumour(self, topic: str) -> str:
        """Ask for a rumour in free words."""
        question = [*RUMOURS, {"role": "user", "content": f"Tell a rumour about {topic}."}]
        with llmcall.scope("rumours"):
            for _ in range(TRIES):
                reply = self.client.send_message(
                    question, temperature=0.8, max_tokens=24, on_error="raise"
                )
                self.keys.add(reply.cache_key)
                if reply.finish_reason == "stop" and self.is_new(reply.content or ""):
                    break
        return self.remember(reply.content or "")

    def decision(self, person: Person, number: int) -> tuple[Decision, bool]:
        """Ask a person for a decision; the person knows the last words and the prices."""
        start = (PEOPLE.index(person) + number) % len(PEOPLE)
        other_people = [other for other in PEOPLE[start:] + PEOPLE[:start] if other is not person]
        examples = list(zip(other_people, EXAMPLE_PRICES, strict=False))
        if self.changes and person.name == CHANGED and number + 1 >= CHANGE:
            person = person._replace(who=LOST)
        with llmcall.scope(person.name):
            for _ in range(TRIES):
                answer = self.ask.run(
                    person=person, prices=self.price_list(), heard=self.heard, examples=examples
                )
                move: Decision = answer.value
                self.keys.add(answer.reply.cache_key)
                stray = {person.name, *OPENING} - {move.item}
                if self.is_new(move.says) and not any(word in move.says for word in stray):
                    break
        self.remember(move.says, f"{person.name} just said: ")
        return move, answer.reply.cache_key not in self.earlier_keys

    def price_list(self) -> str:
        """Return the prices as people say them: ``bread 5, apples 3, cheese 7``."""
        return ", ".join(f"{item} {price}" for item, price in self.prices.items())

    def remember(self, words: str, speaker: str = "") -> str:
        """Remember words: nobody says them again, and the next two speakers hear them."""
        self.spoken.append(words)
        self.heard = [*self.heard[-1:], speaker + words]
        return words

    def is_new(self, sentence: str) -> bool:
        """Return whether a sentence is short, complete and unlike everything said before."""
        words, *earlier_words = (
            set(re.findall(r"[a-z']+", text.lower())) for text in (sentence, *self.spoken)
        )
        if not re.fullmatch(r"[A-Z].{10,68}\w[.!?]", sentence) or LOOSE_END.search(sentence):
            return False
        return not any(len(words & earlier) > 0.6 * len(words) for earlier in earlier_words)


def paint(text: str, code: int) -> str:
    """Colour a text if it goes to a terminal and NO_COLOR is not set."""
    return (
        f"\033[{code}m{text}\033[0m"
        if sys.stdout and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        else text
    )


def say(text: str, indent: str = "", first: str = "") -> None:
    """Print a text in lines that fit the terminal.

    :param indent: the start of each line after the first.
    :param first: the start of the first line, coloured or not; as wide as ``indent`` unless that is
        empty.
    """
    width = min(shutil.get_terminal_size().columns, WIDEST)
    begin = " " * len(re.sub("\033\\[\\d+m", "", first))
    lines = textwrap.wrap(text, width, initial_indent=begin, subsequent_indent=indent)
    print("\n".join([first + lines[0][len(begin) :], *lines[1:]]))


def show(market: Market, since: int = 1) -> None:
    """Play the day, and print each round when it ends.

    :param since: the first round to print.
    """
    before = dict(market.prices)
    for number, (rumour, moves) in enumerate(market.rounds(), 1):
        changes = ", ".join(f"{item} {old} → {market.prices[item]}" for item, old in before.items())
        before = dict(market.prices)
        if number < since:
            continue
        say(f"They say: {rumour}", "  ", paint(f"\nRound {number}", 1) + " · ")
        for person, move, is_new in moves:
            mark = paint("*", 33) if market.earlier_keys and is_new else " "
            deed = paint(f"{move.decision:<6} {move.item:<6}", 36)
            say(move.says, " " * 24, f"{mark} {person.name:<6} {deed}  ")
        print(paint(f"  Prices {changes}", 2))


def is_own_day(arguments: argparse.Namespace) -> bool:
    """Return whether a model plays the day, instead of the recordings."""
    return bool(arguments.local or arguments.live)


def client_for(arguments: argparse.Namespace) -> llmcall.LLMClient:
    """Return the client of the recorded days, or the one that plays another day."""
    if not is_own_day(arguments):
        return llmcall.OpenAIClient(model=MODEL, models={MODEL: {"structured_output": True}})
    llmcall.configure(prices=PRICES, cache_mode="refresh" if arguments.fresh else "auto")
    return llmcall.client("local" if arguments.local else None)


def parser_of(program: str) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    :param program: the program's name.
    """
    parser = argparse.ArgumentParser(
        program, description=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--live", action="store_true", help="ask the configured model")
    parser.add_argument("--local", action="store_true", help="ask a local model")
    parser.add_argument(
        "--fresh", action="store_true", help="with --live or --local: play another day"
    )
    return parser


def main(program: str, *options: str) -> None:
    """Play a day and print what it took; then play it with another Pip and print what stayed.

    :param program: the program's name.
    :param options: its options.
    """
    arguments = parser_of(program).parse_args(options)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(client_for(arguments)) as client,
    ):
        days_folder, mode = (folder, "once") if is_own_day(arguments) else (FOLDER, "none")
        first_day, second_day = (pathlib.Path(days_folder, name) for name in DAYS)
        first = Market(client)
        say(f"Opening prices: {first.price_list()}")
        with llmcall.track() as usage, llmcall.cassette(first_day, mode=mode):
            began = time.perf_counter()
            show(first)
            seconds = time.perf_counter() - began
        print()
        say(took(usage, seconds))
        print()
        say(
            f"What if {CHANGED} is {LOST} from round {CHANGE} on? The same day again; * marks new answers:"
        )
        with llmcall.cassette(second_day, mode=mode):
            show(Market(client, changes=True, earlier_keys=frozenset(first.keys)), since=CHANGE)
        comparison = llmcall.compare(first_day, second_day)
        new = comparison.changed + comparison.added
        print()
        say(
            f"The second day took {comparison.same + new} answers: {comparison.same} of the first day, and "
            f"{new} new ones, for {CHANGED} and for everybody who heard {CHANGED} or each other."
        )
        say("Nothing else was asked again. To play a day of your own:")
        print(f"  {program} --help")  # whole on any terminal, to be pasted


def took(usage: llmcall.types.Usage, seconds: float) -> str:
    """Say what a day took."""
    model = ", ".join(usage.by_model)
    total = None if usage.cost is None or usage.saved is None else usage.cost + usage.saved
    price = "" if total is None else f", worth ${total:.4f}{PRICED_AS.get(model, '')}"
    if usage.calls:
        new, old = usage.calls, usage.cached_calls
        return (
            f"That day took {new} new answers in {seconds:.1f} s, and {old} recorded ones{price}."
        )
    return (
        f"That day took {usage.cached_calls} answers{price}. All are recorded: no key, no call, and the "
        "same words on every machine. (A sentence that was too long or said before was asked for again.)"
    )


if __name__ == "__main__":
    # Python as it was called: after "make demo", the shell's own python may lack llmcall
    main(shlex.join([sys.orig_argv[0], sys.argv[0]]), *sys.argv[1:])
