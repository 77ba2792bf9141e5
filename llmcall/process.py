"""What holds for the whole process: its settings, its usage, and the way back to the beginning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cache import cache
from .cassettes.cassette import close_named
from .config import resolve as config
from .engine import limits
from .engine.usage import process_meter
from .models.capabilities import resolve
from .notices import process_failures
from .registry import forget_clients
from .replay import scopes

if TYPE_CHECKING:
    from .config.settings import Settings
    from .engine.usage import Usage
    from .models.tokens import TokenCount

__all__ = ["count_tokens", "reset", "settings", "usage"]


def settings() -> Settings:
    """Return the settings as they are now: environment and files are read again where they changed."""
    config.refresh()
    return config.settings()


def reset() -> None:
    """Forget the shared clients and caches, what was configured and forced, and what was read of environment and files.

    Usage totals stay. The cassette that ``[Cassette] PATH`` names is written and closed.
    """
    close_named()
    process_failures.forget()
    forget_clients()
    cache.forget_shared()
    scopes.forget()
    limits.forget()
    config.reset()


def usage() -> Usage:
    """Return what all calls of the process used."""
    return process_meter.usage()


def count_tokens(messages_or_text: Any, model: str | None = None) -> TokenCount:
    """Return the tokens of a text, or of messages with their framing; ``.estimated`` where it is not exact.

    :param messages_or_text: a string, or messages as :meth:`LLMClient.send_message` takes them.
    :param model: whose tokenizer counts; ``None`` means the configured model. An unknown one is estimated.
    """
    from .models.tokens import count_tokens as count

    now = settings()
    name = resolve(model or now.model, now.aliases)
    return count(messages_or_text, name, encoding=_encoding(name, now))


def _encoding(name: str, now: Settings) -> str | None:
    from .models.capabilities import capabilities

    return capabilities(name, now.models).encoding
