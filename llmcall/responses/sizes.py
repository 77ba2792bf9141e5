"""How large an answer may be, and as much of a refusal as is read."""

from __future__ import annotations

from ..errors import ServiceError

__all__ = ["LARGEST", "LARGEST_REFUSAL", "too_large"]

# Bytes, after the decoding of gzip. It is what a line of a cassette may have; 2,048 embeddings of 3,072 numbers, the
# most that OpenAI gives at once, have about half of it.
LARGEST = 256 * 2**20
LARGEST_REFUSAL = 2**20  # bytes: FastAPI's servers repeat the request in theirs, and its message comes first


def too_large(most: int) -> ServiceError:
    """Return the error of an answer that does not end; asking again would not help.

    :param most: bytes that it may have.
    """
    error = ServiceError(f"the answer is larger than {most >> 20} MiB, and was read no further")
    error.retryable = False
    return error
