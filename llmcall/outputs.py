"""Text to typed value: what a model answered, as the output type that the caller asked for.

Lenient in form, strict in meaning: fences, words around the value, units and Markdown are read
over; an answer that can be read in two ways is refused, so that it is asked again and not guessed.
The value must be the answer, or one of its phrases between punctuation, Markdown or quotes, as in
"Yes, I would." or "Answer: **7**". What only a sentence says ("I would not buy it", "about 5
million") is refused. JSON may have fences, comments, trailing commas and Python's names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from .errors import OutputError
from .requests import schemas
from .requests.schemas import is_choice, label_of, labels

# With this begins the message that asks again; in recordings it tells such calls from others.
CORRECTION = "I cannot use that answer"
_FENCE_LINE = re.compile(r"^[ \t]*(?:`{3,}|~{3,}(?!~))[^\n`]*$", re.MULTILINE)
_ELEMENTS = {str: "strings", bool: "true or false", int: "whole numbers", float: "numbers"}
_MAX_PROBLEMS = (
    5  # that a correction lists; a model mends those, and the next answer shows the rest
)


def read(text: str, output_type: Any, *, structured: bool = False) -> Any:
    """Read an answer as a type.

    :param text: the answer as the model gave it.
    :param output_type: ``str`` (the text unchanged), ``bool``, ``int``, ``float``, a ``Literal``,
        an ``Enum``, ``list`` or ``list[…]``, ``dict`` or ``dict[…]``, ``Optional`` of these,
        ``Annotated`` with pydantic's constraints, a pydantic model, a dataclass, a ``TypedDict``,
        or any other type that pydantic reads from JSON.
    :param structured: whether :func:`llmcall.requests.schemas.response_format` was asked for, which
        wraps what is no object as ``{"value": …}``.
    :raises OutputError: if the answer cannot be read as the type, or in more than one way.
    :raises TypeError: if pydantic cannot read the type.
    """
    if output_type is str:
        return text
    try:
        return (_read_structured if structured else _read)(text, output_type)
    except OutputError as error:
        error.text, error.expected = text, describe(output_type)
        raise
    except RecursionError:
        raise OutputError(
            "its JSON is nested too deeply", text=text, expected=describe(output_type)
        ) from None


def fields_of(output_type: Any) -> tuple[str, ...]:
    """Return the names of a pydantic model's, a dataclass's or a ``TypedDict``'s fields; of any
    other type there are none.
    """
    if get_origin(output_type) is Annotated:
        return fields_of(get_args(output_type)[0])
    inner = schemas.optional_type(output_type)
    if inner is not None:
        return fields_of(inner)
    if not isinstance(output_type, type):
        return ()
    if hasattr(output_type, "model_fields"):
        return tuple(output_type.model_fields)
    if is_dataclass(output_type):
        return tuple(field.name for field in fields(output_type))
    is_typed_dict = hasattr(output_type, "__total__")
    return tuple(output_type.__annotations__) if is_typed_dict else ()


def describe(output_type: Any, prompt: str = "", *, again: bool = False) -> str:
    """Return the sentence that tells the model what to answer; for ``str`` it is empty.

    :param prompt: what the model reads before it. If that holds all options of a ``Literal`` or
        ``Enum``, they are not listed a second time: models prefer the last list. A JSON schema has
        to list them, but does so in the order in which the prompt has them.
    :param again: whether the model did not keep to it. Then the options are listed in the order in
        which the prompt has them.
    """
    if output_type is str:
        return ""
    expected = _expected(output_type, prompt, again)
    return f"Answer with {expected}" if expected.endswith("}") else f"Answer with {expected}."


def correction(error: OutputError, expected: str) -> str:
    """Return the user message that asks again, with the reason and the expected form.

    :param error: what :func:`read` raised.
    :param expected: the sentence of :func:`describe`.
    """
    return f"{CORRECTION}: {error}.\n{expected}".rstrip()


def without_thoughts(text: str) -> str:
    """Return an answer without the reasoning before it, which a server may leave in."""
    thoughts, end, answer = text.rpartition("</think>")
    if end and ("<think>" not in thoughts or thoughts.lstrip().startswith("<think>")):
        return answer
    return text


def _read(text: str, output_type: Any) -> Any:
    if output_type is str:  # of an Optional
        return text
    text = without_thoughts(text)
    if output_type in (bool, int, float) or is_choice(output_type):
        plain = _FENCE_LINE.sub("", text)
        if plain.lstrip()[:1] in ("{", "["):
            containers(plain)  # raises if it is cut off: the value may lack its end
        return _converted(plain, output_type)
    if (inner := schemas.optional_type(output_type)) is not None:
        word = bare(text).lower()
        is_null = word in ("null", "none") and not (
            is_choice(inner) and word in map(str.lower, labels(inner))
        )
        return None if is_null else _read(text, inner)
    if (
        get_origin(output_type) is Annotated
        and schemas.simple_schema(get_args(output_type)[0]) is not None
    ):
        return _checked(
            schemas.adapter(output_type).validate_python, _read(text, get_args(output_type)[0])
        )
    kind = schemas.json_kind(output_type)
    values = containers(text, {"object": "{", "array": "["}.get(kind, "{["))
    if not values:
        if kind != "value":
            raise OutputError(f"it holds no JSON {kind}")
        return _read_scalar(text, output_type)
    return _only_fit(values, output_type)


def _read_structured(text: str, output_type: Any) -> Any:
    try:
        values = containers(text, "{")
    except OutputError:  # reading says more of what is broken
        return _read(text, output_type)
    if (
        len(values) == 1
        and values[0].keys() == {"value"}
        and schemas.json_kind(output_type) != "object"
    ):
        return _converted(values[0]["value"], output_type)
    return _read(text, output_type)


def _only_fit(values: list[Any], output_type: Any) -> Any:
    """Return the one of several JSON values that fits the type; the same value twice is one."""
    fits: dict[str, Any] = {}
    problems: list[OutputError] = []
    for value in values:
        try:
            fits[json.dumps(value, sort_keys=True)] = _converted(value, output_type)
        except OutputError as error:
            problems.append(error)
    if len(fits) > 1:
        raise OutputError(f"it holds {len(fits)} different JSON values that fit")
    if not fits:
        raise problems[0]
    return next(iter(fits.values()))


def _read_scalar(text: str, output_type: Any) -> Any:
    """Read what is no object or array: the text as a JSON scalar or a string, or without the marks
    around it.
    """
    value: Any = text.strip()
    with suppress(ValueError):
        value = _decoder.decode(_NAMES.get(value, value))
    try:
        return _validated(value, output_type)
    except OutputError:
        return _validated(bare(text), output_type)


def _converted(value: Any, output_type: Any) -> Any:
    """Turn a JSON value into the type; a string is read as an answer of its own."""
    if output_type in (str, bool, int, float):
        return _simple(value, output_type)
    if (inner := schemas.optional_type(output_type)) is not None:
        return None if value is None else _converted(value, inner)
    if is_choice(output_type):
        return choice(value if isinstance(value, str) else json.dumps(value), output_type)
    kind = get_origin(output_type) or output_type
    if kind not in (list, dict) or schemas.simple_schema(output_type) is None:
        return _validated(value, output_type)
    if not isinstance(value, kind):
        raise OutputError(f"it holds no JSON {'array' if kind is list else 'object'}")
    if not (elements := get_args(output_type)):
        return value
    converted = []
    for index, each in enumerate(value):
        try:
            converted.append(_converted(each, elements[0]))
        except OutputError as error:
            raise OutputError(f"element {index}: {error}") from error.__cause__
    return converted


def _simple(value: Any, kind: Any) -> Any:
    if type(value) is kind:
        return value
    if kind in (int, float) and type(value) in (int, float):
        value = json.dumps(value)
    if kind is str or not isinstance(value, str):
        misfits = {str: "it is no string", bool: "it is neither true nor false"}
        raise OutputError(misfits.get(kind, "it is no number"))
    if kind is bool:
        return choice(value, bool)
    return whole_number(value) if kind is int else float(number(value))


def _validated(value: Any, output_type: Any) -> Any:
    found = _checked(schemas.adapter(output_type).validate_json, json.dumps(value))
    if isinstance(found, float) and not abs(found) < float("inf"):
        raise OutputError(f"{found} is no number")
    return found


def _checked(validate: Callable[[Any], Any], value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        found = [
            (".".join(map(str, each["loc"])), each["msg"])
            for each in error.errors(include_url=False)
        ]
        # in any order by version
        problems = sorted(f"{place}: {said}" if place else said for place, said in found)
        more = (
            f"; and {len(problems) - _MAX_PROBLEMS} more" if len(problems) > _MAX_PROBLEMS else ""
        )
        raise OutputError("; ".join(problems[:_MAX_PROBLEMS]) + more) from error


def _expected(output_type: Any, prompt: str, again: bool) -> str:
    """Return in words what is expected, to follow "Answer with"."""
    words = {bool: "yes or no", int: "only a whole number", float: "only a number"}
    words |= {str: "a text", list: "only a JSON array", dict: "only a JSON object"}
    if isinstance(output_type, type) and output_type in words:
        return words[output_type]
    if is_choice(output_type):
        options = list(labels(output_type))
        if held := _options_in(prompt, options):
            if not again:
                return "exactly one of the options above"
            options = held
        if not all(
            re.fullmatch(r"[^\s,\"'](?:[^,\"'\n]*[^\s,\"'])?", option) for option in options
        ):
            options = [json.dumps(option, ensure_ascii=False) for option in options]
        return f"exactly one of: {', '.join(options)}"
    if (inner := schemas.optional_type(output_type)) is not None:
        return f"null, or with {_expected(inner, prompt, again)}"
    if get_origin(output_type) is list:
        element = get_args(output_type)[0]
        if named := _ELEMENTS.get(element):
            return f"only a JSON array of {named}"
        if not again and is_choice(element) and _options_in(prompt, list(labels(element))):
            return "only a JSON array; each element is one of the options above"
    schema = _as_in_prompt(schemas.full_schema(output_type), prompt)
    schema = json.dumps(schema, ensure_ascii=False)
    return f"only a JSON {schemas.json_kind(output_type)} that fits this JSON schema: {schema}"


def _as_in_prompt(schema: Any, prompt: str) -> Any:
    """Return a JSON schema whose options are in the order of the prompt, if that holds all of them."""
    if isinstance(schema, list):
        return [_as_in_prompt(each, prompt) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _as_in_prompt(item, prompt) for name, item in schema.items()}
    options = made.get("enum")
    if isinstance(options, list):
        by_text = {each if isinstance(each, str) else json.dumps(each): each for each in options}
        held = _options_in(prompt, list(by_text))
        if len(held) == len(options):  # the number 1 and the text "1" look the same
            made["enum"] = [by_text[text] for text in held]
    return made


def _options_in(text: str, options: list[str]) -> list[str]:
    """Return the options in the order of their first places in a text; none if it lacks one of them.

    They are sought as whole words in any case, but a single letter as it is.
    """
    longest_first = sorted(options, key=len, reverse=True)  # "very good" is not "good"
    words = "|".join(map(_phrase, longest_first))
    places: dict[str, int] = {}
    for match in re.finditer(rf"(?<!\w)(?<!\w-)(?:{words})(?!\w|-\w)", text, re.IGNORECASE):
        for option in options:
            if re.fullmatch(_phrase(option), match[0], re.IGNORECASE):
                places.setdefault(option, match.start())
    if len(places) < len(options):
        return []
    return sorted(options, key=places.__getitem__)


def _phrase(option: str) -> str:
    if len(option) == 1:
        return f"(?-i:{re.escape(option)})"
    return r"\s+".join(map(re.escape, option.split()))


_WRAPPING = " \t\r\n\ufeff\u200b*_`~\"'“”‘’«»„.!,:;#>()[]"
_VERDICTS = {"yes": True, "true": True, "no": False, "false": False}
_QUESTION = re.compile(r"(?<![^.!?\n])[^.!?\n]*\?")  # sought from a sentence's beginning alone
_BETWEEN_PHRASES = re.compile(r"\n|[.,;:!…]+(?![\w.,;:!…])|—|[()\[\]{}<>\"“”„«»*`#]+")
_DASH = re.compile(r"\s[-–]+\s")  # between words; before a number it may be a minus sign
_AROUND_PHRASE = " \t\r\ufeff\u200b'‘’_"
_LEAD_IN = re.compile(r"(?:(?:the|my|final)\s+)*answer(?:\s+is)?\s+", re.IGNORECASE)


def bare(text: str) -> str:
    """Return a text without the quotes, Markdown marks, brackets and stops around it."""
    return text.strip(_WRAPPING)


def _phrases(text: str) -> list[str]:
    """Return the phrases between punctuation in a text, without words that introduce an answer
    ("The answer is …").
    """
    found = (
        _LEAD_IN.sub("", phrase.strip(_AROUND_PHRASE), count=1)
        for phrase in _BETWEEN_PHRASES.split(text)
    )
    return [phrase for phrase in found if phrase]


def choice(text: str, output_type: Any) -> Any:
    """Read the one option that an answer names, in any case; an ``Enum``'s member also by its name
    or value.

    :param output_type: a ``Literal``, an ``Enum``, or ``bool``, whose options are yes and no, true
        and false.
    :raises OutputError: for an answer that names none, or several.
    """
    options = _VERDICTS if output_type is bool else labels(output_type)
    spellings = _spellings(options, output_type)

    def meant(words: str) -> list[str]:
        """Return the labels that some words may mean."""
        return [words] if words in options else spellings.get(_normal(words.strip("-– ")), [])

    for whole in (text.strip(), bare(text)):
        if len(found := meant(whole)) == 1:
            return options[found[0]]
    text = _DASH.sub("\n", _QUESTION.sub("", text))
    given = {options[label]: label for phrase in _phrases(text) for label in meant(phrase)}
    named = {
        options[label]: label
        for match in _pattern(tuple(spellings)).finditer(text)
        for label in meant(match[0])
    }
    if len(given) > 1 or (given and named.keys() - given.keys()):
        raise OutputError(
            f"it names more than one option: {', '.join({**given, **named}.values())}"
        )
    if not given:
        raise OutputError("it gives none of the options by itself")
    return options[next(iter(given.values()))]


def _normal(text: str) -> str:
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", text.replace("’", "'")).strip().lower()


def _spellings(options: Mapping[str, Any], output_type: Any) -> dict[str, list[str]]:
    """Return the labels that each lower-case spelling may mean: more than one if only case differs."""
    spellings: dict[str, list[str]] = {}
    for option in options:
        spellings.setdefault(_normal(option), []).append(option)
    for name, member in getattr(output_type, "__members__", {}).items():
        for other in (name, str(member.value)):
            spellings.setdefault(_normal(other), [label_of(member)])
    return spellings


@lru_cache(maxsize=64)
def _pattern(spellings: tuple[str, ...]) -> re.Pattern[str]:
    """Compile a search for whole words; the longest spelling comes first, so that "very good" is
    not "good".
    """
    longest_first = sorted(filter(None, spellings), key=lambda spelling: (-len(spelling), spelling))
    words = "|".join(map(_word, longest_first)) or "(?!)"
    return re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{words})(?![^\W_]|-[^\W_])", re.IGNORECASE)


def _word(spelling: str) -> str:
    if len(spelling) == 1:
        return f"(?-i:{re.escape(spelling.upper())})"  # "a" is an article
    return r"[\s_-]+".join(map(re.escape, spelling.split(" ")))


_PLAIN = str.maketrans({"−": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " "})
_NUMBER = re.compile(
    r"""
    (?P<sign>[-+]?) (?:[$€£¥₹]\ ?)?
    (?P<digits> [1-9][0-9]{0,2} (?P<separator>[,_\ ]) [0-9]{3} (?:(?P=separator)[0-9]{3})* | [0-9]+ | (?=\.[0-9]) )
    (?P<fraction>\.[0-9]+)? (?P<exponent>[eE][-+]?[0-9]+)? (?:\ ?[$€£¥₹])?
    """,
    re.VERBOSE,
)


def number(text: str) -> int | float:
    """Return the one number in a text.

    :param text: the answer.
    :returns: an ``int`` if the number is written without fraction and exponent, else a finite
        ``float``.
    :raises OutputError: if there is no number, if there are different ones, or if other text is
        attached to it.
    """
    text = text.translate(_PLAIN)
    if not re.search(r"\d", text):
        raise OutputError("it holds no number in digits")
    with_digits = [phrase for phrase in _phrases(text) if re.search(r"\d", phrase)]
    values = [_value(phrase) for phrase in with_digits]
    if any(value != values[0] for value in values):
        raise OutputError(
            f"it holds different numbers, {' and '.join(phrase[:20] for phrase in with_digits[:3])}"
        )
    return values[0]


def whole_number(text: str) -> int:
    """Return the one number in a text, which must be whole; ``3.0`` and ``1e3`` are.

    :raises OutputError: as :func:`number` does, and for a fraction.
    """
    value = number(text)
    if isinstance(value, float) and (not value.is_integer() or abs(value) >= 2**53):
        raise OutputError(f"{value!r} is no whole number, or not exactly one")
    return int(value)


def _value(phrase: str) -> int | float:
    match = _NUMBER.fullmatch(phrase)
    if match is None:
        raise OutputError(f"{phrase[:40]!r} is not a number by itself")
    whole = match["sign"] + re.sub("[,_ ]", "", match["digits"])
    value = float(whole + (match["fraction"] or "") + (match["exponent"] or ""))
    if abs(value) == float("inf"):
        raise OutputError("it holds a number too large to read")
    return value if match["fraction"] or match["exponent"] else int(whole)


_FENCED = re.compile(
    r"^[ \t>]*(`{3,}|~{3,}(?!~))[^`\n]*\n(.*?)(?:^[ \t>]*\1[`~]*\s*?$|\Z)", re.MULTILINE | re.DOTALL
)
_OPENING = re.compile(r"[\[{]")
_TOKEN = re.compile(
    # each alternative matches where it begins, closed or not: no part of a text is looked through
    # twice
    r"""(?P<string>"(?:[^"\\]|\\.)*"?) | '(?P<quoted>(?:[^'\\\n]|\\.)*)(?P<closed>'?) | (?P<bracket>[\[{\]}])
      | (?P<skip>[\s\ufeff\u200b]+|//[^\n]*|\#[^\n]*|/\*.*?(?:\*/|\Z)) | (?P<comma>,)
      | (?P<other>:|[^\s"'\[\]{},:/\#]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_NAMES = {"True": "true", "False": "false", "None": "null"}
# and no bracket of the prose
_MEANT = re.compile(r"""\{\s*(?:"[^"\n]*"|'[^'\n]*'|\w+)\s*:|\[\s*[\[{]""")
_MEANT_ARRAY = re.compile(r"""\[\s*(?:"|'|-?\d|(?:true|false|null|True|False|None)\b)""")


def containers(text: str, wanted: str = "{[") -> list[Any]:
    """Return the outermost JSON objects and arrays in a text.

    If fenced blocks hold a wanted value, only they are read.

    :param text: the answer.
    :param wanted: the brackets that the caller can use: ``"{"``, ``"["`` or both.
    :returns: the values that begin with a wanted bracket, in the order of the text.
    :raises OutputError: if JSON is broken or cut off; the message names line and column.
    """
    try:
        inside = [
            value for block in _FENCED.finditer(text) for value in _values_in(block[2], wanted)
        ]
        found = inside or _values_in(text, wanted)
        if "\\" in text or not text.isascii():
            json.dumps(found, ensure_ascii=False).encode()
    except ValueError:
        raise OutputError(
            "its JSON holds NaN, a number too large to read, or half of a surrogate pair"
        ) from None
    return found


def _values_in(text: str, wanted: str) -> list[Any]:
    values, position = [], 0
    while match := _OPENING.search(text, position):
        start = match.start()
        try:
            value, position = _decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if _MEANT.match(text, start) or ("[" in wanted and _MEANT_ARRAY.match(text, start)):
                value, position = _lenient_value_at(text, start, error)
            else:
                position = max(error.pos, match.end())
                continue
        if match[0] in wanted:
            values.append(value)
    return values


def _lenient_value_at(text: str, start: int, problem: json.JSONDecodeError) -> tuple[Any, int]:
    """Return a value and where it ends, read without comments and trailing commas, and with Python's
    quotes and names.

    :param problem: why it is not JSON.
    :raises OutputError: if it cannot be read this way either; the message names the place.
    """
    pieces: list[str] = []
    depth = 0
    for token in _TOKEN.finditer(text, start):
        kind, piece = token.lastgroup, token[0]
        if kind == "skip":
            continue
        if kind == "closed":
            piece = _requoted(token["quoted"]) if token["closed"] else piece
        elif kind == "bracket":
            depth += 1 if piece in "{[" else -1
            if piece in "}]" and pieces[-1] == "," and pieces[-2] not in ("[", "{", ","):
                pieces.pop()
        pieces.append(_NAMES.get(piece, piece))
        if depth == 0:
            break
    try:
        return _decoder.decode(" ".join(pieces)), token.end()
    except json.JSONDecodeError:
        if not text[problem.pos :].strip() or "Unterminated" in problem.msg:
            raise OutputError("its JSON is cut off before its end") from None
        place = f"line {problem.lineno}, column {problem.colno}"  # the rest differs between Pythons
        raise OutputError(f"its JSON is broken at {place}") from None


def _requoted(inside: str) -> str:
    return '"' + re.sub(r"\\'|\"", lambda found: "'" if found[0] != '"' else r"\"", inside) + '"'


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise OutputError(f"its JSON holds two values of the key {name!r}")
        found[name] = value
    return found


def _finite(written: str) -> float:
    value = float(written)  # also "NaN" and "-Infinity"
    if not math.isfinite(value):
        raise ValueError(f"{written[:20]} is no number of JSON")
    return value


_decoder = json.JSONDecoder(
    strict=False, object_pairs_hook=_checked_object, parse_float=_finite, parse_constant=_finite
)
