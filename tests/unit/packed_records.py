"""A record, plain data and planted pickles, as bytes with a checksum, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from llmcall.types import Record

KEY = "0123456789abcdef" * 4
ASKED = {
    "model": "m",
    "messages": [{"role": "user", "content": "Käse 🧀"}],
    "temperature": 0.5,
    "n": 2,
    "logprobs": True,
}
MESSAGE = {"role": "assistant", "content": "3", "tool_calls": None}
ANSWERED: dict[str, Any] = {"choices": [{"message": MESSAGE}], "usage": {"prompt_tokens": 2**40}}
RECORD = Record(KEY, "chat", "trial/lisa#0", ASKED, ANSWERED, 0.0125, "openai", "api.openai.com", "0.1", 12.5)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


class Planted:
    """Write a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def signed(body: bytes) -> bytes:
    """Put a fitting checksum behind any bytes: of theirs alone, or of the key's as well where they are laid out."""
    begun = crc32(KEY.encode()) if body[11:14] == b"](X" else 0
    return body + crc32(body, begun).to_bytes(4, "little")
