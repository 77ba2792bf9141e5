"""Counting tokens: exactly if the vocabulary is on this machine, else by an estimate. The network is
never used.

*Messages* add tokens by OpenAI's cookbook ("How to count tokens with tiktoken", as of 2025): 3 each, 1
for a name, 3 for the reply. The API confirmed it for gpt-3.5, gpt-4 and gpt-4o. For a reasoning model
the count is an estimate, because its framing is unpublished (for gpt-5 the recipe was off by 1). It is
also an estimate for other makers' models, whose framing differs, and with tools or tool calls. Tools
count as their JSON, which is somewhat more than they take.

*Images* count by OpenAI's guide "Images and vision" for gpt-4o: 85 tokens with low detail; otherwise 85,
and 170 for each tile of 512 pixels, here always the 4 tiles of a square image (gpt-4o-mini: 2833, and
5667 for each tile). A file counts like an image, and so does a video. Audio counts a token for each 4800
bytes (0.1 s of 24 kHz mono PCM, the rate of OpenAI's realtime pricing), too few for compressed formats.

*The estimate* adds a weight for each word, number or character of a Unicode class in the text. The
weights were fitted to o200k_base by least squares on Django 5.2's translations (96 languages), its Python
and JavaScript, and the standard library's docstrings. On these, the mean error is 9%, and 95% of the
texts are within 25%. On the samples of the unit tests, which were not used for the fit, it is off by
4% (English), 8% (German), 14% (Chinese) and -16% (Python). Counting a token for four characters is off
by 26%, 14%, -66% and -2%.

*Exact counts* need a vocabulary on this machine. Special tokens such as ``<|endoftext|>`` count as ordinary text,
which they are in a message. A vocabulary is looked for

1. in tiktoken's cache: ``TIKTOKEN_CACHE_DIR``, ``DATA_GYM_CACHE_DIR`` or ``data-gym-cache`` in the folder
    for temporary files. The file's name is the SHA-1 of its address. Its SHA-256 must be the one that
    tiktoken 0.14 expects: tiktoken would delete any other file and download its own, while llmcall
    ignores it;
2. in ``bpe_openai`` (the extra ``offline``), which counts like tiktoken.

Nothing is written, and the network is not used. The files' addresses and digests come from
``tiktoken_ext.openai_public`` in tiktoken 0.14.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from ..apis.message import as_text
from ..support.data import without_surrogates
from ..support.lazy_names import pattern
from ..support.libraries import random_numbers_kept
from ..support.system import ProcessLock, without_warnings
from .catalog import capabilities

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..support.data import Data

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


@random_numbers_kept()  # tempfile makes a random generator to find the folder
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


REPLY_TOKENS = 3
MESSAGE_TOKENS = 3
NAME_TOKENS = 1


class TokenCount(int):
    """A number of tokens, marked as exact or estimated; arithmetic returns plain ``int``.

    :param value: the number.
    :param estimated: ``True`` if it is an estimate, whose ``repr`` begins with ``~``.
    """

    estimated: bool

    def __new__(cls, value: int, estimated: bool = False) -> Self:
        token_count = super().__new__(cls, value)
        token_count.estimated = estimated
        return token_count

    def __repr__(self) -> str:
        return f"~{int(self)}" if self.estimated else str(self)

    def __str__(self) -> str:
        return int.__repr__(self)


def count_tokens(
    messages_or_text: object,
    model: str,
    *,
    encoding: str | None = None,
    tools: Sequence[Mapping[str, object]] | None = None,
) -> TokenCount:
    """Count the tokens of a text, or of messages with their framing, without any network.

    :param messages_or_text: a text, or messages as the chat completions API takes them.
    :param model: the model's name after aliases; an unknown one is counted by the estimate.
    :param encoding: tiktoken's name of the encoding; by default the model's.
    :param tools: the tools of the request, as the API takes them.
    :returns: the number; ``.estimated`` says whether it is an estimate.
    :raises TypeError: if it is neither a text nor a list of messages.
    """
    model_capabilities = capabilities(model)
    exact_count = counter(encoding or model_capabilities.encoding)
    count_text = exact_count or estimated_tokens
    if isinstance(messages_or_text, str):
        return TokenCount(count_text(messages_or_text), exact_count is None)
    if not (
        isinstance(messages_or_text, Sequence)
        and all(isinstance(message, Mapping) for message in messages_or_text)
    ):
        raise TypeError(
            f"count_tokens takes a string or a list of messages, not {messages_or_text!r:.60}"
        )
    is_mini = "gpt-4o-mini" in model
    has_known_framing = model_capabilities.encoding is not None and not model_capabilities.reasoning
    estimated = exact_count is None or not has_known_framing
    total = REPLY_TOKENS
    pieces: list[str | int] = []
    for message in messages_or_text:
        total += MESSAGE_TOKENS
        if message.get("name"):
            total += NAME_TOKENS
        pieces += _pieces_of_message(message, is_mini)
    if tools:
        pieces += _estimated_pieces(tools)
    for piece in pieces:
        if isinstance(piece, int):
            estimated = True
            total += piece
        else:
            total += count_text(as_text(piece))
    return TokenCount(total, estimated)


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


DATA_URL = pattern(r"data:[^\"\\]*;base64,[\w+/=-]*")

# The pieces of a message: texts, which are counted, and numbers of tokens, which are estimates.


def _pieces_of_message(message: Mapping[str, Data], is_mini: bool) -> Iterator[str | int]:
    """Yield the pieces of a message; for a gpt-4o-mini, images cost more."""
    for field in ("role", "name", "refusal"):
        yield message.get(field) or ""
    content = message.get("content") or ""
    if isinstance(content, str):
        yield content
    else:
        for part in content:
            yield from _pieces_of_part(part, is_mini)
    for call in message.get("tool_calls") or ():
        yield from _pieces_of_call(call.get("function") or call.get("custom"))
    yield from _pieces_of_call(message.get("function_call"))


def _pieces_of_call(call: Mapping[str, Data] | None) -> Iterator[str | int]:
    """Yield the pieces of a tool call."""
    if call:
        yield MESSAGE_TOKENS
        yield call.get("name") or ""
        yield call.get("arguments") or call.get("input") or ""


def _pieces_of_part(part: Mapping[str, Data], is_mini: bool) -> Iterator[str | int]:
    """Yield the pieces of one part of a message's content."""
    kind = part.get("type")
    if kind in ("text", "refusal"):
        yield part.get(kind) or ""
    elif kind in ("image_url", "file"):
        image = part.get("image_url")
        has_low_detail = isinstance(image, Mapping) and image.get("detail") == "low"
        base, tile = (2833, 5667) if is_mini else (85, 170)
        yield base if has_low_detail else base + 4 * tile
    elif kind == "input_audio":
        data = (part.get("input_audio") or {}).get("data") or ""
        audio_bytes = len(data) * 3 // 4  # base64 writes 3 bytes as 4 characters
        yield audio_bytes // 4800 + 1
    else:  # a video, or what is not known: its data in a data URL counts like a file
        base, tile = (2833, 5667) if is_mini else (85, 170)
        *texts, last = DATA_URL.split(json.dumps(part, ensure_ascii=False, sort_keys=True))
        yield len(texts) * (base + 4 * tile)
        yield "".join([*texts, last])


