"""Actors of a program, named by its requests."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable
from typing import Any

from .. import scopes
from ..display.formatting import counted
from ..notices import warn_once
from ..values import messages_asked, text_in
from .requests import EMBEDDINGS, ProgramRequest

Actor = Callable[["ProgramRequest"], "str | None"] | str
Normalize = Callable[[str], str]
Naming = Callable[[ProgramRequest, Normalize | None], str | None]

SYSTEM, HEADER, USER = "system", "header:", "user:"
ACTOR_FORMS = f'"{SYSTEM}", "{HEADER}NAME" or "{USER}REGEX"'
SYSTEM_ROLES = ("system", "developer")
NAME_CHARACTERS = 40  # of a text in an actor's name
UNSAFE = re.compile(r"[^\w .-]+")


class Actors:
    """Names the actor who makes each request, and gives the actor's scope.

    :param actor: names who is asking; see :func:`llmcall.http_client`.
    :raises ValueError: if it has none of these forms, or its regular expression is invalid or has no
        group.
    """

    def __init__(self, actor: Actor) -> None:
        self._name_of = _naming_function(actor)
        self._scopes: dict[str, scopes.Scope] = {}

    def scope_of(
        self, request: ProgramRequest, normalize: Normalize | None
    ) -> contextlib.AbstractContextManager[Any]:
        """Return the scope of the actor who makes a request; without one, the scope stays.

        :param normalize: removes from a text what does not matter, or ``None``.
        :raises ValueError: if the user's function fails or returns something that cannot name a
            scope.
        """
        name = self._name_of(request, normalize)
        if name is None:
            if request.method == "POST" and not _path(request).endswith(EMBEDDINGS):
                warn_once(
                    f"a request names no actor (the first: {request.method} {_path(request)}) and is in "
                    "the surrounding scope; if several actors make such requests, name them (actor=, --actor)",
                    about="no actor",
                )
            return contextlib.nullcontext()
        return self._scopes.setdefault(name, scopes.scope(name))


def _path(request: ProgramRequest) -> str:
    return re.sub(r"^\w+://[^/]*", "", request.url).partition("?")[0].rstrip("/")


def _naming_function(actor: Any) -> Naming:
    """Return the function that names the actor of a request."""
    if callable(actor):
        return _function_naming(actor)
    if actor == SYSTEM:
        return _system_name
    if isinstance(actor, str) and actor.startswith(HEADER):
        header = actor.removeprefix(HEADER).lower()
        return lambda request, normalize: request.headers.get(header) or None
    if isinstance(actor, str) and actor.startswith(USER):
        pattern = _pattern(actor)
        return lambda request, normalize: _user_name(pattern, request, normalize)
    raise ValueError(f"actor is {actor!r}; it must be a function of the request, {ACTOR_FORMS}")


def _function_naming(function: Callable[[ProgramRequest], str | None]) -> Naming:
    def name_of(request: ProgramRequest, normalize: Normalize | None) -> str | None:
        try:
            return function(request)
        except Exception as error:
            function_name = getattr(function, "__qualname__", repr(function))
            raise ValueError(
                f"actor function {function_name} failed for {request.method} {_path(request)}: "
                f"{type(error).__name__}: {error}"
            ) from error

    return name_of


def _pattern(actor: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(actor.removeprefix(USER))
    except re.error as error:
        raise ValueError(
            f"actor is {actor!r}; its regular expression is invalid: {error.msg} at position {error.pos}"
        ) from None
    if not pattern.groups:
        raise ValueError(
            f"actor is {actor!r}; its regular expression has no group. Put the part that names the "
            rf'actor in parentheses, such as "{USER}You are (\w+)"'
        )
    return pattern


def _user_name(
    pattern: re.Pattern[str], request: ProgramRequest, normalize: Normalize | None
) -> str | None:
    text = _first_text(request.body, ("user",))
    match = None if text is None else pattern.search(text)
    name = match[1].strip() if match and match[1] else ""
    name = name if normalize is None else normalize(name)
    if not name:
        return None
    is_plain = len(name) <= NAME_CHARACTERS and not UNSAFE.search(name)
    return name if is_plain else _short_name(name)


def _system_name(request: ProgramRequest, normalize: Normalize | None) -> str | None:
    """Return a name for the persona that a system message describes."""
    text = _first_text(request.body, SYSTEM_ROLES)
    return None if text is None else _short_name(text if normalize is None else normalize(text))


def named_by_system(body: Any) -> str | None:
    """Return the name of the persona that a request's body describes in its system message."""
    return _system_name(ProgramRequest("POST", "", {}, body), None)


def _short_name(text: str) -> str:
    """Return the beginning of a text, and a digest of the whole."""
    words = UNSAFE.sub(" ", text[: 2 * NAME_CHARACTERS]).split()
    beginning = " ".join(words)[:NAME_CHARACTERS].strip()
    return f"{beginning}-{_digest(text)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _first_text(body: Any, roles: tuple[str, ...]) -> str | None:
    contents = [each["content"] for each in messages_asked(body) if each["role"] in roles]
    return next(filter(None, map(text_in, contents)), None)


def warn_of_askers() -> None:
    """Warn if recorded answers went to other tasks or threads than in the recorded run, or were left
    while others were asked for.
    """
    count = scopes.take_misplaced()
    if count:
        warn_once(
            'name the actors (actor="system", llmcall run --actor system): '
            f"{counted(count, 'recorded answer')} to equal requests went to another task or thread than "
            "when it was recorded, so these may have got each other's answers"
        )
