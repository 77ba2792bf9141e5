"""What a comparison of runs finds."""

from __future__ import annotations

from typing import NamedTuple

from ..display.formatting import one_line
from ..display.printable import printable
from .word_changes import TEXT_CHARACTERS, word_changes

# By the reason of a parting: what a report says of it.
WHY = {
    "prompt": "the prompt changed",
    "parameters": "the parameters changed",
    "model": "the model changed",
    "draw": "the same request has different answers",
    "missing": "the other run ends, or does not make this call",
    "added": "the other run has an additional call",
}


class Row(NamedTuple):
    """One call of the runs.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: its place in the actor's run, from 0: in the first run, or in the other one if
        it was added there.
    :param status: ``"same"``, ``"changed"``, ``"added"`` or ``"missing"`` (of the other run).
    :param prompt: the last message that was asked, in the first run; ``None`` if it has no such
        call.
    :param answer: its answer, likewise.
    :param other_prompt: the same in the other run.
    :param other_answer: the same in the other run.
    :param run: which of the other runs it is, from 1.
    """

    scope: str
    place: int
    status: str
    prompt: str | None
    answer: str | None
    other_prompt: str | None
    other_answer: str | None
    run: int = 1


class Parting(NamedTuple):
    """The first call at which an actor's runs part.

    :param scope: the actor's scope path, without the level that names the whole run.
    :param place: the call's place in the actor's run, from 0.
    :param why: ``"prompt"``, ``"parameters"``, ``"model"``, ``"draw"``, ``"missing"`` or
        ``"added"``.
    :param before: what differs, as it is in the first run: the message, the parameters, the model,
        the answer, or the prompt of the call; ``None`` if there is none. An earlier answer that
        a message repeats is the first run's in both.
    :param after: the same in the other run.
    :param run: which of the other runs it is, from 1.
    :param doubt: why a changed prompt may be no cause but a consequence of earlier answers, if
        the recordings do not tell; else empty.
    :param served: of different answers to the same request, the models that gave them, by their own
        names, if these differ; else empty.
    """

    scope: str
    place: int
    why: str
    before: str | None
    after: str | None
    run: int = 1
    doubt: str = ""
    served: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Return the status of the call, as of its :class:`.Row`."""
        return self.why if self.why in ("missing", "added") else "changed"

    @property
    def perhaps(self) -> str:
        """Return what stands at the end of a line: the doubt, or which models answered."""
        if self.served:
            return f" (answered by {' and '.join(map(printable, self.served))})"
        return f" ({self.doubt})" if self.doubt else ""

    @property
    def call(self) -> str:
        """Return which of the actor's calls it is, in words."""
        return f"call {self.place + 1}"

    def in_words(self) -> str:
        """Return what differs, in one line; the words of a prompt as ``git diff --word-diff`` shows
        them.
        """
        if self.why == "prompt":
            return word_changes(self.before or "", self.after or "")
        quoted = [
            f'"{printable(one_line(text, TEXT_CHARACTERS))}"'
            for text in (self.before, self.after)
            if text is not None
        ]
        words = " → ".join(quoted)
        if self.before == self.after or len(set(quoted)) == len(quoted):
            return words
        sides = {"".join((text or "").split()) for text in (self.before, self.after)}
        where = "only in white space" if len(sides) == 1 else "after these words"
        return f"{words} (they differ {where})"
