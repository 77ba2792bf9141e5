"""The addresses of the server of a run, for child processes and for libraries whose requests are not recorded
where they are sent.
"""

from __future__ import annotations

import json
import os
import pickle
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from ..additions import additions
from ..link import messages
from ..link.commands import RANKS
from ..link.wire import LOOPBACK, Address
from ..support.secrets import note_environment
from .placeholders import without_keys

NO_PROXY = ("NO_PROXY", "no_proxy")
# What the names in an address mean, unless the environment says otherwise.
BASE_URLS = {
    "openai": ("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "anthropic": ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    "gemini": ("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"),
}
SCOPE_HEADER = "x-llmcall-scope"  # the actor, as a program names it
CALLER = "at-"  # begins the part of a path that names the sender
SITE = os.path.join(os.path.dirname(__file__), "site")
PYTHONPATH = "PYTHONPATH"
VARIABLE = "_LLMCALL_ROUTE"  # read by site/sitecustomize.py


class Route(NamedTuple):
    """A child process's way to the process that records it. It can be pickled.

    :param address: the recording process's HTTP server, with its token, for other languages; empty if it has none.
    :param link: the address of the recording process's link, for Python.
    :param base: the scope in which the child was started, and the ticket that names the context of its start.
    :param caller: the child's name.
    :param told: the options of the recording and the settings of open cassettes, pickled. The child gets these where it
        is started, since the recording process may not answer then: Ray waits for its workers without letting other
        threads run.
    :param sends_nothing: ``True`` if the child may send nothing.
    :param outlives: ``True`` if the child may go on, unrecorded, when the recording has ended, if it may send.
    """

    address: str
    link: Address
    base: messages.Base
    caller: str
    told: bytes
    sends_nothing: bool
    outlives: bool

    @property
    def ticket(self) -> str:
        """Return the name of its ticket."""
        return self.base.ticket

    @property
    def caller_part(self) -> str:
        """Return the part of a path that names the sender."""
        return f"{CALLER}{self.ticket}"

    def to(self, url: str) -> str:
        """Return the server's address for a request, whether its URL is elsewhere or here already."""
        if url.startswith(f"{self.address}/"):
            name, _, rest = url.removeprefix(f"{self.address}/").partition("/")
            return f"{self.address}/{self.caller_part}/{rest if name.startswith(CALLER) else f'{name}/{rest}'}"
        parts = urllib.parse.urlsplit(url)
        host = urllib.parse.quote(parts.netloc.rpartition("@")[2], safe=":[]")
        rest = parts.path.lstrip("/") + (f"?{parts.query}" if parts.query else "")
        return f"{self.address}/{self.caller_part}/to/{parts.scheme}/{host}/{rest}"


def base_urls(address: str) -> dict[str, str]:
    """Return the variables of the environment that lead SDKs to a server.

    :param address: the server's, with the part of a path that names the sender, if there is one.
    """
    paths = {"openai": "openai/v1"}
    return {
        variable: f"{address}/{paths.get(name, name)}" for name, (variable, _) in BASE_URLS.items()
    }


def decoded(environment: Mapping[str, str] | Mapping[bytes, bytes]) -> dict[str, str]:
    """Return an environment as texts."""
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}


def environment_of_child(
    environment: Mapping[str, str] | Mapping[bytes, bytes],
    route: Route,
    served: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment of a child process.

    :param environment: as the program gives it.
    :param served: base URLs of the server for what is no recorded Python, whose own clients send.
    """
    given = decoded(environment)
    note_environment(given)
    changes: dict[str, str] = {}
    if route.sends_nothing:
        given = without_keys(given)
    if route.address:
        changes |= {
            variable: route.to(given.get(variable) or default)
            for variable, default in BASE_URLS.values()
        }
    changes[PYTHONPATH] = os.pathsep.join(filter(None, [SITE, given.get(PYTHONPATH)]))
    before = {name: given.get(name) for name in changes}
    for name in NO_PROXY if route.address else ():
        changes[name] = ",".join(filter(None, [given.get(name), LOOPBACK]))
    hello = os.path.join(route.link.folder, route.ticket)  # begins the path of its file
    content = [pickle.dumps(route).hex(), before, hello, RANKS, [*additions("patches")]]
    value = json.dumps(content)
    return {**given, **changes, **(served or {}), VARIABLE: value}
