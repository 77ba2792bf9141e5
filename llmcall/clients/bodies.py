"""The body of an answer as it comes, up to the size that an answer may have."""

from __future__ import annotations

from ..errors import ServiceError

__all__ = ["LARGEST", "Body", "too_large"]

# Bytes, after the decoding of gzip. It is what a line of a cassette may have; 2,048 embeddings of 3,072 numbers, the
# most that OpenAI gives at once, have about half of it.
LARGEST = 256 * 2**20


class Body:
    """Put the pieces of a body together.

    :ivar data: what has come.
    """

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, piece: bytes) -> None:
        """Take in the next piece.

        :raises ServiceError: where it makes the body too large.
        """
        self.data += piece
        if len(self.data) > LARGEST:
            raise too_large()


def too_large() -> ServiceError:
    """Return the error of an answer that does not end; asking again would not help."""
    error = ServiceError(f"the answer is larger than {LARGEST >> 20} MiB, and was read no further")
    error.retryable = False
    return error
