"""One call as its arguments describe it, before it is looked up or sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..cassettes.cassette import active_cassette
from ..types import Answer, record_of
from .options import split
from .requests import chat_request, embedding_request, texts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cassettes.cassette import ActiveCassette
    from ..replay.scopes import Draw
    from ..types import Request
    from .options import Options
    from .road import ClientRoad

__all__ = ["Asked", "embeddings_prepared", "prepared"]


class Asked(NamedTuple):
    """Hold one call as its arguments describe it.

    :param drawn: the draw that it takes, to be given back where it fails; ``None`` outside any scope.
    :param parse: reads the answer as the type that ``response_format`` was.
    :param tape: the cassette that is open, and the call's place in it.
    """

    request: Request
    options: Options
    drawn: Draw | None = None
    parse: Callable[[str], Any] | None = None
    tape: ActiveCassette | None = None

    def give_back(self) -> None:
        """Make the draw's number free again."""
        if self.drawn is not None:
            self.drawn.give_back()

    def end(self) -> None:
        """Note that the call has its answer."""
        if self.drawn is not None:
            self.drawn.end()

    @property
    def scope(self) -> str:
        """Return the scope path of the call, empty outside any scope."""
        return self.request.sample.partition("#")[0] if self.request.sample else ""

    def storing(self, mode: str) -> str:
        """Return how the disk cache stores: under a cassette that is written anew, in place of what is there.

        :param mode: the disk cache's.
        """
        return "rewrite" if self.tape and self.tape.cassette.mode == "rewrite" and mode != "off" else mode

    def kept(self, found: Answer) -> Answer:
        """Put an answer on the cassette, and return the one that counts there: whatever was recorded first.

        A fallback's is a record of its own, and the first request's points to it.
        """
        if self.tape is None or not found.whole:
            return found
        if found.record.cache_key != self.request.cache_key:
            self.tape.keep(record_of(self.request, {"fallback": found.record.cache_key}))
        record = self.tape.keep(found.record)
        return found if record is found.record else Answer(record)


def prepared(client: ClientRoad, messages: Any, arguments: dict[str, Any]) -> Asked:
    """Return a chat call as its arguments describe it; inside a scope it takes a draw.

    :raises TypeError, ValueError: for a wrong argument.
    """
    options, params = split(arguments)
    tape = active_cassette(client._base)
    parse = _reader_of(params.get("response_format"))
    model = client.model_named(params.pop("model", None))
    request, drawn = chat_request(messages, model, params, client.settings, options, client.namespace(model))
    return Asked(request, options, drawn, parse, tape)


def embeddings_prepared(client: ClientRoad, text: Any, model: str | None, arguments: dict[str, Any]) -> list[Asked]:
    """Return an embeddings call as its arguments describe it, one text each.

    :raises TypeError: for a wrong argument.
    """
    options, params = split(arguments)
    if options.sample is not None:
        raise TypeError("embeddings take no sample: the same text has the same embedding")
    first = active_cassette(client._base)
    settings = client.settings
    name = client.model_named(model or client.default_embedding_model())
    requests = embedding_request(texts_of(text), name, params, settings, client.namespace(name))
    tapes = [first, *(active_cassette(client._base) for _ in requests[1:])]
    return [Asked(request, options, tape=tape) for request, tape in zip(requests, tapes, strict=False)]


def _reader_of(response_format: Any) -> Callable[[str], Any] | None:
    """Return what reads an answer as the type that was given as ``response_format``, or ``None`` where it was none."""
    if response_format is None or isinstance(response_format, dict):
        return None
    from functools import partial

    from ..outputs.parse import read_structured

    return partial(read_structured, output_type=response_format)
