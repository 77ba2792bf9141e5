"""One question to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


# Plain data: None, bool, int, float, str, bytes, and lists and dicts of these. A union of them would have type
# checkers refuse record.response["choices"][0] without a check at each step, to users, too.
Data = Any


class Request(NamedTuple):
    """One question to a model, with its identity and the body to send.

    :param kind: ``"chat"``, ``"embedding"``, ``"function"`` or ``"http"``.
    :param model: the model's name after aliases.
    :param asked: everything that is hashed, apart from kind and sample; normalized plain data.
    :param body: the body to send, with the original messages and images.
    :param headers: extra HTTP headers; not part of the key.
    :param sample: which draw this is (``"trial-3/lisa#0"``), or ``None``.
    :param cache_key: the SHA-256 of everything that identifies the request, in hexadecimal digits.
    :param expected: the form, from ``response_format``, that an answer must have to be stored, or
        ``None``; not part of the key.
    :param wire: the API that a chat goes to: ``"chat"`` (chat completions) or ``"responses"``; the body is
        one of chat completions in either case. Not part of the key.

    >>> with llmcall.scope("trial-1"):
    ...     request = llmcall.client().build_request("Good morning!", max_tokens=16)
    >>> request.sample, request.messages
    ('trial-1#0', [{'role': 'user', 'content': 'Good morning!'}])
    """

    kind: str
    model: str
    asked: Mapping[str, Data]
    body: Mapping[str, Data]
    headers: Mapping[str, str]
    sample: str | None
    cache_key: str
    expected: Any = None
    wire: str = "chat"

    @property
    def messages(self) -> list[Data]:
        """Return the messages to send; an embedding has none."""
        return list(self.body.get("messages", ()))

    def __repr__(self) -> str:
        return (
            f"Request(kind={self.kind!r}, model={self.model!r}, sample={self.sample!r}, "
            f"cache_key={self.cache_key!r})"
        )


class UncheckedFormat:
    """A ``response_format`` whose answers the caller checks, so that unfitting answers are recorded, too.

    :param parameter: the parameter as plain data; it is shared by all calls with a type, so do not change
        it.
    """

    __slots__ = ("parameter",)

    def __init__(self, parameter: dict[str, Data]) -> None:
        self.parameter = parameter
