"""What the recording process has of a call of another one, which sends it: its kind, its account and its form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.effects import Send
from ..core.kinds import (
    Chat,
    Embeddings,
    Function,
    Http,
    Kind,
    OfClient,
    ProgramChat,
    ProgramEmbeddings,
)
from ..core.seams import Response, Transport
from ..scopes.position import function_scope
from ..scopes.scope import in_function
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


class ForwardedForm:
    """The form that an answer must have, in the process that made the call.

    :ivar misfit: where the last answer departs from it, as that process found; ``None`` if it fits.
    """

    misfit: str | None = None

    def misfit_in(self, response: object) -> str | None:
        """Return the misfit that the process found."""
        return self.misfit


class Sender(Transport):
    """The transport of another process.

    :ivar endpoint: the number of the endpoint that the process sends to, among the model's.
    """

    class_name = ""
    endpoint = 0

    def send(self, request: Request, timeout: float | None) -> Response:
        """Refuse: no thread drives it."""
        raise NotImplementedError


class _OfClientThere(OfClient):
    """A call that a client of another process sends.

    :param sender: its transports.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def wire(self, call: Call, body: Mapping[str, Data]) -> str:
        """Leave the choice of the API to the process."""
        return "chat"

    def transport(self, call: Call, endpoint: Endpoint) -> Sender:
        """Return its transport for an endpoint."""
        self._sender.endpoint = call.site.endpoints.index(endpoint)
        return self._sender


class ForwardedChat(_OfClientThere, Chat):
    """A chat of another process's client."""


class ForwardedEmbeddings(_OfClientThere, Embeddings):
    """Embeddings of another process's client."""


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
    kind = forwarded.requests[0].kind
    if kind == "function":
        return ForwardedFunction(sender, forwarded.name)
    if kind == "http":
        return Http(
            sender,
            forwarded.name,
            calls_model=forwarded.calls_model,
            prefers_calling=forwarded.prefers_calling,
        )
    if forwarded.is_clients:
        return ForwardedChat(sender) if kind == "chat" else ForwardedEmbeddings(sender)
    return ProgramChat(sender) if kind == "chat" else ProgramEmbeddings(sender)