def _estimated_pieces(data: object) -> Iterator[str | int]:
    """Yield the pieces of data that counts as its JSON, and a 0, which marks the count as an estimate."""
    yield 0
    yield json.dumps(data, ensure_ascii=False, sort_keys=True, default=str)


# The estimate

_LATIN = "A-Za-z\u00c0-\u024f"
_OF_ASCII = (
    (f"[{_LATIN}]+", 0.96),  # a word
    (f"(?<=[{_LATIN}]{{6}})[{_LATIN}]", 0.50),  # each further letter of a long one
    ("[0-9]{1,3}", 1.69),  # with the blank before it
    (r"[!-/:-@\[-`{-~]+", 0.41),  # a run of punctuation
    (r"\n\s*", 0.84),  # a line's end, with the next one's indentation
)
_OF_OTHERS = (
    ("[\u00c0-\u024f]", 1.21),  # an accent
    ("[\u0370-\u07ff]", 0.43),  # Greek, Cyrillic, Armenian, Hebrew, Arabic
    # the scripts of India and South-East Asia, Georgian, Ethiopic
    ("[\u0800-\u1fff\ua000-\uabff]", 0.47),
    ("[\u2000-\u2fff]", 1.0),  # symbols, quotation marks, dashes
    ("[\u3000-\u303f\uff00-\uffef]", 0.70),  # full-width punctuation
    ("[\u3040-\u30ff]", 0.71),  # kana
    ("[\u3400-\u9fff]", 0.85),  # ideographs
    ("[\uac00-\ud7a3]", 0.80),  # hangul
    ("[\U00010000-\U0010ffff]", 1.7),  # emoji and rare scripts
)


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has; at least one unless it is empty."""
    weights = _OF_ASCII if text.isascii() else _OF_ASCII + _OF_OTHERS
    tokens = sum(weight * len(re.findall(pattern, text)) for pattern, weight in weights)
    return max(round(tokens), bool(text))
