r"""Exact counters of OpenAI's encodings, from vocabularies that are on this machine already.

A vocabulary is looked for

1. where tiktoken keeps it: ``TIKTOKEN_CACHE_DIR``, ``DATA_GYM_CACHE_DIR`` or ``data-gym-cache`` in the folder for
   temporary files, under the SHA-1 of its address, and only if its SHA-256 is the one that tiktoken 0.14 expects
   (tiktoken would remove another and download; here it is left alone);
2. in ``bpe_openai`` (the extra ``offline``), which has cl100k_base and o200k_base and counts as tiktoken does;
3. in installed packages that ship it for themselves (llama-index-core, litellm), which are not imported.

Nothing is written, and nothing waits for the network. The names, digests and patterns of the encodings are those of
``tiktoken_ext.openai_public`` in tiktoken 0.14.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["counter", "forget"]


class _Vocabulary(NamedTuple):
    file: str  # the SHA-1 of tiktoken's address, which is the name of its file
    digest: str  # the SHA-256 of its content
    pattern: str  # how a text is cut before its pieces are encoded


_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_VOCABULARIES = {
    "o200k_base": _Vocabulary(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        _O200K,
    ),
    "cl100k_base": _Vocabulary(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        _CL100K,
    ),
    "p50k_base": _Vocabulary(
        "ec7223a39ce59f226a68acc30dc1af2788490e15",
        "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
        _GPT2,
    ),
    "r50k_base": _Vocabulary(
        "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4",
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        _GPT2,
    ),
}
# These differ in their special tokens only.
_SAME_TEXTS = {"o200k_harmony": "o200k_base", "p50k_edit": "p50k_base", "gpt2": "r50k_base"}
_SHIPPED_IN = {"llama_index": "core/_static/tiktoken_cache", "litellm": "litellm_core_utils/tokenizers"}

_counters: dict[str, Callable[[str], int] | None] = {}
_lock = threading.RLock()  # a stream that the garbage collector ends is counted at any moment


def counter(encoding: str | None) -> Callable[[str], int] | None:
    """Return what counts the tokens of a text exactly, loaded once for all threads.

    :param encoding: tiktoken's name of the encoding.
    :returns: a function of a text; special tokens are ordinary text to it. ``None`` where no vocabulary is at hand.
    """
    name = _SAME_TEXTS.get(encoding or "", encoding or "")
    if name not in _VOCABULARIES:
        return None
    with _lock:
        if name not in _counters:
            _counters[name] = _tiktoken(name, _cache_folder()) or _bpe_openai(name) or _shipped(name)
        return _counters[name]


def forget() -> None:
    """Forget the vocabularies that were loaded or not found, so that the next count looks again."""
    with _lock:
        _counters.clear()


def _cache_folder() -> str:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return os.environ[variable] or os.devnull  # empty: tiktoken keeps nothing
    import tempfile

    return os.path.join(tempfile.gettempdir(), "data-gym-cache")


def _tiktoken(name: str, folder: str) -> Callable[[str], int] | None:
    """Count with tiktoken and the file in this folder; tiktoken's own loader is not asked, as it may download."""
    ranks = _ranks(os.path.join(folder, _VOCABULARIES[name].file), _VOCABULARIES[name].digest)
    if ranks is None or not _folders_of("tiktoken"):
        return None
    import tiktoken

    pattern = _VOCABULARIES[name].pattern
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda text: len(encoding.encode_ordinary(text))


def _ranks(path: str, digest: str) -> dict[bytes, int] | None:
    import base64
    import hashlib

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:  # none here, or not for us: the next source is asked
        return None
    if hashlib.sha256(data).hexdigest() != digest:
        import logging

        logging.getLogger("llmcall").warning("%s is not the vocabulary that it should be: not used", path)
        return None
    return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in data.splitlines())}


def _bpe_openai(name: str) -> Callable[[str], int] | None:
    if name not in ("cl100k_base", "o200k_base") or not _folders_of("bpe_openai"):
        return None
    import warnings
    from importlib import import_module

    # The package's own Encoding refuses texts over 200,000 tokens.
    with warnings.catch_warnings():
        # It reads its data by importlib.resources.open_binary, which Python 3.11 and 3.12 call deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        count: Callable[[str], int] = import_module("bpe_openai._bindings").tokenizer_for_encoding(name).count

    def count_any(text: str) -> int:
        """Count also texts with lone surrogates."""
        try:
            return count(text)
        except UnicodeEncodeError:  # lone surrogates: as tiktoken does
            return count(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    return count_any


def _shipped(name: str) -> Callable[[str], int] | None:
    for package, inside in _SHIPPED_IN.items():
        for folder in _folders_of(package):
            found = _tiktoken(name, os.path.join(folder, inside))
            if found:
                return found
    return None


def _folders_of(package: str) -> list[str]:
    """List an installed package's folders without importing it."""
    from importlib.util import find_spec

    try:
        spec = find_spec(package)
    except ValueError:  # a stand-in without a spec was put into sys.modules
        return []
    return list(spec.submodule_search_locations or ()) if spec else []
