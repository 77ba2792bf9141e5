"""Arms: branches of a scope, for runs that differ in one thing and share the answers to identical requests."""

from __future__ import annotations

import hashlib
from collections import deque

from ..errors import ScopeError
from .active import ActiveScope, ScopedRecord, next_order, scope_of_call
from .position import ARM, Branch, checked_name
from .rules import OpeningGenerator, generators_with
from .scope import Scope

SEED_BYTES = 8


class Arm(Scope):
    """An arm, made by :func:`llmcall.arm`: a context manager that can be entered again.

    :ivar name: its name.
    :ivar used_records: gathers the records that its calls get, or ``None``.
    """

    name: str
    used_records: deque[ScopedRecord] | None = None

    def active(self, generator: OpeningGenerator | None = None) -> ActiveScope:
        arm_of = _required_scope(f"the arm {self.name!r}")
        if arm := arm_of.position.arm:
            raise ScopeError(
                f"the arm {self.name!r} is opened inside the arm {arm!r}: leave that one first, or open "
                "the second set of arms in a scope outside it"
            )
        position = arm_of.position._replace(
            order=next_order(),  # threads may make its calls, beside another arm's
            branches=(*arm_of.position.branches, Branch(ARM, arm_of.path, self.name)),
        )
        return arm_of.copy(
            position=position,
            scope=self,
            generators=generators_with(arm_of.generators, generator),
            arm_of=arm_of,
            used_records=self.used_records,
        )

    def __repr__(self) -> str:
        return f"arm({self.name!r})"


def arm(name: str | float) -> Arm:
    """Branch the current scope: if two arms send the same request, they share its answer.

    An arm does not change the scope path. A draw takes the lowest number that neither the arm nor
    the scope itself has taken. So identical requests in two arms are one call, and calls between two
    arms belong to all of them. An arm that is reopened continues its count. Its name enters
    no prompt and no key, but recorded functions have separate results in each arm.

    :param name: a text or a number.
    :returns: a context manager; entering it raises ``ScopeError`` outside a scope and inside
        another arm.
    :raises ValueError: for an empty name, or one with ``/`` or ``#`` in it.

    >>> from llmcall.testing import ScriptedClient
    >>> client = ScriptedClient(lambda messages: "Hello!")
    >>> def greet():
    ...     return client.send_message("Greet me.", temperature=1).sample
    >>> with llmcall.scope("trial-1"):
    ...     with llmcall.arm("control"):
    ...         control = [greet()]
    ...     with llmcall.arm("treated"):
    ...         treated = [greet(), greet()]
    >>> control, treated
    (['trial-1#0'], ['trial-1#0', 'trial-1#1'])
    """
    return Arm(checked_name(name, "the arm's name"))


def seed() -> int:
    """Return a seed for the program's own random numbers, the same in every arm and run of a scope.

    It is derived from the scope path: the first 8 bytes, big-endian, of the SHA-256 of ``seed``, a
    newline and the path.

    :raises ScopeError: outside a scope.

    >>> import random
    >>> with llmcall.scope("trial-1"):
    ...     random.Random(llmcall.seed()).randint(1, 6)
    5
    """
    path = _required_scope("llmcall.seed()").path
    digest = hashlib.sha256(f"seed\n{path}".encode()).digest()
    return int.from_bytes(digest[:SEED_BYTES], "big")


def _required_scope(label: str) -> ActiveScope:
    """Return the current scope; raise outside any, naming what needs one."""
    active = scope_of_call().parent_of_new_scopes
    if not active.path:
        raise ScopeError(f"{label} needs a scope: open one around it, with llmcall.scope(name)")
    return active
