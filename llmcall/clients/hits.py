"""The short way of a call that was answered before: from its arguments to its key, to its record, to its reply.

Outside any scope and cassette, a call's key depends on its arguments and on the settings alone. So keys are remembered
by what ``marshal`` writes of the arguments: it tells 1 from True and from 1.0, and what it reads again is a copy that
nobody else can change. The record is read from the cache each time, since another process may have deleted or replaced
it.
"""

from __future__ import annotations

from hashlib import sha256
from marshal import dumps, loads
from typing import TYPE_CHECKING, Any

from ..cache.cache import shared_cache
from ..cassettes.cassette import is_any_open
from ..config import resolve as config
from ..engine.usage import count_hit
from ..errors import CacheCorruptError
from ..replay.scopes import is_outside
from ..requests.keys import around, canonical
from ..requests.messages import asked_messages, check_messages, plain_messages
from .options import split
from .requests import keyed_parameters, normalizer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..types import Reply
    from .road import ClientRoad

__all__ = ["ShortWay"]

PLAIN = 2  # the version of marshal's format in which equal data are equal bytes, whoever else refers to them
MOST = 4096  # calls that a client remembers
MOST_BYTES = 4 * 2**20  # that their arguments take
# The arguments of a call that gives none but its messages: as many as base.ARGUMENTS, and the dict of further ones.
BARE: tuple[Any, ...] = (*(None,) * 23, {})
BARE_PACKED = dumps(BARE, PLAIN)  # one object, whose hash is known
READING = ("auto", "replay")
UNSEEN: Any = object()


class Shape:
    """Remember what all arguments but the messages come to.

    :param around_messages: the text that is hashed, before the messages and after them.
    """

    __slots__ = ("after", "before", "dedent", "keys", "model", "normalize")

    def __init__(
        self, model: str, around_messages: tuple[bytes, bytes], dedent: bool, normalize: Callable[[str], str] | None
    ) -> None:
        self.model = model
        self.before, self.after = around_messages
        self.dedent = dedent
        self.normalize = normalize
        self.keys: dict[bytes, str] = {}

    def key(self, messages: Any) -> str:
        """Return the key of a call with these messages.

        :raises TypeError, ValueError: where they are none.
        """
        text = canonical(asked_messages(check_messages(messages, dedent=self.dedent), self.normalize))
        return sha256(self.before + text + self.after).hexdigest()

    def plain_key(self, messages: Any) -> str | None:
        """Return the same in less time, where all of them hold a role and a text and nothing else."""
        text = None if self.dedent or self.normalize else plain_messages(messages)
        return None if text is None else sha256(self.before + text + self.after).hexdigest()


class ShortWay:
    """Answer calls of one client from the cache, as long as no setting changes.

    :ivar generation: that of the settings which it stands on.
    """

    def __init__(self, client: ClientRoad) -> None:
        self.generation = config.generation()  # before the settings: where they change meanwhile, it is old at once
        settings = client.settings
        self._recall = shared_cache(settings.cache_path).recall
        reads = settings.cache_mode in READING and config.settings().cassette_path is None
        self._is_open = reads and client._is_keyed_by_settings()
        self._shapes: dict[bytes, Shape | None] = {}
        self._asked_once: set[int] = set()  # hashes of arguments
        self._count = self._size = 0

    def reply(self, client: ClientRoad, messages: Any, names: Sequence[str], values: tuple[Any, ...]) -> Reply | None:
        """Return the recorded answer of a call, or ``None`` where the long way has to be taken.

        :param names: of the arguments in ``values``, after which comes a dict of further ones.
        """
        if not self._is_open or is_any_open() or not is_outside():
            return None
        try:
            packed, asked = BARE_PACKED if values == BARE else dumps(values, PLAIN), dumps(messages, PLAIN)
            shape = self._shapes.get(packed, UNSEEN)
            if shape is UNSEEN:
                shape = self._remembered(client, packed, names)
            if shape is None:
                return None
            key = shape.keys.get(asked) or self._key(shape, messages, asked)
        except (TypeError, ValueError):  # of no plain data, or of wrong arguments: the long way says what is wrong
            return None
        return self._found(client, shape.model, key)

    def _remembered(self, client: ClientRoad, packed: bytes, names: Sequence[str]) -> Shape | None:
        values = loads(packed)
        shape = _shape(client, {**dict(zip(names, values, strict=False)), **values[-1]})
        self._make_room(len(packed))
        self._shapes[packed] = shape
        return shape

    def _key(self, shape: Shape, messages: Any, asked: bytes) -> str:
        key, mark = shape.plain_key(messages), hash(asked)
        if key is not None and mark not in self._asked_once:  # who asks for each once is not kept up by remembering
            if len(self._asked_once) >= MOST:
                self._asked_once = set()
            self._asked_once.add(mark)
            return key
        if key is None or dumps(messages, PLAIN) != asked:  # somebody may change them meanwhile
            key = shape.key(loads(asked))
        self._make_room(len(asked))
        shape.keys[asked] = key
        return key

    def _make_room(self, size: int) -> None:
        self._count += 1
        self._size += size
        if self._count > MOST or self._size > MOST_BYTES:
            self._shapes = {}
            self._count = self._size = 0

    def _found(self, client: ClientRoad, model: str, key: str) -> Reply | None:
        try:
            found = self._recall(key)
        except CacheCorruptError:  # the long way says so, or asks anew
            return None
        if found is None:
            return None
        head, reply = found
        client._check_host(model, head.host)
        count_hit(client._meter, model, head.cost)
        return reply


def _shape(client: ClientRoad, arguments: dict[str, Any]) -> Shape | None:
    """Return what the arguments come to; ``None`` where the cache is not all that decides."""
    options, params = split(arguments)
    if options.sample is not None or options.cache is False:
        return None
    settings = client.settings
    model = client.model_named(params.pop("model", None))
    asked = keyed_parameters(model, params, settings, client.namespace(model))
    return Shape(model, around("chat", asked, "messages"), options.dedent_messages, normalizer_of(settings))
