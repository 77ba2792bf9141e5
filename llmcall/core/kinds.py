"""Kinds of calls: how an answer of each is checked and recorded. Everything else is the same for all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..apis.bodies import answer_in, nan_as_none
from ..errors import ContextLengthError
from ..keys.plain_data import ordered, plain
from ..stores.record import make_record
from .checks import check_chat, check_fits, is_cut_by_context_window
from .embeddings import check_embeddings, embedding_records, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..keys.request import Request
    from ..stores.record import Received, Record
    from .calls import Call


class Kind:
    """A kind of calls: how an answer is checked, counted and recorded."""

    def joined(self, calls: Sequence[Call]) -> Call:
        """Return one call that asks for all; only embeddings may be several."""
        (call,) = calls
        return call

    def check(self, request: Request, response: Any, *, must_fit_window: bool) -> None:
        """Raise an error if an answer is incomplete or does not fit its ``response_format``.

        :param must_fit_window: whether an answer that the context window cut is an error.
        """

    def usage_in(self, response: Any) -> Mapping[str, Any]:
        """Return the response that reports the usage, as its API gives it unstreamed."""
        return response  # type: ignore[no-any-return]

    def records(self, calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
        """Return what is recorded of a response, for each of the calls that it answers."""
        raise NotImplementedError


class Function(Kind):
    """A recorded function."""

    def usage_in(self, response: Any) -> Mapping[str, Any]:
        """Return nothing: a function reports no usage."""
        return {}

    def records(self, calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
        """Return the record of a result."""
        (call,) = calls
        value = ordered(plain(response["value"], f"{call.name}: the result", for_record=True))
        return [make_record(call.request, {"value": value})]


class Http(Kind):
    """An HTTP request of a program that is recorded as it is."""

    def usage_in(self, response: Any) -> Mapping[str, Any]:
        """Return the answer of a known API, as that API gives it unstreamed."""
        return answer_in(response["body"])

    def records(self, calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
        """Return the record of a response."""
        (call,) = calls
        value = ordered(plain(dict(response), f"{call.name}: the result", for_record=True))
        host = received.host or None
        return [make_record(call.request, {"value": value}, cost=received.cost, host=host)]


class Chat(Kind):
    """A chat, streamed or not."""

    def check(self, request: Request, response: Any, *, must_fit_window: bool) -> None:
        """Refuse an answer that is not complete, or does not fit."""
        check_chat(response)
        if must_fit_window and is_cut_by_context_window(response, request):
            raise ContextLengthError("the answer was cut where the context window ended")
        check_fits(request, response)

    def records(self, calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
        """Return the record of an answer, as a cassette gives it back: a later prompt may quote it."""
        (call,) = calls
        response = ordered(nan_as_none(response))
        if call.request.model != call.request.asked["model"]:  # a fallback's: it says who answered
            response = {**response, "model": response.get("model") or call.request.model}
        api_type, host = call.client.api_type, received.host
        return [
            make_record(call.request, response, cost=received.cost, api_type=api_type, host=host)
        ]


class Embeddings(Kind):
    """Embeddings, one call for each text."""

    def joined(self, calls: Sequence[Call]) -> Call:
        """Return one call that asks for all texts."""
        return joined(calls)

    def check(self, request: Request, response: Any, *, must_fit_window: bool) -> None:
        """Refuse an answer without a vector for each text."""
        check_embeddings(response, len(request.body["input"]))

    def records(self, calls: Sequence[Call], response: Any, received: Received) -> list[Record]:
        """Return the records of the texts, each with its share of tokens and cost."""
        return embedding_records(calls, response, received)


KINDS = {"chat": Chat(), "embedding": Embeddings(), "function": Function(), "http": Http()}
