"""The package itself: the names that it exports, its types and version, and what importing it
costs.
"""

from __future__ import annotations

import configparser
import inspect
import json
import re
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from commands import ran

import llmcall
from llmcall.additions import additions
from llmcall.config.cassette_modes import MODES

ROOT = Path(llmcall.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
EXPORTED = """
    __version__ LLMClient OpenAIClient AzureClient ResponseCache client register_client force_api_type
    force_api_cache reset settings configure configured scope bind arm seed cassette recorded compare usage track
    count_tokens budget map imap LLMCall llm http_client async_http_client patched
    aio testing types LLMCallError ConfigError APIError
    InvalidRequestError ContextLengthError AuthenticationError RateLimitError QuotaExceededError
    ServiceError RequestTimeoutError ContentFilterError EmptyAnswerError CacheError CacheMissError CacheCorruptError
    ScopeError BudgetExceededError TemplateError OutputError
"""
TYPES = """
    Reply Record Request Usage TokenUsage Stream AsyncStream Settings Endpoint Transport AsyncTransport Miss Answer
    Comparison ProgramRequest Cassette Storage
    CallInfo Received Listener
"""
HEAVY = {
    "openai",
    "tiktoken",
    "bpe_openai",
    "requests",
    "pydantic",
    "jinja2",
    "httpx",
    "httpx2",
    "tqdm",
    "diskcache",
    "tenacity",
    "dotenv",
    "pytest",
}


@pytest.mark.parametrize(("module", "names"), [(llmcall, EXPORTED), (llmcall.types, TYPES)])
def test_every_promised_name_is_exported(module: ModuleType, names: str) -> None:
    """``__all__`` has each name once, and ``dir`` shows them and those of features, and no other."""
    of_features = " ".join(additions("names" if module is llmcall else "types").values())
    assert {*names.split(), *of_features.split()} == set(module.__all__) == set(dir(module))
    assert len(module.__all__) == len(set(module.__all__))


def test_the_reference_groups_every_exported_name_once() -> None:
    """Its first page says what each is for."""
    page = (DOCS / "reference" / "index.rst").read_text(encoding="utf-8")
    named = re.findall(r"``(\w+)``", page)
    assert sorted(named) == sorted({"llmcall", *llmcall.__all__} - {"__version__"})


def test_the_readme_clones_the_repository_that_the_package_names() -> None:
    """A reader of either finds the other."""
    package = configparser.ConfigParser()
    package.read(DOCS.parent / "setup.cfg", encoding="utf-8")
    address = package["metadata"]["url"]
    assert f"git clone {address} && cd llmcall\n" in (DOCS.parent / "README.rst").read_text("utf-8")


@pytest.mark.parametrize("module", [llmcall, llmcall.types])
def test_an_exported_name_is_there_and_documented(module: ModuleType) -> None:
    """It is the same object at each look; a class or function has a docstring."""
    for name in module.__all__:
        value = getattr(module, name)
        assert getattr(module, name) is value, name
        assert not (inspect.isclass(value) or inspect.isfunction(value)) or value.__doc__, name


@pytest.mark.parametrize("module", ["aio", "testing", "types"])
def test_a_module_is_there_without_an_import_of_its_own(module: str) -> None:
    """``llmcall.aio``, ``llmcall.testing`` and ``llmcall.types`` are attributes of the package."""
    assert getattr(llmcall, module).__name__ == f"llmcall.{module}"


def test_a_star_import_gives_every_exported_name() -> None:
    """``from llmcall import *`` gives what ``__all__`` lists."""
    names: dict[str, object] = {}
    exec("from llmcall import *", names)
    assert set(llmcall.__all__) <= names.keys()


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    """The error is that of any module."""
    with pytest.raises(AttributeError, match="module 'llmcall' has no attribute 'send'"):
        _ = llmcall.send


@pytest.mark.parametrize("module", [llmcall, llmcall.types])
def test_type_checkers_see_every_exported_name(module: ModuleType) -> None:
    """The imports for type checkers have each of them, and the package says that it is typed."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    assert set(re.findall(r"import (\w+) as \1\n", source)) == set(module.__all__)
    assert (ROOT / "py.typed").exists()


MODULES = """
import json
import textwrap
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def imported_by(program: str, *arguments: object) -> set[str]:
    """Return the modules that a program has imported at its end, those at the top."""
    return set(json.loads(ran(textwrap.dedent(program) + MODULES, *arguments)))


def test_importing_the_package_imports_no_library() -> None:
    """Nor does looking at its names."""
    program = "llmcall.types.Reply, llmcall.APIError, llmcall.scope, llmcall.usage"
    assert not imported_by(program) & HEAVY


SLOW = {"dataclasses", "inspect"}  # of Python's own modules


def test_a_recorded_answer_imports_no_library(tmp_path: Path) -> None:
    """A hit of the cache needs none, only a reader of ``.env``; and no slow module of Python's."""
    ran(
        'ScriptedClient(["yes"], cache_mode="auto", cache_path=sys.argv[1]).send_message("Hello")',
        tmp_path / "cache",
    )
    program = """
        client = llmcall.OpenAIClient(cache_path=sys.argv[1], cache_mode="replay")
        with llmcall.scope(None):
            assert client.send_message("Hello").content == "yes"
    """
    modules = imported_by(program, tmp_path / "cache")
    assert not modules & (HEAVY - {"dotenv", "diskcache"})
    assert "redis" not in modules
    assert sorted(modules & SLOW) == []


def test_an_estimate_of_tokens_imports_no_library() -> None:
    """A model without a known vocabulary needs none, only a reader of ``.env``."""
    program = 'assert llmcall.count_tokens("hello", "some-model").estimated'
    assert not imported_by(program) & (HEAVY - {"dotenv"})


def test_the_reference_says_what_each_mode_of_a_cassette_does() -> None:
    table = (DOCS / "reference" / "replay.rst").read_text("utf-8").split("\n===========  ")[1]
    assert sorted(re.findall(r"^``(\w+)``", table, re.MULTILINE)) == sorted(MODES)


@pytest.mark.feature("pytest_plugin")
def test_the_reference_of_the_plugin_names_each_mode_of_a_cassette() -> None:
    page = (DOCS / "reference" / "pytest_plugin.rst").read_text("utf-8")
    assert f"``--llm-record={'|'.join(MODES)}``" in page
