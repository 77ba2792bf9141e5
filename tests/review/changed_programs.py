"""Random programs of people who talk to a model, changed in known places.

A program notes who asked what when, and what it was answered. So it knows, beside the recordings,
which calls of two versions are the same one, and which of them were changed on purpose.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from servers import completion

import llmcall

NAMES = ("ada", "ben", "cleo", "dan", "eve")
TRAITS = ("thrifty", "curious", "careful")
# Who asks: one after the other, or at the same time
WAYS = ("in turn", "threads", "pool", "tasks", "map")
# What names the actors: the program's scopes, --actor system, or nothing
NAMINGS = ("scopes", "system", "nothing")


class Said(NamedTuple):
    """One call, as the program saw it.

    :param scope: the actor's scope path, without the run's own level.
    :param who: the person, and the number of the call.
    :param own: what the program's text says, without what the person heard and remembers.
    """

    scope: str
    who: tuple[str, int]
    request: dict[str, Any]
    answer: str
    own: str


@dataclass(frozen=True)
class Person:
    """One person, and what it asks in each round."""

    name: str
    trait: str
    questions: tuple[str, ...]
    model: str = "m-1"
    parameters: tuple[tuple[str, float], ...] = (("temperature", 1.0),)
    luck: int = 0  # of the draws: another one gives other answers to the same requests


@dataclass(frozen=True)
class Program:
    """A program.

    :param hears: whether each question has what the others were answered in the round before.
    :param remembers: whether the conversation so far is sent along.
    :param has_system: whether a person is described in a system message; else in each question.
    :param has_memory: whether the system message has what a person heard, and not the question.
    :param timing: of the pauses, which decide what is recorded first.
    """

    people: tuple[Person, ...]
    way: str
    naming: str
    hears: bool
    remembers: bool
    has_system: bool
    has_memory: bool = False
    timing: int = 0

    @property
    def rounds(self) -> int:
        """Return the number of rounds."""
        return max(len(person.questions) for person in self.people)

    def record(self, path: Path) -> list[Said]:
        """Record the program in a cassette, and return its calls, each person's in order."""
        actor = "system" if self.naming == "system" else None
        path.unlink(missing_ok=True)
        with llmcall.cassette(path, mode="new", actor=actor):
            return Play(self).play()


