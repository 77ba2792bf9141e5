"""What is read from an answer: numbers by name, and whether it was cut or refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ...display.formatting import counted
from ...errors import OutputError
from ...notices import warn_once
from ...outputs import (
    json_value,
    listed_options,
    named_option,
    plain_words,
    read,
    without_reasoning,
)
from ...types import text_of

if TYPE_CHECKING:
    from ...types import Record

ANSWER = "answer"  # the name of a value that is the only one
WRAPPED = "value"  # the name under which structured output wraps what is no object
MOST_TEXTS = 20  # different texts that are read as categories
FEWEST_READ = 0.5  # the share of answers that must be readable
MOST_DIFFERENT = 0.5  # different texts for each answer; more of them may be free texts
LARGEST = 1e100  # a larger number is unreadable: its square must be a number
UNREADABLE, CUT, REFUSED = "unreadable", "cut", "refused"
MARKS = (UNREADABLE, CUT, REFUSED)  # of answers without a value
SHOWN = 3  # answers that an error quotes
SHOWN_CHARACTERS = 60

Values = Mapping[str, float]
Reader = Callable[[str], Values]


class Answer(NamedTuple):
    """One answer; a record with several choices holds several.

    :param text: what the model said; if it only called one tool, the call's arguments; else
        ``None``.
    :param meaning: the text. If the prompt lists options under letters, the text of the option that
        the answer names, because a letter stands for another option in each order; ``None`` if it
        names none.
    :param is_cut: whether it ended at its token limit.
    :param is_refused: whether the model refused.
    """

    text: str | None
    meaning: str | None
    is_cut: bool
    is_refused: bool


def answers_of(record: Record) -> list[Answer]:
    """Return the answers of a chat record."""
    answers = []
    for choice in record.response["choices"]:
        message = choice["message"]
        text = _text_of(message)
        is_cut = choice.get("finish_reason") == "length"
        is_refused = bool(message.get("refusal"))
        messages = record.request["messages"]
        is_closed_question = bool(text and listed_options(messages))
        meaning = named_option(messages, text) if text and is_closed_question else text
        answers.append(Answer(text, meaning, is_cut, is_refused))
    return answers


def _text_of(message: Mapping[str, Any]) -> str | None:
    text = text_of(message.get("content"))
    calls: list[Any] = message.get("tool_calls") or []
    if text or len(calls) != 1:
        return text
    arguments = (calls[0].get("function") or {}).get("arguments")
    return arguments if isinstance(arguments, str) else None


class ValueReader:
    """Reads the values of answers.

    :param read: reads a text.
    :param reads_options: whether it reads the option that an answer names in place of its letter.
    :param verdicts: the names of values that are 1 for yes and 0 for no.
    :param options: the names of values that are 1 if the answer is the text of that name, else 0.
    :param fields_left_out: the names of fields that hold neither numbers nor yes and no.
    :ivar shares: the names of both, whose means are shares.
    """

    def __init__(
        self,
        read: Reader,
        *,
        reads_options: bool = True,
        verdicts: Iterable[str] = (),
        options: Iterable[str] = (),
        fields_left_out: Iterable[str] = (),
    ) -> None:
        self._read = read
        self._reads_options = reads_options
        self.fields_left_out = tuple(fields_left_out)
        self.verdicts = frozenset(map(_free_name, verdicts))
        self.shares = self.verdicts | frozenset(map(_free_name, options))

    def values(self, answer: Answer) -> Values:
        """Return an answer's values; empty if it is refused or unreadable."""
        text = answer.meaning if self._reads_options else answer.text
        if answer.is_refused or text is None:
            return {}
        return {_free_name(name): value for name, value in self._read(text).items()}


def _free_name(name: str) -> str:
    """Return a name that is none of those for answers without a value."""
    return f"{name} (field)" if name in MARKS else name


def user_reader(value: Callable[[str], Any]) -> ValueReader:
    """Return a reader that calls a user's function."""
    return ValueReader(lambda text: _user_values(value, text), reads_options=False)


def _user_values(value: Callable[[str], Any], text: str) -> Values:
    try:
        result = value(text)
    except (ValueError, OutputError):  # as float(text) and llmcall's own readers raise it
        return {}
    if not isinstance(result, Mapping):
        result = {ANSWER: result}
    numbers = {str(name): _user_number(each) for name, each in result.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def _user_number(value: Any) -> float | None:
    if value is None:
        return None
    from numbers import Real

    if not isinstance(value, Real) and not hasattr(value, "__float__"):
        raise TypeError(
            f"value returned {value!r:.60}; it must return a number, None for an answer that it cannot "
            "read, or a dict of numbers by name"
        )
    return _finite(value)


def _finite(value: Any) -> float | None:
    """Return a number as a float; ``None`` if it is too large or no number."""
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) <= LARGEST else None  # NaN is not


