"""Server-sent events: bytes as the network cuts them, into the pieces of text that they carry.

Source of the format: the HTML standard, section 9.2, "Server-sent events". Beyond it, every ``data:`` line that is
complete JSON counts at once, without waiting for the blank line that ends an event, and a line that belongs to no event
is a piece of text itself.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from ..errors import ServiceError
from ..requests.plain_data import is_deep

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EventReader", "LineReader", "text_in"]

LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which cuts at U+2028 and others too
DATA_LINES = 1000  # of one event; each may be the last, so all are tried together anew
IGNORED = (":", "event:", "id:", "retry:")  # comments, and the fields that carry no text


class LineReader:
    """Cut bytes into lines, however the network cut the bytes; invalid UTF-8 becomes U+FFFD.

    A line that does not end costs time in proportion to its length: what has come of it is not looked at again.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest: list[str] = []  # the pieces of the last line
        self._ended_by_return = False

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that are complete with this data, without their ends."""
        return self._cut(self._decoder.decode(data))

    def close(self) -> list[str]:
        """Return the last line where no line end closed it."""
        lines = [*self._cut(self._decoder.decode(b"", final=True)), "".join(self._rest)]
        self._rest = []
        return lines if lines[-1] else lines[:-1]

    def _cut(self, text: str) -> list[str]:
        if not text:
            return []
        fresh = text[1:] if self._ended_by_return and text[0] == "\n" else text
        self._ended_by_return = text[-1] == "\r"
        first, *others = LINE_END.split(fresh) if "\r" in fresh else fresh.split("\n")
        self._rest.append(first)
        if not others:
            return []
        lines, self._rest = ["".join(self._rest), *others[:-1]], [others[-1]]
        return lines


class EventReader:
    """Read pieces of text out of a stream of chat completion events.

    :ivar done: whether ``[DONE]`` has come; whatever follows it is ignored.
    """

    def __init__(self) -> None:
        self.done = False
        self._lines = LineReader()
        self._unfinished = ""
        self._data_lines = 0

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the pieces that are complete with this data, none of them empty.

        :raises ServiceError: where an event is malformed, or reports an error; what came before it is yielded first.
        """
        return filter(None, map(self._piece, self._lines.feed(data)))

    def close(self) -> Iterator[str]:
        """Yield the pieces of the last line where no line end closed it.

        :raises ServiceError: likewise, or where the stream ended inside an event.
        """
        return filter(None, map(self._piece, [*self._lines.close(), ""]))

    def _piece(self, line: str) -> str:
        if self.done or line.startswith(IGNORED):
            return ""
        if line.startswith("data:"):
            return self._piece_of_data(line[5:])
        if not line and self._unfinished:
            raise ServiceError(f"a malformed event in the stream, no JSON: {self._unfinished:.200}")
        return line

    def _piece_of_data(self, data: str) -> str:
        self.done = not self._unfinished and data.strip().lower() == "[done]"
        if self.done or not (self._unfinished or data.strip()):
            return ""
        payload, self._unfinished = self._unfinished + data + "\n", ""
        try:
            event = json.loads(payload)
        except RecursionError:
            raise _too_deep(payload) from None
        except ValueError:
            self._unfinished = payload  # an event may go over several data lines
            self._data_lines += 1
            if self._data_lines > DATA_LINES:
                raise ServiceError(f"a malformed event in the stream, no JSON: {payload:.200}") from None
            return ""
        self._data_lines = 0
        if is_deep(event):
            raise _too_deep(payload)
        return text_in(event)


def _too_deep(payload: str) -> ServiceError:
    return ServiceError(f"a malformed event in the stream, nested too deeply: {payload:.200}")


def text_in(event: Any) -> str:
    """Return the text that one event carries, ``""`` where there is none.

    It is ``choices[0].delta.content`` (chat completions), ``choices[0].text`` (the older completions), or ``text``
    where ``error_code`` is not zero (DB-GPT, whose clients show it in place of an answer).

    :raises ServiceError: where the event is malformed, or reports an ``error``.
    """
    if not isinstance(event, dict):
        raise ServiceError(f"a malformed event in the stream, no object: {event!r:.200}")
    if event.get("error_code"):
        return str(event.get("text") or _message(event))
    if event.get("error"):
        error = event["error"]
        raise ServiceError(f"the server sent an error inside the stream: {_message(error)}")
    return _text_of_choices(event.get("choices"))


def _message(error: Any) -> Any:
    return error.get("message") or error if isinstance(error, dict) else error


def _text_of_choices(choices: Any) -> str:
    if not choices:
        return ""  # only the usage, or Azure's verdict on the prompt
    choice = choices[0] if isinstance(choices, list) else None
    source = choice.get("delta") or {"content": choice.get("text")} if isinstance(choice, dict) else None
    text = source.get("content") or "" if isinstance(source, dict) else None
    if not isinstance(text, str):
        raise ServiceError(f"a malformed event in the stream: choices is {choices!r:.200}")
    return text
