"""The input and output files of OpenAI's batches."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...apis.objects import object_in
from ...errors import CacheError
from .calls import LocatedConversation, call_conversation, unanswered
from .columns import levels
from .tables import objects

if TYPE_CHECKING:
    from ...stores.records.spool import Spool

TIER = "batch"  # the tier of the answers, which do not name it


class Batches:
    """The input and output files of an OpenAI batch among some files.

    :param paths: files of JSON.
    :ivar inputs: the files with the requests.
    :ivar outputs: the files with the answers and errors.
    :raises CacheError: if there are only inputs, or only outputs.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        for path in paths:
            _, first = next(objects(path), ("", {}))
            if "custom_id" in first:
                (self.inputs if "body" in first else self.outputs).append(path)
        if self.outputs and not self.inputs:
            raise CacheError(
                f"{self.outputs[0]} is the output of a batch, which does not contain the requests: name its input "
                "file, too"
            )
        if self.inputs and not self.outputs:
            raise CacheError(
                f"{self.inputs[0]} is the input of a batch, which does not contain the answers: name its output file, "
                "too"
            )

    def read_answers(self, answers: Spool) -> None:
        """Put the answers into a spool, by their ``custom_id``."""
        for location, name, entry in self._lines(self.outputs):
            if not answers.is_first_use(name):
                raise CacheError(
                    f"{location}: the custom_id {name!r} is in the output twice; import each batch by itself"
                )
            response = object_in(entry.get("response"))
            body = response.get("body")
            error = entry.get("error") or (None if body else f"an empty response, {response}")
            answers.add_text(name, json.dumps({"error": error} if error else body))

    def calls(self, path: str, answers: Spool) -> Iterator[LocatedConversation]:
        """Yield the calls in an input file, with their answers."""
        for location, name, entry in self._lines([path]):
            answers.counted_before(name.encode())
            answer = answers.text(name)
            response = (
                {"error": "the output has no such custom_id"}
                if answer is None
                else json.loads(answer)
            )
            address = str(entry.get("url")).partition("?")[0]
            yield (
                location,
                call_conversation(address, entry.get("body"), response, levels(name), TIER),
            )

    def answers_without_question(self, answers: Spool) -> Iterator[LocatedConversation]:
        """Yield the answers whose request is in no input file, to be skipped."""
        for location, name, _ in self._lines(self.outputs):
            if not answers.counted_before(name.encode()):
                yield location, unanswered(f"no input file has the custom_id {name!r}")

    def _lines(self, paths: Iterable[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield the lines of some files with their locations and ids."""
        for path in paths:
            for location, entry in objects(path):
                if not isinstance(name := entry.get("custom_id"), str):
                    raise CacheError(
                        f"{location}: the line has no custom_id, as a batch's lines have"
                    )
                yield location, name, entry