def reader_for(answers: Iterable[Answer]) -> ValueReader:
    """Return a reader for the kind of answers that most recorded ones are of.

    :param answers: the recorded ones.
    :raises ValueError: if they are of no kind that is read without help.
    """
    given = [each for each in answers if not each.is_refused]
    texts = [each.meaning for each in given if each.meaning]
    if not texts and any(each.text for each in given):
        raise ValueError(
            "no recorded answer names an option of its question. Give value= (--value), a function that reads an "
            "answer's text as a number"
        )
    if not texts:
        raise ValueError(
            "no recorded answer contains text or a single tool call, so there is nothing to compare"
        )
    for make_reader in (_object_reader, _number_reader, _verdict_reader, _category_reader):
        reader = make_reader(texts)
        if reader is not None:
            return reader
    quoted = "; ".join(repr(text[:SHOWN_CHARACTERS]) for text in sorted(set(texts))[:SHOWN])
    raise ValueError(
        f"the answers are neither numbers, JSON objects with numbers or yes and no, nor at most {MOST_TEXTS} different "
        f"texts ({quoted}). Give value= (--value), a function that reads an answer's "
        "text as a number, or as None if it cannot be read"
    )


def _reads_most(reader: Reader, texts: Sequence[str]) -> bool:
    return sum(bool(reader(text)) for text in texts) >= FEWEST_READ * len(texts)


# JSON objects


def _object_in(text: str) -> Mapping[str, Any] | None:
    """Return the one JSON object in a text, or ``None``."""
    value = json_value(text) if "{" in text else None
    return value if isinstance(value, dict) else None


def _unwrapped(text: str) -> str:
    """Return an answer's text without the object in which structured output wraps it."""
    fields = _object_in(text)
    if fields is None or fields.keys() != {WRAPPED}:
        return text
    value = fields[WRAPPED]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _object_reader(texts: Sequence[str]) -> ValueReader | None:
    """Return a reader of the number fields and the yes-or-no fields of JSON objects."""
    objects = [each for each in map(_object_in, texts) if each and each.keys() != {WRAPPED}]
    if len(objects) < FEWEST_READ * len(texts):
        return None
    numbers: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    present: Counter[str] = Counter()
    for each in objects:
        for name, value in each.items():
            present[name] += value is not None
            numbers[name] += _field_number(value) is not None
            verdicts[name] += _field_verdict(value) is not None
    field_readers: dict[str, Callable[[Any], float | None]] = {}
    for name in present:
        if verdicts[name] and verdicts[name] >= FEWEST_READ * present[name]:
            field_readers[name] = _field_verdict
        elif numbers[name] and numbers[name] >= FEWEST_READ * present[name]:
            field_readers[name] = _field_number
    if not field_readers:
        return None

    def read_fields(text: str) -> Values:
        json_object = _object_in(text) or {}
        values = {
            name: field_readers[name](json_object.get(name)) for name in sorted(field_readers)
        }
        return {name: value for name, value in values.items() if value is not None}

    yes_or_no = [
        name for name, field_reader in field_readers.items() if field_reader is _field_verdict
    ]
    left_out = [name for name in present if present[name] and name not in field_readers]
    return ValueReader(read_fields, verdicts=yes_or_no, fields_left_out=left_out)


def _field_number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value)
    return _number(value) if isinstance(value, str) else None


def _field_verdict(value: Any) -> float | None:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _verdict(value)
    return None


# Texts


def _number(text: str) -> float | None:
    with suppress(OutputError):
        return _finite(read(text, float))
    return None


def _verdict(text: str) -> float | None:
    with suppress(OutputError):
        return float(read(text, bool))
    return None


def _answer_reader(read_number: Callable[[str], float | None]) -> Reader:
    def read_text(text: str) -> Values:
        value = read_number(_unwrapped(text))
        return {} if value is None else {ANSWER: value}

    return read_text


def _number_reader(texts: Sequence[str]) -> ValueReader | None:
    reader = _answer_reader(_number)
    return ValueReader(reader) if _reads_most(reader, texts) else None


def _verdict_reader(texts: Sequence[str]) -> ValueReader | None:
    """Return a reader of yes and no."""
    reader = _answer_reader(_verdict)
    return ValueReader(reader, verdicts=[ANSWER]) if _reads_most(reader, texts) else None


def _category(text: str) -> str:
    """Return what tells a text from others, whatever its case, quotes and stops."""
    return _spelling(text).casefold()


def _spelling(text: str) -> str:
    """Return a text without the quotes, Markdown marks and stops around it; "C#" keeps its mark."""
    *_, innermost = plain_words(_unwrapped(without_reasoning(text)))
    return innermost


def _category_reader(texts: Sequence[str]) -> ValueReader | None:
    """Return a reader of a few different texts: a share for each, or one if there are two."""
    spellings: dict[str, Counter[str]] = {}
    for text in texts:
        spellings.setdefault(_category(text), Counter())[_spelling(text)] += 1
    if len(spellings) > MOST_TEXTS:
        return None
    if len(spellings) > MOST_DIFFERENT * len(texts):
        warn_once(
            f"the recorded answers hardly repeat: {len(spellings)} different texts in {counted(len(texts), 'answer')}. "
            "Each text is read as an option, so a new answer with another text counts as unreadable, which may look "
            "like drift. If the answers are free texts, give value= (--value)",
            about="answers that hardly repeat",
        )
    names = {
        category: min(counts, key=lambda spelling: (-counts[spelling], spelling)) or "(empty)"
        for category, counts in sorted(spellings.items())
    }
    options = list(names)
    if len(options) == 2:
        options.pop()  # its share follows from that of the other one

    def read_category(text: str) -> Values:
        category = _category(text)
        if category not in names:
            return {}
        return {names[each]: float(each == category) for each in options}

    return ValueReader(read_category, options=[names[each] for each in options])
