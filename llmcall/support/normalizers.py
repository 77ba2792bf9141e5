"""Normalizers, which keep parts of a text, such as times, out of a request's key."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ZONE = r"(?: ?(?:Z|UTC|GMT|[+-]\d{2}:?\d{2})\b)?"
_YEAR = r"(?:19|20)\d{2}\b"
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
# In English, German, French, Spanish, Italian, Portuguese, Dutch, Russian and Polish
_WEEKDAY = (
    r"(?:(?:(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?\.?"
    r"|(?i:montag|dienstag|mittwoch|donnerstag|freitag|samstag|sonntag|lundi|mardi|mercredi|jeudi|vendredi|samedi"
    r"|dimanche|lunes|martes|miércoles|jueves|viernes|sábado|domingo|lunedì|martedì|mercoledì|giovedì|venerdì|sabato"
    r"|domenica|(?:segunda|terça|quarta|quinta|sexta)-feira|maandag|dinsdag|woensdag|donderdag|vrijdag|zaterdag|zondag"
    r"|понедельник|вторник|среда|четверг|пятница|суббота|воскресенье|poniedziałek|wtorek|środa|czwartek|piątek|sobota"
    r"|niedziela)),? )?"
)
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
# Months of dates such as "27. November 2026" and "27 de noviembre de 2026", in the same languages, in full
_FOREIGN_MONTH = (
    r"(?i:januar|februar|märz|mai|juni|juli|oktober|dezember|janvier|février|mars|avril|juin|juillet|août"
    r"|septembre|octobre|novembre|décembre|enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre"
    r"|noviembre|diciembre|gennaio|febbraio|aprile|maggio|giugno|luglio|settembre|ottobre|dicembre|janeiro"
    r"|fevereiro|março|maio|junho|julho|setembro|outubro|novembro|dezembro|januari|februari|maart|april|mei|augustus"
    r"|september|november|december|января|февраля|марта|апреля|мая|июня|июля|августа|сентября|октября|ноября|декабря"
    r"|stycznia|lutego|marca|kwietnia|maja|czerwca|lipca|sierpnia|września|października|listopada|grudnia)"
)
# A day and a time as names of files have it, with any sign between them or none.
_STAMP = (
    r"(?<!\d)(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[_T-]?(?:[01]\d|2[0-3])[0-5]\d"
    r"(?:[0-5]\d(?:[.,]?\d{3,6})?)?Z?(?!\d)"
)
# Seconds from 2014 to 2033, or milliseconds.
_UNIX_TIME = r"(?<![\w.,-])1[4-9]\d{8}(?:\.\d+|\d{3})?(?!\w|[.,]\d)"
# The texts that each named normalizer replaces by its name. A date in words or with slashes needs a year,
# because of "May 3 people enter?".
NORMALIZERS = {
    "times": (
        rf"{_STAMP}|{_UNIX_TIME}|\b\d{{4}}-W\d{{2}}(?:-\d)?\b"
        # Chinese, Japanese, Korean
        r"|\d{4}[年년] ?\d{1,2}[月월] ?\d{1,2}[日일]"
        r"(?: ?(?:[日月火水木金土]曜日|星期[一二三四五六日天]|[일월화수목금토]요일))?"
        rf"|\b(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}-{_MONTH}-{_YEAR}"
        rf"|{_WEEKDAY}{_DAY}\.?(?: de)? {_FOREIGN_MONTH}(?: de)? {_YEAR}"
        rf"|{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_YEAR}"
        rf"|{_WEEKDAY}{_DAY}(?: of|\.)? {_MONTH},? {_YEAR}"
        rf"|\d{{1,2}}(?P<mark>[/.])\d{{1,2}}(?P=mark){_YEAR}|{_YEAR}/\d{{1,2}}/\d{{1,2}})"
        rf"(?:(?:T|,? (?:at )?){_CLOCK}{_ZONE})?(?!\w)"
        # strftime("%c")
        rf"|\b{_WEEKDAY}{_MONTH} {{1,2}}{_DAY},? {_CLOCK}(?: [A-Z]{{3,5}})? {_YEAR}"
        rf"|\b{_CLOCK}"
    ),
    # With hyphens or without, also behind a prefix (thread_…), and ULIDs
    "uuids": (
        r"(?<![0-9A-Za-z])(?:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{32}|[0-9A-F]{32}"
        r"|(?=[A-Z]*[0-9][0-9A-Z]*[A-Z])[0-7][0-9A-HJKMNP-TV-Z]{25})(?![0-9A-Za-z])"
    ),
    "addresses": r"\b0x[0-9a-fA-F]{4,16}\b",
    "temporary_paths": (
        r"(?:/private)?(?:/var/folders/[^/\s]+/[^/\s]+/T|/var/tmp|/tmp|[A-Za-z]:\\[^\s\"']{0,260}?\\Temp)[/\\][^\s\"',;)\]}]+"
    ),
}


@lru_cache(maxsize=32)
def normalizer(names: tuple[str, ...]) -> Callable[[str], str] | None:
    """Return the function that replaces the parts of a text that do not matter.

    :param names: names of ``NORMALIZERS``, or regular expressions; the settings check them.
    :returns: the function, or ``None`` without names.
    """
    if not names:
        return None
    patterns = [(re.compile(NORMALIZERS.get(name, name)), replacement(name)) for name in names]

    def normalize(text: str) -> str:
        """Replace each match by its name."""
        for pattern, replaced in patterns:
            text = pattern.sub(replaced, text)
        return text

    return normalize


def replacement(name: str) -> str:
    """Return the text that a normalizer writes instead of a match."""
    return f"<{name}>" if name in NORMALIZERS else "<…>"
