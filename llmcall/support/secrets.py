"""Text that looks like a credential, found before it is written to a file.

The forms come from "Supported secret scanning patterns" in GitHub's documentation and from the
providers' own pages. A secret has at least eight different characters, and letters and digits that mix. It is not a
placeholder: ``sk-xxxx``, ``your-api-key``, ``AKIAIOSFODNN7EXAMPLE`` and the password ``{password}`` pass. A pattern is
tried only if the text contains one of its keywords, and its only unbounded repetition is a run of token characters,
entered at the run's beginning: the time is linear in the text's length.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..errors import CacheError
from .data import Data
from .lazy_names import pattern
from .notices import warn_once

T = TypeVar("T")

FEWEST_CHARACTERS = 8  # of 16 random capitals and digits, fewer than 8 differ once in 20,000 times
BEGINNING_LENGTH = 4
MOST_SAFE_TEXTS = 100_000  # that are remembered, so that a large file takes no more memory

# not within a longer token; but after an escaped "\n", and after emphasis in Markdown ("_" or "__")
_OUTSIDE = r"(?<![A-Za-z0-9_+-])"
_TOKEN = rf"(?:{_OUTSIDE}|(?<=\\[nrt])|(?<={_OUTSIDE}_)|(?<={_OUTSIDE}__))"
# name: value, name = "value", \"name\": \"value\"
_ASSIGNMENT = r"[\"'\\]{0,3}\s{0,3}[:=]>?\s{0,3}[\"'\\]{0,3}"
_PLACEHOLDER = re.compile(
    r"x{4}|\*{3}|\.{3}|…|example|placeholder|redacted|changeme|password|passwd|your[-_]|^[$%{<]"
    r"|eyJzdWIiOiIxMjM0NTY3ODkw",  # jwt.io's token, of the subject 1234567890
    re.IGNORECASE,
)


# Names of fields that hold a credential, whatever its form: their endings, and names that may also
# mean something else.
_CREDENTIAL_NAME = pattern(
    r"(?:^|[-_ ]|(?<=[a-z])(?=[A-Z]))"
    r"(?:(?i:(?:api|access|secret|private|subscription|auth|client|account)[-_ ]?key|apikey"
    r"|(?:access|auth|refresh|session|bearer|api|ad|security)[-_ ]?token"
    r"|authorization|connection[-_ ]?string|password|passwd|secret|credentials?))$"
)
# Further names of headers with one: X-Subscription-Token, Helicone-Auth, Cookie, X-Goog-IAP-JWT-Assertion.
_CREDENTIAL_HEADER = pattern(r"(?i)(?:auth|token|cookie)$|jwt")
# Variables of the environment with one: DB_PASSWORD, PGPASSWORD, JIRA_TOKEN.
_CREDENTIAL_VARIABLE = pattern(
    r"(?i)(?:password|passwd|passphrase|token(?:_bedrock)?|secret|_pass|_pwd|_pat)$"
)
# A run that mixes letters and digits, as keys and tokens have; in a name, such as "publication_year_2024", they are
# apart.
_MIXED = r"(?<![A-Za-z0-9])(?=[A-Za-z0-9]{8})(?:[A-Za-z]+[0-9]|[0-9]+[A-Za-z])"
_COULD_BE_CREDENTIAL = pattern(rf"(?=\S*?{_MIXED})\S{{16,}}")
_RANDOM = re.compile(rf"{_MIXED}|^(?=.*[0-9])(?=.*[a-z])(?=.*[A-Z])")
_AMBIGUOUS_NAMES = frozenset({"key", "token", "auth", "sig", "signature"})
# A name and its value in a configuration file.
_SETTING = pattern(
    r"""(?:^|[{,])\s{0,40}(?:-\s{1,9}|export\s{1,9})?["']?([A-Za-z][\w. -]{0,60}?)["']?[ \t]{0,40}"""
    r"""[=:][ \t]{0,40}["']?([^\s"'#;,{}\[]+)""",
    re.MULTILINE,
)
# No values, and dummies that people write where a local server wants some key.
_DUMMY = re.compile(
    r"none|null|true|false|yes|no|[-~0]|x{1,3}"
    r"|empty|dummy|fake|unused|local|ollama|lm-studio|(?:sk-)?(?:not|no)[-_](?:needed|required|key)(?:[-_]required)?"
    r"|(?:gpt|claude|gemini|gemma|llama|mistral|qwen|deepseek)[-_.:0-9]\S*",  # models' names
    re.IGNORECASE,
)
LEFT_OUT = "<left out>"  # instead of a credential


SHORTEST_SECRET = 6  # characters; masking a shorter one would blot out ordinary words
SHORTEST_USED = 8  # characters; "ollama" and "EMPTY" are no secrets
SHORTEST_LOCAL = 16  # of a credential that only servers on this machine got: "token-abc123"
WORDS = re.compile(r"[A-Za-z]+(?:[-_][A-Za-z]+)*|[0-9]+")  # "local-key", "12345678"
SOUGHT_CHARACTERS = 40  # of a credential: a record cuts variables
MOST_USED = 1_000  # that are remembered: a function may give a token for each attempt
# Credentials of this process, the oldest first; in memory alone. ``True``: a request used it.
_used: dict[str, bool] = {}


class Match(NamedTuple):
    """The position of a credential in a text, without the credential itself.

    :param kind: its kind in words.
    :param start: the index of its first character.
    :param end: the index after its last character.
    :param beginning: its first characters; empty for one that a request used.
    """

    kind: str
    start: int
    end: int
    beginning: str


class _CredentialForm(NamedTuple):
    kind: str
    keywords: str  # in lower case, separated by "|"; a text without any of them is not searched
    pattern: str  # its group is the secret
    fewest: int = FEWEST_CHARACTERS  # if it is smaller, letters and digits need not mix


# Credentials that begin with a mark: the marks, whose they are, and the fewest characters after the mark.
_Marks: TypeAlias = tuple[tuple[str, str, int], ...]
# Of providers of models.
_MODELS_MARKS: _Marks = (
    ("sk-ant-", "an Anthropic API key", 20),
    ("sk-proj- sk-svcacct- sk-admin- ek_", "an OpenAI API key", 20),
    ("sk-", "an API key", 20),
    ("AIza", "a Google API key", 35),
    ("AQ.Ab", "a Google API key", 20),  # since September 2026
    ("ABSK bedrock-api-key-", "an Amazon Bedrock API key", 18),
    ("hf_ api_org_", "a Hugging Face token", 30),
    ("gsk_", "a Groq API key", 32),
    ("xai-", "an xAI API key", 32),
    ("pplx-", "a Perplexity API key", 32),
    ("nvapi-", "an NVIDIA API key", 32),
    ("r8_", "a Replicate token", 32),
    ("csk-", "a Cerebras API key", 32),
    ("fw_ fw3_", "a Fireworks API key", 20),
    ("tgp_v1_", "a Together API key", 20),
    ("pa-", "a Voyage API key", 30),
    ("jina_", "a Jina API key", 30),
    ("vck_", "a Vercel API key", 20),
    ("dapi", "a Databricks token", 32),
)
_OTHER_MARKS: _Marks = (
    ("sk-lf-", "a Langfuse secret key", 36),
    ("llx-", "a LlamaCloud API key", 20),
    ("fc-", "a Firecrawl API key", 20),
    ("tvly-", "a Tavily API key", 20),
    ("pcsk_", "a Pinecone API key", 20),
    ("lsv2_", "a LangSmith API key", 40),
    ("wandb_v1_", "a Weights & Biases API key", 20),
    ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", "a GitHub token", 22),
    ("glpat-", "a GitLab token", 20),
    ("ya29.", "a Google access token", 20),
    ("GOCSPX-", "a Google client secret", 20),
    ("xoxa- xoxb- xoxe- xoxp- xoxr- xoxs- xapp-", "a Slack token", 10),
    ("sk_live_ rk_live_ sk_test_ whsec_", "a Stripe key", 16),
    ("ntn_", "a Notion token", 40),
    ("lin_api_", "a Linear API key", 32),
    ("dop_v1_", "a DigitalOcean token", 40),
    ("SG.", "a SendGrid API key", 16),
    ("npm_", "an npm token", 36),
    ("pypi-AgE", "a PyPI token", 20),
)


def _marked(marks: _Marks) -> Iterator[_CredentialForm]:
    """Yield the forms of credentials with marks. What follows a key in its last word, such as the end of a base64
    text, goes with it.
    """
    for beginnings, kind, fewest in marks:
        for mark in beginnings.split():
            before = r"(?<!/)" if mark.isalpha() else ""  # a base64 text may hold it after a slash
            secret = rf"([A-Za-z0-9_-]{{{fewest},}})(?:[.+/~][A-Za-z0-9_-]{{4,}})*={{0,2}}"
            yield _CredentialForm(kind, mark.lower(), f"{_TOKEN}{before}{re.escape(mark)}{secret}")


_FORMS = (
    *_marked(_OTHER_MARKS),
    *_marked(_MODELS_MARKS),
    _CredentialForm(
        "an AWS access key",
        "akia|asia",
        _TOKEN + r"(?<!/)(?:AKIA|ASIA(?=[A-Z]*[0-9]))([A-Z0-9]{16})(?![A-Za-z0-9])",
        fewest=7,
    ),
    _CredentialForm(
        "a JSON Web Token",
        "eyj",
        _TOKEN + r"eyJ([A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,})",
    ),
    _CredentialForm(
        "a private key",
        "-----begin ",
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----[\s\\nr]{1,8}"
        r"(Proc-Type|Version|Comment|[A-Za-z0-9+/=]{16})",
        fewest=1,
    ),
    _CredentialForm(
        "a password in a URL",
        "://",
        r"://[^\s/?#:@\"'<>\\]{0,200}:([^\s/?#@\"'<>,;()\\]{1,200})@(?!localhost|127\.)[A-Za-z0-9\[]",
        fewest=2,
    ),
    _CredentialForm(
        "a signature in a URL",
        "sig=|signature=",
        r"(?i)[?&= -](?:sig|signature)=([a-z0-9%+/=_-]{40,})",
    ),
    _CredentialForm(
        "a bearer token", "bearer ", r"(?i)(?<![a-z])bearer {1,3}([a-z0-9._~+/-]{20,})"
    ),
    _CredentialForm(
        "a password",
        "authorization",
        rf"(?i)authorization{_ASSIGNMENT}basic {{1,3}}([a-z0-9+/]{{8,}})",
        fewest=6,
    ),
    _CredentialForm(
        "a key by its name",
        "key",
        r"(?i)(?:api[-_ ]?key|secret_?(?:access_?)?key|(?:account|sharedaccess)key)"
        rf"{_ASSIGNMENT}([a-z0-9/+]{{32,}})(?![a-z0-9(-]|_[a-z0-9]|\.[a-z])",
    ),
)
_USED = _CredentialForm("a credential that this program uses", "", "")
_MODELS_KINDS = {kind for _, kind, _ in _MODELS_MARKS}
_KEYWORDS = frozenset(keyword for form in _FORMS for keyword in form.keywords.split("|"))
# A field's value is searched together with its name if the name contains one of these.
_NAME_WORDS = ("bearer ", "authorization", "secret", "api-key", "api_key", "apikey", "api key")


def is_models_key(text: str) -> bool:
    """Return whether a text as a whole has the form of the key of a provider of models."""
    match = next(_secrets_in(text), None)
    return match is not None and match[0].kind in _MODELS_KINDS and len(match[1][0]) == len(text)


def find(text: str, allow: Sequence[str] = ()) -> Match | None:
    """Return the first match in a text that looks like a credential, or ``None``.

    :param allow: regular expressions; a match that one of them covers completely passes.
    """
    for form, match in _secrets_in(text):
        if not any(_covers(pattern, match) for pattern in allow):
            beginning = "" if form is _USED else match[0][:BEGINNING_LENGTH]
            return Match(form.kind, match.start(), match.end(), beginning)
    return None


def note_used(values: Iterable[str], *, is_local: bool = False, by_request: bool = True) -> None:
    """Note credentials that a request used, so that no written text holds one, whatever it looks like.

    :param values: those of headers, with or without a scheme (``Bearer …``), or of a query. Dummies are left out.
    :param is_local: ``True`` if a server on this machine got them: then short ones are dummies, too.
    :param by_request: ``False`` if only their variable's name says that they are credentials.
    """
    shortest = SHORTEST_LOCAL if is_local else SHORTEST_USED
    for value in values:
        for secret in (value.rpartition(" ")[2], basic_password(value)):
            if len(secret) < shortest or WORDS.fullmatch(secret) or _stands_for_one(secret):
                continue
            sought = secret[:SOUGHT_CHARACTERS]
            if len(_used) == MOST_USED and sought not in _used:
                with suppress(StopIteration, RuntimeError):  # another thread notes one, too
                    _used.pop(next(iter(_used)), None)
            _used[sought] = _used.get(sought, False) or by_request


def used_credentials() -> tuple[str, ...]:
    """Return prefixes of the credentials in use, for the process that writes the records."""
    return tuple(secret for secret, by_request in tuple(_used.items()) if by_request)


def note_request(request: Any, *, is_local: bool) -> None:
    """Note the credentials of an HTTP request of httpx or httpx2 that is recorded; see :func:`note_used`."""
    headers = request.headers.multi_items()
    fields = [*headers, *request.url.params.multi_items()]
    values = [value for name, value in fields if names_credential(name, include_ambiguous=True)]
    for name, value in headers:
        if _CREDENTIAL_HEADER.search(name) or value.lower().startswith("bearer "):
            cookies = value.split(";") if name.lower() == "cookie" else ()
            values += [value, *(cookie.partition("=")[2] for cookie in cookies)]
    note_used([*values, request.url.password or ""], is_local=is_local)


def note_environment(environment: Mapping[str, str]) -> None:
    """Note the credentials that an environment holds, since a program may print it into a prompt.

    The names of variables tell which they are; passwords of proxies count, paths do not.
    """
    for name, value in environment.items():
        if _CREDENTIAL_VARIABLE.search(name) or names_credential(name):
            if not value.startswith(("/", "~", ".")):
                note_used([value], by_request=False)
        elif name.lower().endswith("_proxy") and "@" in value:
            # It takes 2 ms to import, and most replays do not need it.
            from urllib.parse import unquote

            note_used([unquote(value.rpartition("@")[0].rpartition(":")[2])])


def is_used(value: str) -> bool:
    """Return whether a request of this process used a value as its credential."""
    return _used.get(value[:SOUGHT_CHARACTERS], False)


def basic_password(header: str) -> str:
    """Return the password in a basic authorization header, or ``""``."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(encoded).decode().partition(":")[2]
    except ValueError:
        return ""


def find_setting(text: str, allow: Sequence[str]) -> Match | None:
    """Return the first value in a configuration file that is a credential by its name, whatever it
    looks like, or ``None``. A reference such as ``${NAME}`` passes.

    :param allow: see :func:`find`.
    """
    for match in _SETTING.finditer(text):
        name, value = match.groups()
        if not names_credential(name) or _stands_for_one(value):
            continue
        if not any(_covers(pattern, match) or re.fullmatch(pattern, value) for pattern in allow):
            return Match(f"the credential {name}", match.start(1), match.end(2), name)
    return None


def masked(text: str) -> str:
    """Return a text of the same length with asterisks for what looks like a credential."""
    while matches := list(_secrets_in(text)):
        for _, match in matches:
            text = text[: match.start()] + "*" * len(match[0]) + text[match.end() :]
    return text


def refuse_credentials(
    data: Data, allow: Sequence[str], data_name: str, safe_texts: set[int] | None = None
) -> None:
    """Check that nothing in plain data looks like a credential, keys included, bytes excluded.

    :param allow: see :func:`find`.
    :param data_name: the error's name for the data, e.g. ``record 3``.
    :param safe_texts: the hashes of texts that are known to pass; the data's are added.
    :raises CacheError: if something does, naming its location, such as
        ``request.messages[2].content``.
    """
    safe_texts = set() if safe_texts is None else safe_texts
    for place, name, value in _texts_in(data):
        text = f"{name}: {value}" if _suggests_secret(name) else value
        if hash(text) in safe_texts:
            continue
        if (match := find(text, allow)) is not None:
            what = f"what looks like {match.kind} ({match.beginning}…)"
            raise CacheError(
                f"{data_name}: {_location(place)} contains {what if match.beginning else match.kind}. Leave it out or, "
                "if it is not a secret, set [Cassette] ALLOW to a regular expression that matches all of it"
            )
        if len(safe_texts) == MOST_SAFE_TEXTS:
            safe_texts.clear()
        safe_texts.add(hash(text))


@lru_cache(maxsize=1000)
def names_credential(name: str, *, include_ambiguous: bool = False) -> bool:
    """Return whether a field holds a credential by its name, whatever its value looks like.

    :param include_ambiguous: ``True`` if ambiguous names, such as ``key``, count.
    """
    return bool(_CREDENTIAL_NAME.search(name)) or (
        include_ambiguous and name.lower() in _AMBIGUOUS_NAMES
    )


def without_query_credentials(
    query: Iterable[tuple[str, T]], address: str, *, also: Collection[str] = ()
) -> Iterator[tuple[str, T]]:
    """Yield the parameters of a query whose names do not suggest credentials; warn of the others.

    :param query: names and values.
    :param address: names the request in the warning.
    :param also: further names of credentials.
    """
    for name, value in query:
        if names_credential(name, include_ambiguous=True) or name in also:
            warn_once(
                f"{address}: judging by its name, the query parameter {name!r} is a credential. llmcall sends it, but "
                "neither records it nor makes it part of the key"
            )
        else:
            yield name, value


def without_credentials(data: Data) -> Data:
    """Return a copy of plain data with ``LEFT_OUT`` for each text in a field that holds a credential
    by its name, which is noted as used. The ``type`` of an object may say what its field ``key`` holds:
    ``{"type": "api_key", "key": …}``.
    """
    if isinstance(data, list):
        return [without_credentials(item) for item in data]
    if not isinstance(data, dict):
        return data
    copy = {}
    kind = data.get("type")
    holds_credential = isinstance(kind, str) and (
        names_credential(kind) or kind == "key_and_key_id"
    )
    for name, item in data.items():
        is_credential = isinstance(item, str) and names_credential(
            name, include_ambiguous=holds_credential
        )
        copy[name] = LEFT_OUT if is_credential else without_credentials(item)
        if is_credential:
            note_used([item])
    return copy


def refuse_named_credentials(body: Data, allow: Sequence[str], data_name: str) -> None:
    """Check that no field of a body with an ambiguous name, ``key`` or ``token``, holds what may be a credential.

    Such names are common in data (a filter's attribute, a sort key): the value decides.

    :param body: without the credentials that :func:`without_credentials` leaves out.
    :param allow: see :func:`find`.
    :param data_name: the error's name for the body.
    :raises CacheError: if one may, naming it.
    """
    for place, name, value in _texts_in(body):
        if value == LEFT_OUT or not names_credential(name, include_ambiguous=True):
            continue
        # Signatures are part of what models answer: Anthropic's API signs the thinking that later
        # requests repeat ("Extended thinking", its documentation).
        is_signature = name.lower() in ("sig", "signature")
        if is_signature or not _COULD_BE_CREDENTIAL.fullmatch(value):
            continue
        if not any(re.fullmatch(pattern, value) for pattern in allow):
            raise CacheError(
                f"{data_name}: its field {_location(place)!r} looks like a credential. Send it in a header or, if "
                "it is not a secret, set [Cassette] ALLOW to a regular expression that matches all of it"
            )


def _secrets_in(text: str) -> Iterator[tuple[_CredentialForm, re.Match[str]]]:
    """Yield what looks like a credential, with its form: all of the first form, then of the next; last what a request
    used.
    """
    lowercase_text = text.lower()
    is_plain = not any(map(lowercase_text.__contains__, _KEYWORDS))  # quicker than one by one
    for form in () if is_plain else _FORMS:
        if any(keyword in lowercase_text for keyword in form.keywords.split("|")):
            for match in re.finditer(form.pattern, text):
                secret = match[1]
                is_real = len({*secret}) >= form.fewest and not _PLACEHOLDER.search(secret)
                if is_real and (form.fewest < FEWEST_CHARACTERS or _RANDOM.search(secret)):
                    yield form, match
    for used in tuple(_used):  # another thread may note one at any time
        if used in text:
            rest = r"\S*" if len(used) == SOUGHT_CHARACTERS else ""
            for match in re.finditer(re.escape(used) + rest, text):
                yield _USED, match


def _stands_for_one(value: str) -> bool:
    """Return whether a value only stands for a credential, or for none."""
    return bool(_DUMMY.fullmatch(value) or _PLACEHOLDER.search(value))


def _covers(expression: str, match: re.Match[str]) -> bool:
    matches = re.finditer(expression, match.string)
    return any(other.start() <= match.start() and other.end() >= match.end() for other in matches)


# Where something is in plain data: the names and indexes that lead to it; ``None`` at the end for a name itself. Words
# are made of it only for an error.
Place: TypeAlias = "tuple[str | int | None, ...]"


def _location(place: Place) -> str:
    """Return a place in words, such as ``request.messages[2].content``."""
    words = ""
    for part in place:
        if part is None:
            return f"a key of {words or 'the data'}"
        words += f"[{part}]" if isinstance(part, int) else f".{part}"
        words = words.lstrip(".")
    return words


def _texts_in(data: Data, place: Place = (), name: str = "") -> Iterator[tuple[Place, str, str]]:
    """Yield each text in plain data, keys included: its place, the name of its field (empty for
    items of a list, and for keys), and the text.
    """
    if isinstance(data, str):
        yield place, name, data
    elif isinstance(data, dict):
        for key, item in data.items():
            yield (*place, None), "", key
            yield from _texts_in(item, (*place, key), key)
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from _texts_in(item, (*place, index))


@lru_cache(maxsize=1000)
def _suggests_secret(name: str) -> bool:
    return any(word in name.lower() for word in _NAME_WORDS)