class Play:
    """One run of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.said: list[Said] = []
        self._heard: list[str] = []
        self._histories: list[list[dict[str, str]]] = [[] for _ in program.people]
        self._pauses = random.Random(program.timing)
        self._lock = threading.Lock()
        self._town = llmcall.scope("town")

    def play(self) -> list[Said]:
        """Let each person ask, round by round."""
        ask = {"in turn": self._in_turn, "tasks": self._in_tasks, "map": self._in_map}
        if self.program.hears or self.program.way == "map":
            for number in range(self.program.rounds):
                answers = ask.get(self.program.way, self._in_threads)([number])
                names = map(self._item, self._people)  # in whatever order they were asked
                self._heard = [answer for _, answer in sorted(zip(names, answers, strict=True))]
        else:  # nobody waits for the others
            ask.get(self.program.way, self._in_threads)(range(self.program.rounds))
        order = {id(said): place for place, said in enumerate(self.said)}
        return sorted(self.said, key=lambda said: (said.who[0], order[id(said)]))

    def _in_turn(self, rounds: Any) -> list[str]:
        answers: list[str] = []
        for number in rounds:
            with self._client() as client:
                answers = [self._ask(who, number, client) for who in self._people]
        return answers

    @property
    def _people(self) -> range:
        return range(len(self.program.people))

    def _in_threads(self, rounds: Any) -> list[str]:
        answers = [""] * len(self._people)

        def speak(who: int) -> None:
            with self._client() as client:
                for number in rounds:
                    self._pause()
                    answers[who] = self._ask(who, number, client)

        if self.program.way == "pool":
            with ThreadPoolExecutor(3) as pool:
                for done in [pool.submit(speak, who) for who in self._people]:
                    done.result()
            return answers
        threads = [threading.Thread(target=speak, args=[who]) for who in self._people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return answers

    def _in_tasks(self, rounds: Any) -> list[str]:
        answers = [""] * len(self._people)

        async def speak(who: int, client: httpx.AsyncClient) -> None:
            for number in rounds:
                await asyncio.sleep(self._wait())
                call = self._call(who, number)
                if call is not None:
                    with self._scope(who):
                        response = await client.post("/chat/completions", **call)
                    answers[who] = self._note(who, number, call, response)

        async def speak_all() -> None:
            transport = httpx.MockTransport(self._respond_async)
            async with httpx.AsyncClient(base_url=ADDRESS, transport=transport) as client:
                await asyncio.gather(*(speak(who, client) for who in self._people))

        asyncio.run(speak_all())
        return answers

    def _in_map(self, rounds: Any) -> list[str]:
        [number] = rounds
        answers = [""] * len(self._people)

        def speak(who: int) -> None:
            with self._client() as client:
                self._pause()
                answers[who] = self._ask(who, number, client)

        with self._town:
            llmcall.map(speak, self._people, key=self._item, workers=3)
        return answers

    def _item(self, who: int) -> str:
        return self.program.people[who].name

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=ADDRESS, transport=httpx.MockTransport(self._respond))

    def _scope(self, who: int) -> AbstractContextManager[Any]:
        if self.program.naming == "scopes" and self.program.way != "map":
            return llmcall.scope(self._item(who))
        return nullcontext()

    def _ask(self, who: int, number: int, client: httpx.Client) -> str:
        call = self._call(who, number)
        if call is None:
            return ""
        with self._scope(who):
            response = client.post("/chat/completions", **call)
        return self._note(who, number, call, response)

    def _call(self, who: int, number: int) -> dict[str, Any] | None:
        """Return what is sent to the model, or ``None`` if the person asks nothing in this round."""
        person = self.program.people[who]
        question = person.questions[number] if number < len(person.questions) else ""
        if not question:
            return None
        about = f"You are {person.name}, a {person.trait} buyer of bread and milk in a small town."
        answers = "; ".join(filter(None, self._heard))
        heard = f" You heard: {answers}." if answers else ""
        if self.program.has_memory:
            about, heard = f"{about}{heard}", ""
        asked = f"{question}{heard}" if self.program.has_system else f"{about} {question}{heard}"
        system = [{"role": "system", "content": about}] if self.program.has_system else []
        history = self._histories[who] if self.program.remembers else []
        messages = [*system, *history, {"role": "user", "content": asked}]
        body = {"model": person.model, "messages": messages, **dict(person.parameters)}
        return {"json": body, "headers": {"x-luck": str(person.luck)}}

    def _note(self, who: int, number: int, call: dict[str, Any], response: httpx.Response) -> str:
        answer: str = response.raise_for_status().json()["choices"][0]["message"]["content"]
        asked, person = call["json"]["messages"][-1], self.program.people[who]
        own = f"{person.trait} {person.questions[number]}"
        self._histories[who] += [asked, {"role": "assistant", "content": answer}]
        with self._lock:
            self.said.append(Said(person.name, (person.name, number), call["json"], answer, own))
        return answer

    def _wait(self) -> float:
        with self._lock:
            return self._pauses.choice([0.0, 0.0, 0.001, 0.003])

    def _pause(self) -> None:
        time.sleep(self._wait())

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self._pause()
        luck = request.headers["x-luck"]
        digest = hashlib.sha256(request.content + luck.encode()).hexdigest()
        return httpx.Response(200, json=completion(" ".join(digest[n : n + 6] for n in (0, 6, 12))))

    async def _respond_async(self, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(self._wait())
        return self._respond(request)


ADDRESS = "https://api.openai.com/v1"


def random_program(dice: random.Random) -> Program:
    """Return a program."""
    has_system = dice.random() < 0.7
    way = dice.choice(WAYS)
    naming = dice.choice(NAMINGS if has_system and way != "map" else ("scopes",))
    # Without a name or a system message, nothing recorded says who of several asked.
    ways = ("in turn",) if naming == "nothing" and not has_system else (way,)
    rounds = dice.randint(1, 4)
    remembers = dice.random() < 0.4
    texts = dice.choice([("Bread?",), ("Bread?", "Milk?", "Eggs?", "Salt?")])
    numbered = not remembers or dice.random() < 0.5
    questions = tuple(
        f"Day {number}. {texts[number % len(texts)]}" if numbered else texts[number % len(texts)]
        for number in range(rounds)
    )
    names = dice.sample(NAMES, dice.randint(2, len(NAMES)))
    people = tuple(Person(name, dice.choice(TRAITS), questions) for name in names)
    has_memory = has_system and naming == "scopes" and dice.random() < 0.4
    hears = has_memory or dice.random() < 0.4
    return Program(people, dice.choice(ways), naming, hears, remembers, has_system, has_memory)


def changed(program: Program, dice: random.Random) -> Program:
    """Return a version of a program with up to three changes."""
    edits: list[tuple[str, str]] = []
    people = list(program.people)
    for _ in range(dice.choice([0, 1, 1, 2, 3])):
        who = dice.randrange(len(people))
        person, kind = people[who], dice.choice(KINDS)
        if kind == "everybody's persona":
            people = [replace(one, trait=f"really {one.trait}") for one in people]
        elif kind == "everybody's model":
            people = [replace(one, model="m-2") for one in people]
        elif kind == "another order":
            dice.shuffle(people)
        elif kind == "person less":
            if len(people) > 1:
                del people[who]
        elif kind not in ("call more", "call less") or not any(
            other in edits for other in (("call more", person.name), ("call less", person.name))
        ):
            people[who] = _changed_person(person, kind, dice)
        edits.append((kind, person.name))
    return replace(program, people=tuple(people), timing=dice.randrange(10**6))


KINDS = (
    "persona",
    "everybody's persona",
    "question",
    "model",
    "everybody's model",
    "parameters",
    "draw",
    "call more",
    "call less",
    "person less",
    "another order",
)


def _changed_person(person: Person, kind: str, dice: random.Random) -> Person:
    questions = list(person.questions)
    number = dice.randrange(len(questions))
    if kind == "persona":
        return replace(person, trait="generous")
    if kind == "model":
        return replace(person, model="m-3")
    if kind == "parameters":
        return replace(person, parameters=(("temperature", 0.5),))
    if kind == "draw":
        return replace(person, luck=person.luck + 1)
    if kind == "question":
        questions[number] = f"{questions[number]} Do say why."
    elif kind == "call more":
        questions.append("At last: are you content?")
    elif len(questions) > 1:
        # Which of several identical questions is gone, nobody can say: the last one.
        questions[-1 if len({*questions}) < len(questions) else number] = ""
    return replace(person, questions=tuple(questions))
