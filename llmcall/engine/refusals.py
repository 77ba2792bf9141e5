"""Calls that were not allowed: logged, counted, and reported when the program ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..display.printable import printable
from ..notices import REFUSED, logger, process_failures
from ..scopes import standing
from .usage import count

if TYPE_CHECKING:
    from ..errors import LLMCallError
    from ..types import Request
    from .usage import Meter


def note_refused(what: str, name: str, meter: Meter, error: LLMCallError) -> None:
    """Log what had no leave, count it, and note it for the end of the run: a program may swallow
    the error.

    :param what: the call in words.
    :param name: of the model or function, by which it is counted.
    """
    logger().error("%s refused: %s: %s", what, type(error).__name__, error.args[0])
    count(meter, name, standing(), {"errors": 1})
    process_failures.add(standing(), f"{what}: {type(error).__name__}", REFUSED)


def words(request: Request, name: str) -> str:
    verb, preposition = ("request", "to") if request.model else ("call", "of")
    return f"{request.kind} {verb} {request.cache_key[:12]} {preposition} {printable(name)}"
