"""Actors of a program, named by its requests."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

from ..apis.shapes import body_messages, joined_text
from ..core.callbacks import call_callback
from ..errors import ArgumentError
from ..keys.request import Data
from ..scopes.active import ActiveScope
from ..scopes.scope import Scope, scope_of_actor
from ..support.notices import warn_once
from .requests import EMBEDDINGS, ProgramRequest

Actor = Callable[["ProgramRequest"], "str | None"] | str
Normalize = Callable[[str], str]

SYSTEM, HEADER = "system", "header:"
ACTOR_FORMS = f'"{SYSTEM}", "{SYSTEM}:REGEX", "user:REGEX" or "{HEADER}NAME"'
SYSTEM_ROLES = ("system", "developer")
# before a regular expression, with the roles whose first message it searches
SEARCHED = {"user:": ("user",), "system:": SYSTEM_ROLES}
NAME_CHARACTERS = 40  # of a text in an actor's name
HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
UNSAFE = re.compile(r"[^\w .-]+")


def is_named_by_text(actor: str) -> bool:
    """Return whether a text of the request names the actors; else a function does, MODULE:FUNCTION."""
    return actor == SYSTEM or actor.startswith((HEADER, *SEARCHED))


class Actors:
    """The source of each request's actor, and of the actor's scope.

    :param actor: names the actor of a request; see :func:`llmcall.http_client`.
    :param is_linked: ``True`` if another process records this one, and counts the draws of its actors.
    :raises ValueError: if it has none of these forms, or its regular expression is invalid.
    :ivar given: the source as it was given.
    """

    def __init__(self, actor: Actor, *, is_linked: bool = False) -> None:
        self.given = actor
        self._actor: Any = actor
        self._is_linked = is_linked
        self._roles: tuple[str, ...] = ()  # of the messages that a regular expression searches
        if not callable(actor) and not (isinstance(actor, str) and is_named_by_text(actor)):
            raise ArgumentError(
                f"actor is {actor!r}; it must be a function of the request, {ACTOR_FORMS}"
            )
        for prefix, roles in SEARCHED.items():
            if isinstance(actor, str) and actor.startswith(prefix):
                self._actor, self._roles = _pattern(actor, prefix), roles
        if isinstance(actor, str) and actor.startswith(HEADER):
            name = actor.removeprefix(HEADER)
            if not HEADER_NAME.fullmatch(name):
                raise ArgumentError(
                    f'actor is {actor!r}; after "{HEADER}" it must name a header, such as "{HEADER}X-Actor"'
                )

    def scope_of(
        self,
        request: ProgramRequest,
        normalize: Normalize | None,
        default: ActiveScope | None,
    ) -> contextlib.AbstractContextManager[object]:
        """Return the scope of a request's actor; without one, the scope stays.

        :param normalize: removes what does not matter from a text, or ``None``.
        :param default: the scope of requests without an actor, or ``None``.
        :raises ValueError: if the user's function fails or returns something that cannot name a
            scope.
        """
        label = f"{request.method} {urllib.parse.urlsplit(request.url).path}"
        name = self._name(request, normalize or str, label)
        if name is None:
            if request.method == "POST" and not label.endswith(EMBEDDINGS):
                warn_once(
                    f"some requests name no actor (the first: {label}) and belong to the surrounding scope. If several "
                    "actors send such requests, choose an actor= that names them, too",
                    about="no actor",
                )
            return contextlib.nullcontext()
        return self.scope_named(name, default)

    def for_children(self) -> Actor:
        """Return the source of actors' names for other processes; a function that cannot go there gives none."""
        try:
            pickle.dumps(self.given)
        except (pickle.PicklingError, TypeError, AttributeError):
            return _stays_here
        return self.given

    def scope_named(self, name: str, default: ActiveScope | None) -> Scope:
        """Return the scope of an actor.

        :param default: as of :meth:`scope_of`.
        """
        return scope_of_actor(name, default, is_shared=self._is_linked)

    def _name(self, request: ProgramRequest, normalize: Normalize, label: str) -> str | None:
        actor = self._actor
        if isinstance(actor, re.Pattern):
            match = actor.search(_first_text(request.body, self._roles))
            name = normalize((match[min(1, actor.groups)] or "").strip()) if match else ""
            is_plain = len(name) <= NAME_CHARACTERS and not UNSAFE.search(name)
            return (name if is_plain else _short_name(name)) or None
        if actor == SYSTEM:
            text = _first_text(request.body, SYSTEM_ROLES)
            return _short_name(normalize(text)) if text else None
        if isinstance(actor, str):
            return request.headers.get(actor.removeprefix(HEADER).lower()) or None
        try:
            return call_callback(actor, request)  # type: ignore[no-any-return]
        except Exception as error:
            name = getattr(actor, "__qualname__", repr(actor))
            raise ArgumentError(
                f"actor function {name} failed for {label}: {type(error).__name__}: {error}"
            ) from error


def _stays_here(request: ProgramRequest) -> str | None:
    """Replace a function of actors that cannot be sent to another process."""
    raise TypeError(
        "it cannot be sent to this process: actor= must be a function that can be imported, not a lambda or a "
        "nested function"
    )


def _pattern(actor: str, prefix: str) -> re.Pattern[str]:
    try:
        return re.compile(actor.removeprefix(prefix))
    except re.error as error:
        raise ArgumentError(
            f"actor is {actor!r}; its regular expression is invalid: {error.msg} at position {error.pos}"
        ) from None


def _short_name(text: str) -> str:
    """Return the beginning of a text, and a digest of the whole."""
    words = UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split()
    beginning = " ".join(words)[:NAME_CHARACTERS].strip()
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{beginning}-{digest[:8]}"


def _first_text(body: Data, roles: tuple[str, ...]) -> str:
    """Return the first text of some roles; empty without any."""
    contents = [message["content"] for message in body_messages(body) if message["role"] in roles]
    return next(filter(None, map(joined_text, contents)), "")
