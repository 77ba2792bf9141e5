"""What sends the call of another process, as the recording process has it: a value, since that process sends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.effects import Send
from ..core.kinds import KINDS, Function, Http, Kind, ProgramChat, ProgramEmbeddings
from ..core.seams import Response, Transport
from ..scopes.scope import in_function
from ..stores.cassettes.replay_log import function_scope
from ..traffic.usage import Meter, UsageDelta
from . import messages

if TYPE_CHECKING:
    from ..config.endpoints import Endpoint
    from ..core.calls import Call
    from ..keys.request import Request


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


class Sender(Transport):
    """The sender of another process's call: that process. It stands where the core asks for a client, its
    transport, or the form that the answer must have.

    :param meter: notes what the call uses.
    :param sends_nothing: whether the call's client answers without sending anything.
    :ivar endpoint: the number of the endpoint that the process sends to, among the model's.
    :ivar misfit: where the last answer departs from the form that the call requires, as that process found; ``None`` if
        it fits.
    """

    class_name = ""  # of that process's transport

    def __init__(self, meter: Meter, *, sends_nothing: bool) -> None:
        self.meter = meter
        self.sends_nothing = sends_nothing
        self.endpoint = 0
        self.misfit: str | None = None

    def send(self, request: Request, timeout: float | None) -> Response:
        """Refuse: no thread drives it."""
        raise NotImplementedError

    def misfit_in(self, response: object) -> str | None:
        """Return the misfit that the process found."""
        return self.misfit

    def check_options(self, call: Call) -> None:
        """Leave it to the process."""

    def wire(self, *_: object) -> str:
        """Leave the choice of the API to the process."""
        return "chat"

    def transport_for(self, call: Call, endpoint: Endpoint) -> Sender:
        """Return itself, to send to an endpoint."""
        self.endpoint = call.site.endpoints.index(endpoint)
        return self


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
        return KINDS[kind]
    return ProgramChat(sender) if kind == "chat" else ProgramEmbeddings(sender)
