r"""Counting tokens: exactly if the vocabulary is on this machine, else by an estimate; the network
is never used.

*Texts* are counted with the model's encoding if its vocabulary is found, special tokens such as
``<|endoftext|>`` as the ordinary text that they are in a message. A vocabulary is looked for

1. where tiktoken keeps it: ``TIKTOKEN_CACHE_DIR``, ``DATA_GYM_CACHE_DIR`` or ``data-gym-cache`` in
    the folder for temporary files, under the SHA-1 of its address, and only if its SHA-256 is the
    one that tiktoken 0.14 expects (tiktoken would remove another and download; here it is left
    alone);
2. in ``bpe_openai`` (the extra ``offline``), which counts as tiktoken does.

Nothing is written, and nothing waits for the network. The addresses and digests of the files are
those of ``tiktoken_ext.openai_public`` in tiktoken 0.14.

*Messages* add what OpenAI's cookbook says ("How to count tokens with tiktoken", as of 2025): 3
tokens each, 1 for a name, 3 for the reply. The API confirmed it for gpt-3.5, gpt-4 and gpt-4o. A
reasoning model's framing is unpublished (the recipe was seen to be 1 off for gpt-5) and that of
other makers differs, so there the count is an estimate; so are tools, which are counted as their
JSON, somewhat more than they take, and tool calls.

*Images* cost what OpenAI's guide "Images and vision" says of gpt-4o: 85 tokens with low detail;
else 85 and 170 for each 512 pixel tile, here always the 4 tiles of a square image (gpt-4o-mini:
2833, and 5667 a tile). A file counts like an image. Audio counts a token for each 4800 bytes of it
(0.1 s of 24 kHz mono PCM, the rate of OpenAI's realtime pricing), which is too few for compressed
formats.

*The estimate* of a text adds a weight for each thing of a Unicode class in it (``_WEIGHTS``). The
weights were fitted to o200k_base by least squares on Django 5.2's translations (96 languages), its
Python and JavaScript, and the standard library's docstrings, on which the mean error is 9 % (95 %
of the texts are within 25 %). On the samples of the unit tests, which it has not seen, it is off by
4 % (English), 8 % (German), 14 % (Chinese) and -16 % (Python); a quarter of the length by 26 %, 14
%, -66 % and -2 %.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from ..system import process_lock
from .catalog import capabilities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self


class TokenCount(int):
    """A number of tokens that knows whether it is exact; arithmetic gives plain ``int``.

    :param value: the number.
    :param estimated: whether it is an estimate; then its ``repr`` begins with ``~``.
    """

    estimated: bool

    def __new__(cls, value: int, estimated: bool = False) -> Self:
        made = super().__new__(cls, value)
        made.estimated = estimated
        return made

    def __repr__(self) -> str:
        return f"~{int(self)}" if self.estimated else str(self)

    def __str__(self) -> str:
        return int.__repr__(self)


def count_tokens(
    messages_or_text: Any,
    model: str,
    *,
    encoding: str | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> TokenCount:
    """Count the tokens of a text, or of messages with their framing, without any network.

    :param messages_or_text: a text, or messages as the chat completions API takes them.
    :param model: the model's name after aliases; an unknown one is counted by the estimate.
    :param encoding: tiktoken's name of the encoding; by default that of the model.
    :param tools: the tools that are sent along, as the API takes them.
    :returns: the number; ``.estimated`` says whether it is an estimate.
    :raises TypeError: if it is neither a text nor a list of messages.
    """
    known = capabilities(model)
    count = counter(encoding or known.encoding)
    if isinstance(messages_or_text, str):
        return TokenCount((count or _estimate)(messages_or_text), count is None)
    if not (
        isinstance(messages_or_text, Sequence)
        and all(isinstance(each, Mapping) for each in messages_or_text)
    ):
        raise TypeError(
            f"count_tokens takes a text or a list of messages, not {messages_or_text!r:.60}"
        )
    total, guessed = 3, count is None or known.encoding is None or known.reasoning
    pieces: list[str | int] = []
    for message in messages_or_text:
        total += 3 + bool(message.get("name"))
        pieces += _message(message, "gpt-4o-mini" in model)
    if tools:
        pieces += (0, json.dumps(list(tools), ensure_ascii=False, sort_keys=True, default=str))
    total += sum(
        piece if isinstance(piece, int) else (count or _estimate)(piece) for piece in pieces
    )
    return TokenCount(total, guessed or any(isinstance(piece, int) for piece in pieces))


def shares(total: int, texts: Sequence[str]) -> list[int]:
    """Split the tokens reported for a batch among its texts in proportion to their lengths.

    :param total: the tokens of the whole batch.
    :param texts: the batch; if all are empty, each gets an equal share.
    :returns: a share for each text, in order; their sum is exactly ``total``.
    """
    ends = list(accumulate(len(text) if any(texts) else 1 for text in texts))
    return [
        total * end // ends[-1] - total * start // ends[-1] for start, end in pairwise([0, *ends])
    ]


# The pieces of a message: texts, which are counted, and numbers, which are guesses.


def _message(message: Mapping[str, Any], small: bool) -> Iterator[str | int]:
    for field in ("role", "name", "refusal"):
        yield message.get(field) or ""
    content = message.get("content") or ""
    if isinstance(content, str):
        yield content
    else:
        for part in content:
            yield from _part(part, small)
    calls = [
        call.get("function") or call.get("custom") or {} for call in message.get("tool_calls") or ()
    ]
    for call in [*calls, message.get("function_call")]:
        if call:
            yield from (3, call.get("name") or "", call.get("arguments") or call.get("input") or "")


def _part(part: Mapping[str, Any], small: bool) -> Iterator[str | int]:
    kind = part.get("type")
    if kind in ("text", "refusal"):
        yield part.get(kind) or ""
    elif kind in ("image_url", "file"):
        image = part.get("image_url")
        low = isinstance(image, Mapping) and image.get("detail") == "low"
        base, tile = (2833, 5667) if small else (85, 170)
        yield base if low else base + 4 * tile
    elif kind == "input_audio":
        data = (part.get("input_audio") or {}).get("data") or ""
        yield len(data) * 3 // 4 // 4800 + 1  # base64 writes 3 bytes as 4 characters
    else:
        yield from (0, json.dumps(part, ensure_ascii=False, sort_keys=True, default=str))


# The estimate.

_LATIN = "A-Za-z\u00c0-\u024f"
_WEIGHTS = (
    (f"[{_LATIN}]+", 0.96),  # a word
    (f"(?<=[{_LATIN}]{{6}})[{_LATIN}]", 0.50),  # each further letter of a long one
    ("[\u00c0-\u024f]", 1.21),  # an accent
    ("[\u0370-\u07ff]", 0.43),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    (
        "[\u0800-\u1fff\ua000-\uabff]",
        0.47,
    ),  # the scripts of India and South-East Asia, Georgian, Ethiopic
    ("[\u2000-\u2fff]", 1.0),  # symbols, quotation marks, dashes
    ("[\u3000-\u303f\uff00-\uffef]", 0.70),  # full-width punctuation
    ("[\u3040-\u30ff]", 0.71),  # kana
    ("[\u3400-\u9fff]", 0.85),  # ideographs
    ("[\uac00-\ud7a3]", 0.80),  # hangul
    ("[\U00010000-\U0010ffff]", 1.7),  # emoji and rare scripts
    ("[0-9]{1,3}", 1.69),  # with the blank before it
    (r"[!-/:-@\[-`{-~]+", 0.41),  # a run of punctuation
    (r"\n\s*", 0.84),  # a line's end, with the next one's indentation
)


def _estimate(text: str) -> int:
    return max(
        round(sum(weight * len(re.findall(pattern, text)) for pattern, weight in _WEIGHTS)),
        bool(text),
    )


# Vocabularies.


# Of each encoding, the SHA-256 of tiktoken's file, whose name is the SHA-1 of its address.
_DIGESTS = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"

_lock = process_lock(__name__)


def counter(encoding: str | None) -> Callable[[str], int] | None:
    """Return the function that counts the tokens of a text exactly, loaded once for all threads.

    :param encoding: tiktoken's name of the encoding.
    :returns: a function of a text, which takes special tokens as ordinary text; ``None`` if there is
        no vocabulary on this machine.
    """
    with _lock:
        return found_counter(encoding)


@cache
def found_counter(name: str | None) -> Callable[[str], int] | None:
    """Return the counter of an encoding, from the first source that has its vocabulary."""
    return (_tiktoken(name) or _bpe_openai(name)) if name in _DIGESTS else None


def _tiktoken(name: str) -> Callable[[str], int] | None:
    import hashlib

    file = hashlib.sha1(_ADDRESS.format(name).encode(), usedforsecurity=False).hexdigest()
    try:
        with open(os.path.join(_cache_folder(), file), "rb") as opened:
            found = hashlib.sha256(opened.read()).hexdigest()
    except OSError:  # none here, or not for us: the next source is asked
        return None
    if found != _DIGESTS[name]:  # tiktoken would remove it and download another
        return None
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(text))


def _cache_folder() -> str:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return os.environ[variable] or os.devnull  # empty: tiktoken keeps nothing
    import tempfile

    return os.path.join(tempfile.gettempdir(), "data-gym-cache")


def _bpe_openai(name: str) -> Callable[[str], int] | None:
    import warnings
    from importlib import import_module

    with warnings.catch_warnings():
        # It reads its data by importlib.resources.open_binary, which Python 3.11 and 3.12 call
        # deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            # the package's own Encoding refuses over 200,000 tokens
            bindings = import_module("bpe_openai._bindings")
        except ImportError:
            return None
        count: Callable[[str], int] = bindings.tokenizer_for_encoding(name).count
    return count
