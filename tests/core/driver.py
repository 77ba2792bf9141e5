"""A driver of procedures for tests: it lists the effects of a call, and executes them without a thread, an event loop,
a socket or a clock."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from llmcall.core import callbacks
from llmcall.core.effects import (
    Blocks,
    Do,
    Effect,
    Emit,
    Leave,
    Look,
    Next,
    Open,
    Procedure,
    Send,
    Wait,
    Write,
)
from llmcall.core.procedure_transport import ProcedureTransport

CLOSED = (
    GeneratorExit()
)  # interrupts by closing the procedure, as when nothing refers to it any more
MOST_EFFECTS = 100  # of a call here; one that waits for ever has more


def set_variables() -> dict[str, Any]:
    """Return llmcall's context variables that are set here."""
    variables = copy_context().items()
    return {
        variable.name: value
        for variable, value in variables
        if variable.name.startswith("llmcall") and value != ()
    }


class Driver:
    """A driver that executes each effect at once, except one. A call that sets a context variable fails here.

    :param interrupted: the number of the effect that is not executed, or ``None``.
    :param error: raised there instead.
    :ivar effects: all effects so far, in order.
    """

    def __init__(self, interrupted: int | None = None, error: BaseException | None = None) -> None:
        self.effects: list[Effect[Any]] = []
        self._interrupted = interrupted
        self._error = error

    def run(self, procedure: Procedure[Any]) -> Any:
        """Run a procedure to its end, and return its result."""
        result, error, before = None, None, set_variables()
        while True:
            try:
                effect = procedure.send(result) if error is None else procedure.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                assert set_variables() == before
            result = error = None
            assert isinstance(effect, Effect), effect
            self.effects.append(effect)
            assert len(self.effects) < MOST_EFFECTS, self.effects
            try:
                if len(self.effects) - 1 == self._interrupted:
                    assert self._error is not None
                    raise self._error
                result = self.execute(effect)
            except GeneratorExit:
                procedure.close()
                raise
            except BaseException as raised:  # noqa: BLE001 - the procedure's to handle
                error = raised

    def execute(self, effect: Effect[Any]) -> Any:
        """Return the result of an effect."""
        if isinstance(effect, Send):
            if isinstance(effect.transport, ProcedureTransport):  # its effects are the call's, too
                return self.run(effect.transport.response(effect.request, effect.timeout))
            return callbacks.send(effect.transport, effect.request, effect.timeout, effect.inside)
        if isinstance(effect, Open):
            return callbacks.open_stream(
                effect.transport, effect.request, effect.timeout, effect.inside
            )
        if isinstance(effect, Next):
            return callbacks.next_chunk(effect.chunks, effect.timeout)
        if isinstance(effect, Leave):
            return callbacks.leave(effect.chunks)
        if isinstance(effect, Look):
            return effect.call.store.get(effect.call.request)
        if isinstance(effect, Write):
            return effect.function()
        if isinstance(effect, Do):
            return effect.block()
        assert isinstance(effect, (Wait, Emit, Blocks))
        return isinstance(effect, Blocks) or None
