"""The vocabularies on this machine, for exact counts of tokens.

Special tokens such as ``<|endoftext|>`` count as ordinary text, which they are in a message. A vocabulary
is looked for

1. in tiktoken's cache: ``TIKTOKEN_CACHE_DIR``, ``DATA_GYM_CACHE_DIR`` or ``data-gym-cache`` in the folder
    for temporary files. The file's name is the SHA-1 of its address. Its SHA-256 must be the one that
    tiktoken 0.14 expects: tiktoken would delete any other file and download its own, while llmcall
    ignores it;
2. in ``bpe_openai`` (the extra ``offline``), which counts like tiktoken.

Nothing is written, and the network is not used. The files' addresses and digests come from
``tiktoken_ext.openai_public`` in tiktoken 0.14.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from ..support.libraries import random_numbers_kept
from ..support.surrogates import without_surrogates
from ..support.system import ProcessLock, without_warnings

if TYPE_CHECKING:
    from collections.abc import Callable

# By encoding, the SHA-256 of tiktoken's file.
_DIGESTS = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"

_lock = ProcessLock()


def counter(encoding: str | None) -> Callable[[str], int] | None:
    """Return the function that counts the tokens of a text exactly, loaded once for all threads.

    :param encoding: tiktoken's name of the encoding.
    :returns: the function, which takes special tokens as ordinary text, or ``None`` without a vocabulary on
        this machine.
    """
    with _lock:
        return loaded_counter(encoding)


@cache
def loaded_counter(name: str | None) -> Callable[[str], int] | None:
    """Return the counter of an encoding, from the first source that has its vocabulary."""
    return (_tiktoken(name) or _bpe_openai(name)) if name in _DIGESTS else None


def _tiktoken(name: str) -> Callable[[str], int] | None:
    import hashlib

    file_name = hashlib.sha1(_ADDRESS.format(name).encode(), usedforsecurity=False).hexdigest()
    try:
        with open(os.path.join(_cache_folder(), file_name), "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except OSError:  # missing or unreadable: the next source is tried
        return None
    if digest != _DIGESTS[name]:  # tiktoken would delete it and download another
        return None
    from ..support.libraries import tiktoken

    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


@random_numbers_kept()  # tempfile makes a random generator to find the folder
def _cache_folder() -> str:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return os.environ[variable] or os.devnull  # empty: tiktoken keeps nothing
    import tempfile

    return os.path.join(tempfile.gettempdir(), "data-gym-cache")


def _bpe_openai(name: str) -> Callable[[str], int] | None:
    # It reads its data by importlib.resources.open_binary, which Python 3.11 and 3.12 call
    # deprecated.
    with without_warnings(DeprecationWarning):
        try:
            # the package's own Encoding refuses over 200,000 tokens
            from ..support.libraries import bpe_openai
        except ImportError:
            return None
        count = bpe_openai._bindings.tokenizer_for_encoding(name).count
    return lambda text: int(count(without_surrogates(text)))  # as tiktoken counts them
