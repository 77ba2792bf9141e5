"""The arguments of a ``map``, checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..additions import additions, load
from ..config import resolve as config
from ..config.settings import ON_ERROR, Settings
from ..errors import ScopeError
from ..scopes.active import ActiveScope, OpenedBy, here, scope_of_call
from ..scopes.draws import Draws
from ..scopes.position import Position
from ..scopes.scope import Scope
from ..scopes.scope import scope as open_scope
from ..stores.cassettes.current import open_current_cassette
from ..support.arguments import check_arguments, nearest
from ..support.tracebacks import mistake
from ..traffic.limits import slot_types
from .names import key_function

if TYPE_CHECKING:
    from .names import Key

# Threads mostly wait for a server; there are fewer if MAX_CONCURRENT_CALLS allows fewer calls.
WORKERS = 32
MAX_WORKERS = 1000  # where endpoints find their number of calls
UNKNOWN_WORKERS = 512  # for an executor that does not report its number, such as a cluster's


@dataclass
class MapOptions:
    """The arguments of a map; see :func:`llmcall.map`.

    :ivar item_key: returns the key of an item; ``None`` without one.
    :raises TypeError: for a wrong type.
    :raises ValueError: for a wrong value.
    """

    key: Key | None
    repeats: int
    workers: int | None
    progress: bool | None
    on_error: str
    executor: Executor | None
    scope: Scope | str | float | None
    item_key: Callable[[Any], object] | None = field(init=False)

    def __post_init__(self) -> None:
        check_arguments(MapOptions, vars(self))
        self.item_key = key_function(self.key)
        checked_count("repeats", self.repeats)
        if self.workers is not None:
            checked_count("workers", self.workers)
        if self.on_error not in ON_ERROR:
            raise ValueError(
                f"on_error is {self.on_error!r}; it must be one of {', '.join(ON_ERROR)}"
            )
        if self.executor is not None and not isinstance(self.executor, Executor):
            hint = ": pass client.get_executor()" if hasattr(self.executor, "get_executor") else ""
            raise TypeError(
                f"executor is {type(self.executor).__name__}; it must be a concurrent.futures.Executor{hint}"
            )
        if self.scope is None or isinstance(self.scope, Scope):
            self._scope = self.scope
        else:
            self._scope = open_scope(self.scope)

    def active_scope(self) -> ActiveScope:
        """Return the scope in which the map runs; outside any, a scope with an empty path.

        :raises ScopeError: if timing would decide the draws, or for ``key`` outside any scope.
        """
        open_current_cassette()  # first: one that the settings name may have a scope for this map
        if self._scope is None:
            active = scope_of_call()
            if not active.path:
                opened_by: OpenedBy = "program" if here().opened_by == "program" else "map"
                active = ActiveScope(Position(), Draws(), opened_by=opened_by)
        else:  # not entered, because other threads without a scope would be refused meanwhile
            active = self._scope.active()
            active.check_generators()
        if not active.path and self.key is not None:
            raise ScopeError(
                "key= names a scope per item, but no scope is open around this map, which only uses the cache: add "
                'scope="…", or leave out key='
            )
        return active

    def worker_count(self, client_settings: Settings) -> int:
        """Return the number of tasks that run at once.

        :param client_settings: the settings of their client, if known.
        """
        if self.workers is not None:
            return self.workers
        if self.executor is not None:
            # A private attribute: an executor has no public one for its number of workers.
            return getattr(self.executor, "_max_workers", None) or UNKNOWN_WORKERS
        settings = config.settings()
        workers = WORKERS
        allowed = settings.limits_max_concurrent_calls  # by one endpoint
        word = client_settings.limits_max_concurrent_calls
        if isinstance(word, str):
            workers, allowed = MAX_WORKERS, slot_types()[word].most_calls
        if not isinstance(allowed, int):
            return workers
        return min(workers, allowed * max(1, len(settings.endpoints)))


def check_names(method: str, map_options: Iterable[str], *own: str) -> None:
    """Check the names of the options that a method passes to ``map``.

    :param method: its name, for the message.
    :param own: the names of its own options.
    :raises TypeError: for an unknown name, with the nearest one.
    """
    fields = MapOptions.__dataclass_fields__
    names = {"dry_run", *(name for name, option in fields.items() if option.init)}
    for name in map_options:
        if name not in names:
            near = nearest(name, sorted({*names, *own}))
            raise mistake(f"{method}() has no argument {name!r}{near}")


def of_feature(option: str) -> Any:
    """Return what a feature adds for an option of ``map``."""
    return load(additions("map_options")[option])


def checked_count(name: str, value: int) -> int:
    """Return a whole number of at least 1.

    :param name: the argument's name, for the message.
    :raises ValueError: if it is less.
    """
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    return int(value)
