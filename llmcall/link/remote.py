"""What sends the call of another process, as the recording process has it: a value, since that process sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..core.effects import Send
from ..core.kinds import (
    Chat,
    Embeddings,
    Function,
    Http,
    Kind,
    ProgramChat,
    ProgramEmbeddings,
)
from ..core.seams import Response, Transport
from ..scopes.scope import in_function
from ..stores.cassettes.replay_log import function_scope
from ..traffic.usage import Meter, UsageDelta
from . import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..config.endpoints import Endpoint
    from ..core.calls import Call
    from ..keys.request import Data, Request


class NotedMeter(Meter):
    """A meter that notes a call's use, for its process to count it, too.

    :param below: counts it, too, or ``None``.
    :ivar noted: each addition.
    """

    def __init__(self, below: Meter | None) -> None:
        super().__init__()
        self._below = below
        self.noted: list[messages.UsedAmounts] = []

    def add(self, model: str, scope: str, amounts: UsageDelta, arm: str) -> None:
        """Add amounts; the caller holds the lock."""
        self.noted.append(messages.UsedAmounts(model, scope, dict(amounts), arm))
        if self._below is not None:
            self._below.add(model, scope, amounts, arm)


class Account(NamedTuple):
    """What counts a call of another process.

    :param meter: notes what it uses.
    :param sends_nothing: whether the call's client answers without sending anything.
    """

    meter: Meter
    sends_nothing: bool


class Sender(Transport):
    """What sends the call of another process.

    :ivar endpoint: the number of the endpoint that it sends to, among the model's.
    :ivar misfit: where the last answer departs from the form that the call requires, as that process found; ``None`` if
        it fits.
    """

    class_name = ""  # of that process's transport

    def __init__(self) -> None:
        self.endpoint = 0
        self.misfit: str | None = None

    def send(self, request: Request, timeout: float | None) -> Response:
        """Refuse: no thread drives it."""
        raise NotImplementedError

    def misfit_in(self, response: object) -> str | None:
        """Return the misfit: it takes the place of the form that a request requires."""
        return self.misfit


class _Forwarded:
    """A call of a client of another process, which checks its window, chooses the API, and sends it.

    :param sender: has the process send it.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def wire(self, call: Call, body: Mapping[str, Data]) -> str:
        """Leave the choice to the process that sends the call."""
        return "chat"

    def transport(self, call: Call, endpoint: Endpoint) -> Transport:
        """Return what has the call's process send it."""
        self._sender.endpoint = call.site.endpoints.index(endpoint)
        return self._sender


class ForwardedChat(_Forwarded, Chat):
    """A chat of another process."""


class ForwardedEmbeddings(_Forwarded, Embeddings):
    """Embeddings of another process."""


class ForwardedFunction(Function):
    """A recorded function of another process.

    :param sender: has the process run it.
    """

    def __init__(self, sender: Sender, name: str) -> None:
        super().__init__(name)
        self._sender = sender

    async def send(
        self, call: Call, transport: Transport | None, request: Request, timeout: float | None
    ) -> Response:
        """Have the process run the function, in the scope of its call."""
        scope = function_scope(request.hashed, request.sample)
        with in_function(scope, draws=request.sample is not None):
            return await Send(self._sender, request, timeout)


def kind_of(forwarded: messages.Calls, sender: Sender) -> Kind:
    """Return the kind of a call of another process."""
    if forwarded.kind == "function":
        return ForwardedFunction(sender, forwarded.name)
    if forwarded.kind == "http":
        return Http(
            sender,
            forwarded.name,
            calls_model=forwarded.calls_model,
            prefers_calling=forwarded.prefers_calling,
        )
    is_chat = forwarded.kind == "chat"
    if forwarded.is_clients:
        return ForwardedChat(sender) if is_chat else ForwardedEmbeddings(sender)
    return ProgramChat(sender) if is_chat else ProgramEmbeddings(sender)
