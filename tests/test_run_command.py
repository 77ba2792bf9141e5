"""``llmcall run``: programs that do not know llmcall, each in a process of its own."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import done, written
from programs import ASK, LONGEST, PRICED
from pytest_httpserver import HTTPServer
from servers import NumberedServer

NOWHERE = "http://127.0.0.1:9/v1"  # nobody listens there


@pytest.fixture
def model(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> NumberedServer:
    """A model's server, which the programs of a test find."""
    made = NumberedServer(httpserver)
    monkeypatch.setenv("MODEL_AT", made.address)
    monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
    return made


def ran(
    program: str, *options: str, code: int = 0, **named: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program under ``llmcall run`` in a fresh process, and check its exit code."""
    Path("program.py").write_text(ASK + textwrap.dedent(program), encoding="utf-8")
    command = [sys.executable, "-m", "llmcall", "run", *options, "program.py"]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=LONGEST, **named
    )
    assert ended.returncode == code, ended.stderr
    return ended


def refused(*options: str) -> str:
    """Return what ``llmcall run`` says when it refuses its options, and check that no program starts.

    It runs in this process: it ends before there is a program to run.
    """
    said = done("run", *options, written("program.py", "print('started')\n"), code=2)
    assert "started" not in said
    return " ".join(said.split())


def samples(path: str) -> list[str]:
    """Return the samples of a cassette's records."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    return [entry["sample"] for entry in map(json.loads, lines) if "sample" in entry]


BREAD_AND_MILK = "ask('Bread?'); ask('Milk?')"
RECORDED = "--scope", "rep-1", "--seed", "3", "--normalize", "times"
# Programs, and the options with which they are recorded, of which several tests need the recording.
RECORDINGS = {
    "one call with options": [("ask('Bread?')", ("--cassette", "a.jsonl", *RECORDED))],
    "two calls": [(BREAD_AND_MILK, ("--cassette", "a.jsonl"))],
    "three calls": [(f"{BREAD_AND_MILK}; ask('Fish?')", ("--cassette", "a.jsonl"))],
    "two with equal options and one with others": [
        ("ask('Bread for a?')", ("--cassette", "a.jsonl", "--normalize", "times")),
        ("ask('Bread for b?')", ("--cassette", "b.jsonl", "--normalize", "times")),
        (
            "ask('Bread for c?')",
            ("--cassette", "c.jsonl", "--normalize", "times", "--scope", "rep-2"),
        ),
    ],
}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns a folder with a recording, which is made when it is first needed."""

    @functools.cache
    def record(name: str) -> Path:
        folder = tmp_path_factory.mktemp("recording")
        with HTTPServer() as server, pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("MODEL_AT", NumberedServer(server).address)
            monkeypatch.setenv("LLMCALL_CONFIG", str(PRICED))
            monkeypatch.chdir(folder)
            for program, options in RECORDINGS[name]:
                ran(program, *options)
        return folder

    return record


@pytest.fixture
def recorded(
    request: pytest.FixtureRequest, recordings: Callable[[str], Path], model: NumberedServer
) -> NumberedServer:
    """A model's server, beside a copy of the recording that the test names."""
    shutil.copytree(recordings(request.param), Path.cwd(), dirs_exist_ok=True)
    return model


def with_recording(name: str) -> pytest.MarkDecorator:
    """Return the mark of a test that needs a recording."""
    return pytest.mark.parametrize("recorded", [name], indirect=True)


# Who is asking


@pytest.mark.newest_only
def test_a_function_of_a_module_names_actors(model: NumberedServer) -> None:
    """``--actor MODULE:FUNCTION`` takes the module beside the script."""
    Path("naming.py").write_text(
        "def who(request): return request.body['messages'][-1]['content'].split()[0]\n"
    )
    ran("ask('Lisa asks'); ask('Bart asks')", "--cassette", "a.jsonl", "--actor", "naming:who")
    assert samples("a.jsonl") == ["Bart#0", "Lisa#0"]


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ("user:(", "its regular expression is invalid"),
        ("user:x", "has no group"),
        ("nobody", '--actor is \'nobody\'; it must be "system", "header:NAME", "user:REGEX"'),
        ("nowhere:who", "the module 'nowhere' is neither in the script's folder nor installed"),
        ("json:who", "the module 'json' has no function 'who'"),
        ("json:__name__", "__name__ is not a function of the request"),
    ],
)
def test_a_wrong_actor_is_refused_before_the_program_starts(actor: str, message: str) -> None:
    """The exit code is 2, as for any wrong option."""
    assert message in refused("--actor", actor)


# Chance and clocks


def header(path: str) -> dict[str, Any]:
    """Return the header of a cassette."""
    first, *_ = Path(path).read_text(encoding="utf-8").splitlines()
    return json.loads(first)  # type: ignore[no-any-return]


CHANCE = """
import random, sys
own = random.Random()
words = {f"word {n}" for n in range(20)}
print(ask(f"{random.random()} {own.random()} {random.Random().random()} {list(words)}"))
print(ask(f"{random.Random(3).random()} and {sys.stdin.read()} and {sys.argv[1:]}"))
random.seed()
print(ask(f"{random.random()}"))
"""


ASKING = {"input": "from stdin"}


def test_a_seed_fixes_the_programs_own_chance(model: NumberedServer) -> None:
    """Two fresh processes draw the same: unseeded generators, the order of sets."""
    recorded = ran(CHANCE, "--cassette", "a.jsonl", "--seed", "7", **ASKING).stdout
    assert ran(CHANCE, "--cassette", "a.jsonl", "--mode", "none", **ASKING).stdout == recorded


@pytest.mark.newest_only
def test_a_seeded_program_has_its_own_arguments_and_standard_input(model: NumberedServer) -> None:
    """Though Python starts twice."""
    ran(CHANCE, "--cassette", "a.jsonl", "--seed", "7", **ASKING)
    assert "from stdin and []" in json.dumps(model.asked)


@pytest.mark.newest_only
def test_another_seed_is_another_chance(model: NumberedServer) -> None:
    """The header has the seed."""
    ran(CHANCE, "--cassette", "a.jsonl", "--seed", "7", **ASKING)
    ran(CHANCE, "--cassette", "b.jsonl", "--seed", "8", **ASKING)
    assert [header(path)["run"] for path in ("a.jsonl", "b.jsonl")] == [{"seed": 7}, {"seed": 8}]
    first, second = (model.asked[n].split() for n in (0, 3))
    assert not {*first[:3]} & {*second[:3]}


def test_a_seed_fixes_numpys_chance(model: NumberedServer) -> None:
    """NumPy's own generator, and generators and seed sequences that are made without a seed."""
    pytest.importorskip("numpy")
    program = """
    import numpy as np
    drawn = np.random.rand(), np.random.default_rng().random(), np.random.SeedSequence().entropy
    print(ask(f"{drawn} {np.random.RandomState().rand()} {np.random.default_rng().random()}"))
    """
    recorded = ran(program, "--cassette", "a.jsonl", "--seed", "7").stdout
    assert ran(program, "--cassette", "a.jsonl", "--mode", "none").stdout == recorded
    drawn = model.asked[0].split()
    assert drawn[1] != drawn[-1]


@pytest.mark.newest_only
def test_threads_draw_the_same_whichever_is_first(model: NumberedServer) -> None:
    """An unseeded generator's seed depends on the thread that makes it, not on the other threads."""
    pytest.importorskip("numpy")
    program = """
    import random, threading, numpy
    from concurrent.futures import ThreadPoolExecutor
    both_begun, other_is_done = threading.Barrier(2), threading.Event()
    def draw(number):
        both_begun.wait()
        if number == {last}:
            other_is_done.wait()
        drawn = random.Random().random(), numpy.random.default_rng().random()
        other_is_done.set()
        return ask(f"{{drawn}}")
    with ThreadPoolExecutor(2) as pool:
        print(*pool.map(draw, range(2)))
    """
    options = "--cassette", "a.jsonl", "--seed", "7"
    recorded = ran(program.format(last=0), *options).stdout
    replayed = ran(program.format(last=1), *options, "--mode", "none").stdout
    assert replayed == recorded
    assert len({*model.asked}) == 2


def test_a_seed_makes_no_secret_known(model: NumberedServer) -> None:
    """uuid4, secrets, and the names of temporary files stay another in each run."""
    program = """
    import random, secrets, tempfile, uuid
    print(uuid.uuid4(), secrets.token_hex(), tempfile.mktemp(), random.SystemRandom().random())
    """
    one, other = (ran(program, "--seed", "7").stdout.split() for _ in range(2))
    assert not {*one} & {*other}


@pytest.mark.newest_only
@pytest.mark.parametrize("option", ["-I", "-E"])
@pytest.mark.parametrize("hash_seed", [None, "7"])
def test_a_seed_is_refused_if_python_ignores_the_hash_seed(
    option: str, hash_seed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An isolated Python reads no environment, so the order of its sets would be left to chance,
    even if the environment names the seed.
    """
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    if hash_seed is not None:
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
    command = [sys.executable, option, "-m", "llmcall", "run", "--seed", "7"]
    program = written("program.py", "print('started')")
    ended = subprocess.run(
        [*command, program], capture_output=True, text=True, check=False, timeout=LONGEST
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--seed 7 cannot set the hash seed" in ended.stderr


@pytest.mark.newest_only
def test_what_a_run_normalizes_moves_no_key(model: NumberedServer) -> None:
    """The cassette says it to replays."""
    program = """
    import datetime, uuid
    print(ask(f"It is {datetime.datetime.now().isoformat()}, {uuid.uuid4()}, ticket {id(object())}"))
    """
    options = "--normalize", "times, uuids", "--normalize", r"ticket \d+"
    recorded = ran(program, "--cassette", "a.jsonl", *options).stdout
    assert header("a.jsonl")["run"] == {"normalizers": ["times", "uuids", r"ticket \d+"]}
    assert ran(program, "--cassette", "a.jsonl", "--mode", "none").stdout == recorded
    assert len(model.asked) == 1


@pytest.mark.parametrize("option", ["--normalize", "--seed"])
def test_a_wrong_option_is_refused_before_the_program_starts(option: str) -> None:
    """The exit code is 2."""
    assert option in refused(option, "(")


# What a cassette says to its replays


@pytest.mark.newest_only
def test_a_replay_takes_its_options_from_the_cassette(model: NumberedServer) -> None:
    """Scope, actor, normalizers and seed stand in the header; a replay may leave them out."""
    Path("naming.py").write_text(
        "def who(request): return request.body['messages'][-1]['content'].split()[0]\n"
    )
    options = "--scope", "rep-1", "--actor", "naming:who", "--seed", "3", "--normalize", "times"
    program = "print(ask('Lisa asks at 12:03'), ask('Lisa asks at 12:04'))"
    recorded = ran(program, "--cassette", "a.jsonl", *options).stdout
    assert header("a.jsonl")["run"] == {
        "actor": "naming:who",
        "normalizers": ["times"],
        "scope": "rep-1",
        "seed": 3,
    }
    for given in ((), options):
        assert ran(program, "--cassette", "a.jsonl", "--mode", "none", *given).stdout == recorded
    assert samples("a.jsonl") == ["rep-1/Lisa#0", "rep-1/Lisa#1"]


@pytest.mark.newest_only
@with_recording("one call with options")
@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ("--scope", "rep-2"),
            "--scope rep-2 contradicts a.jsonl, which was recorded with --scope rep-1",
        ),
        (
            ("--actor", "system"),
            "--actor system contradicts a.jsonl, which was recorded with no --actor",
        ),
        (("--seed", "4"), "recorded with --seed 3"),
        (("--normalize", "uuids"), "recorded with --normalize times"),
    ],
)
def test_an_option_that_contradicts_the_cassette_is_refused(
    option: tuple[str, str], message: str
) -> None:
    """Before the program starts; the error names both."""
    assert message in refused("--cassette", "a.jsonl", *option)


OTHER_SEED = "--cassette", "a.jsonl", "--seed", "4"


@pytest.mark.newest_only
@with_recording("one call with options")
@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("mode", ["none", "new"])
def test_a_cassette_that_is_continued_or_replayed_keeps_its_options(mode: str) -> None:
    """Another one is refused."""
    assert "recorded with --seed 3" in refused(*OTHER_SEED, "--mode", mode)


@pytest.mark.newest_only
@with_recording("one call with options")
def test_a_cassette_that_is_rewritten_gets_new_options(recorded: NumberedServer) -> None:
    """``rewrite`` starts a new recording."""
    ran("ask('Bread?')", *OTHER_SEED, "--mode", "rewrite")
    assert header("a.jsonl")["run"] == {"seed": 4}
    assert recorded.asked == ["Bread?"]


@pytest.mark.newest_only
def test_a_cassette_of_code_holds_no_run(model: NumberedServer) -> None:
    """Normalizers cannot be added to it by an option: its keys were made without them."""
    program = "import llmcall\nwith llmcall.cassette('a.jsonl'): ask('Bread?')"
    ran(program)
    assert "run" not in header("a.jsonl")
    said = refused("--cassette", "a.jsonl", "--normalize", "times")
    assert "--normalize times contradicts a.jsonl" in said


@pytest.mark.newest_only
@with_recording("two with equal options and one with others")
@pytest.mark.usefixtures("recorded")
def test_merged_cassettes_keep_equal_options() -> None:
    """They stand in the header of what is merged."""
    done("cassette", "merge", "a.jsonl", "b.jsonl", "-o", "ab.jsonl")
    assert header("ab.jsonl")["run"] == {"normalizers": ["times"]}


@pytest.mark.newest_only
@with_recording("two with equal options and one with others")
@pytest.mark.usefixtures("recorded")
def test_different_options_of_merged_cassettes_must_be_given_again() -> None:
    """The header of what is merged has none, and the command says so."""
    told = done("cassette", "merge", "a.jsonl", "c.jsonl", "-o", "ac.jsonl")
    assert "run" not in header("ac.jsonl")
    assert "recorded with different options of llmcall run, so ac.jsonl contains none" in told


# The scope of a run


SCOPES = """
import threading, llmcall
print(ask("Bread?"), ask("Bread?"))
thread = threading.Thread(target=lambda: print(ask("Bread?")))
thread.start()
thread.join()
with llmcall.scope("day-1"):
    print(ask("Bread?"), ask("Bread?"))
print(ask("Bread?", system="You are Lisa."))
"""


@pytest.mark.newest_only
def test_equal_calls_outside_any_scope_are_draws_of_the_scope_run(model: NumberedServer) -> None:
    """In any thread; scopes of the program's own keep their paths."""
    ran(SCOPES, "--cassette", "a.jsonl")
    assert samples("a.jsonl") == ["day-1#0", "day-1#1", "run#0", "run#1", "run#2", "run#0"]
    assert header("a.jsonl")["run"] == {}
    assert len(model.asked) == 6


@pytest.mark.newest_only
@pytest.mark.parametrize("options", [(), ("--cassette", "a.jsonl")], ids=["cache", "cassette"])
def test_draws_of_the_scope_run_are_replayed(
    options: tuple[str, ...], model: NumberedServer
) -> None:
    """From a cassette, and from the cache alone."""
    recorded = ran(SCOPES, *options).stdout
    asked = len(model.asked)
    assert ran(SCOPES, *options).stdout == recorded
    assert len(model.asked) == asked


@pytest.mark.newest_only
def test_a_request_that_names_no_actor_stands_in_the_runs_scope(model: NumberedServer) -> None:
    """Actors keep their own paths, and a warning tells of the others."""
    ended = ran(SCOPES, "--cassette", "a.jsonl", "--actor", "user:^(Milk)")
    assert "a request names no actor" in ended.stderr
    program = "ask('Milk?'); ask('Bread?')"
    ran(program, "--cassette", "b.jsonl", "--actor", "user:^(Milk)")
    assert samples("b.jsonl") == ["Milk#0", "run#0"]


@pytest.mark.newest_only
def test_only_scope_puts_all_below_a_name(model: NumberedServer) -> None:
    """``--scope NAME`` is the scope of the whole process."""
    ran(SCOPES, "--cassette", "a.jsonl", "--scope", "rep-1")
    assert {sample.partition("/")[0].partition("#")[0] for sample in samples("a.jsonl")} == {
        "rep-1"
    }
    assert "rep-1/day-1#1" in samples("a.jsonl")


@pytest.mark.newest_only
def test_an_earlier_cassette_replays_without_the_runs_scope(model: NumberedServer) -> None:
    """It has no ``run`` in its header: its equal requests share one answer, as they were recorded."""
    ran(
        "import llmcall\nwith llmcall.cassette('a.jsonl'), llmcall.scope(None): print(ask('Bread?'))"
    )
    program = "print(ask('Bread?'), ask('Bread?'))"
    assert ran(program, "--cassette", "a.jsonl", "--mode", "none").stdout == "answer 0 answer 0\n"
    ran("print(ask('Bread?'), ask('Milk?'))", "--cassette", "a.jsonl", "--mode", "new")
    assert "run" not in header("a.jsonl")
    assert samples("a.jsonl") == []


# How a run ends


def last_lines(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a run says of its calls at its end."""
    told = ended.stderr.splitlines()
    return [line for line in told if " from the cache, " in line or " no call used" in line]


def test_the_last_line_counts_what_was_asked(model: NumberedServer) -> None:
    """Nothing was recorded before."""
    ended = ran(BREAD_AND_MILK, "--cassette", "a.jsonl")
    assert last_lines(ended) == ["2 asked, 0 from the cache, 0 replayed, 0 refused: a.jsonl"]


@pytest.mark.newest_only
@with_recording("two calls")
@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("path", "counted"),
    [("a.jsonl", "0 from the cache, 2 replayed"), ("b.jsonl", "2 from the cache, 0 replayed")],
)
def test_the_last_line_tells_the_cache_from_a_cassette(path: str, counted: str) -> None:
    """A new cassette gets its answers from the cache."""
    ended = ran(BREAD_AND_MILK, "--cassette", path)
    assert last_lines(ended) == [f"0 asked, {counted}, 0 refused: {path}"]


@pytest.mark.newest_only
@with_recording("two calls")
@pytest.mark.usefixtures("recorded")
def test_the_last_line_counts_what_was_refused() -> None:
    """Though the program goes on."""
    missed = BREAD_AND_MILK + "\ntry: ask('Salt?')\nexcept httpx.HTTPStatusError: pass"
    ended = ran(missed, "--cassette", "a.jsonl", "--mode", "none", code=1)
    assert last_lines(ended) == ["0 asked, 0 from the cache, 2 replayed, 1 refused: a.jsonl"]


@pytest.mark.newest_only
@with_recording("two calls")
@pytest.mark.usefixtures("recorded")
def test_the_last_line_names_the_cache_if_there_is_no_cassette() -> None:
    """It is where the answers are."""
    [line] = last_lines(ran(BREAD_AND_MILK + "; ask('Fish?')"))
    assert line.startswith("1 asked, 2 from the cache, 0 replayed, 0 refused: ")
    assert line.endswith(".llmcall/cache")


@pytest.mark.newest_only
def test_a_refused_call_does_not_count_as_asked(model: NumberedServer) -> None:
    """Without a cassette, too, the last line counts it as refused only."""
    swallowed = "try: ask('Salt?')\nexcept httpx.HTTPStatusError: pass"
    [line] = last_lines(ran(swallowed, "--mode", "none", code=1))
    assert line.startswith("0 asked, 0 from the cache, 0 replayed, 1 refused: ")


@pytest.mark.newest_only
def test_a_misspelt_normalizer_is_told_once(model: NumberedServer) -> None:
    """The option is named, and not the variable in which llmcall hands it on."""
    said = ran("ask('Bread?')", "--normalize", "tmes").stderr
    assert "--normalize: 'tmes' is read as a regular expression; did you mean 'times'?" in said
    assert "environment variable" not in said


@pytest.mark.newest_only
def test_the_last_line_names_the_file_wherever_the_program_goes(model: NumberedServer) -> None:
    """A program that changes its working directory has a recording, and the line doesn't deny it."""
    program = "import os; ask('Bread?'); os.mkdir('elsewhere'); os.chdir('elsewhere')"
    recorded = ran(program, "--cassette", "a.jsonl")
    assert last_lines(recorded) == ["1 asked, 0 from the cache, 0 replayed, 0 refused: a.jsonl"]


ELSEWHERE = "import os; os.makedirs('elsewhere/.git'); os.chdir('elsewhere'); ask('Bread?')"


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.ini", "[Cache]\nMODE = replay\n"), (".env", "LLMCALL_CACHE_MODE=replay\n")],
)
def test_the_settings_are_those_of_where_the_program_started(
    file: str, text: str, model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that goes into another project still may not ask."""
    monkeypatch.delenv("LLMCALL_CONFIG")
    written(file, text)
    ran(ELSEWHERE, code=1)
    assert not model.asked


def test_a_program_that_starts_outside_any_project_may_go_into_its_own(
    model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds its settings there, as without ``llmcall run``."""
    monkeypatch.delenv("LLMCALL_CONFIG")
    Path("study").mkdir()
    written("study/config.ini", "[Cache]\nMODE = replay\n")
    ran("import os; os.chdir('study'); ask('Bread?')", code=1)
    assert not model.asked


@pytest.mark.parametrize("path", ["", "answers"])
def test_the_cache_is_where_the_program_started(
    path: str, model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default cache and one that a variable names stay there if the program goes elsewhere."""
    monkeypatch.setenv("LLMCALL_CACHE_PATH", path)
    Path(".git").mkdir()
    ran(ELSEWHERE)
    assert os.listdir("elsewhere") == [".git"] and os.path.isdir(path or ".llmcall/cache")


@pytest.mark.parametrize("ending", ["1 / 0", "raise SystemExit(1)"])
def test_once_by_the_settings_goes_on_after_a_failed_run(
    ending: str, model: NumberedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run asks for what the first one did not come to."""
    monkeypatch.setenv("LLMCALL_CASSETTE_PATH", "a.jsonl")
    ran(f"ask('Bread?'); {ending}", code=1)
    ran(BREAD_AND_MILK)
    assert model.asked == ["Bread?", "Milk?"]


ONE_ASKED = "1 asked, 0 from the cache, 0 replayed, 0 refused"


@pytest.mark.newest_only
def test_the_last_line_says_that_a_failed_rewrite_wrote_nothing(model: NumberedServer) -> None:
    """The old file stays."""
    ran("ask('Bread?')", "--cassette", "a.jsonl")
    failed = ran("ask('Bread?'); 1 / 0", "--cassette", "a.jsonl", "--mode", "rewrite", code=1)
    assert last_lines(failed) == [f"{ONE_ASKED}: a.jsonl was not written"]


@pytest.mark.newest_only
def test_the_last_line_says_that_a_cache_that_is_off_recorded_nothing(
    model: NumberedServer,
) -> None:
    """And names no folder."""
    unrecorded = ran("ask('Milk?')", env={**os.environ, "LLMCALL_CACHE_MODE": "off"})
    because = "nothing was recorded, because the cache's mode is off"
    assert last_lines(unrecorded) == [f"{ONE_ASKED}: {because}"]


@pytest.mark.newest_only
def test_a_call_that_failed_counts_as_asked(model: NumberedServer) -> None:
    """The last line says how many of those that were asked are not recorded."""
    program = "ask('Bread?')\ntry: ask('wrongly')\nexcept httpx.HTTPStatusError: pass"
    failed = ran(program, "--cassette", "a.jsonl")
    assert last_lines(failed) == [
        "2 asked (1 not recorded), 0 from the cache, 0 replayed, 0 refused: a.jsonl"
    ]


def test_a_misspelt_option_is_no_script() -> None:
    """The error names it as an option if it stands before the script."""
    assert "llmcall run has no option --cassete" in refused("--cassete", "a.jsonl")


@pytest.mark.newest_only
def test_a_call_whose_actor_has_no_name_counts_as_refused(model: NumberedServer) -> None:
    """Whatever the reason for which llmcall refused a call, the last line counts it."""
    written("who.py", "def name(request):\n    raise ValueError('who is it?')\n")
    refused = "try: ask('Bread?')\nexcept httpx.HTTPStatusError: pass"
    done = ran(refused, "--cassette", "a.jsonl", "--actor", "who:name", code=1)
    [line] = last_lines(done)
    assert line == "0 asked, 0 from the cache, 0 replayed, 1 refused: a.jsonl was not written"


@pytest.mark.newest_only
@with_recording("three calls")
@pytest.mark.usefixtures("recorded")
def test_a_replay_tells_how_many_records_no_call_used() -> None:
    """With the mode that takes them out."""
    replayed = ran("ask('Bread?')", "--cassette", "a.jsonl", "--mode", "none")
    told = "2 records no call used; the mode 'update'"
    assert last_lines(replayed)[1].startswith(told)


@pytest.mark.newest_only
@with_recording("three calls")
@pytest.mark.usefixtures("recorded")
def test_update_asks_for_what_is_missing_and_takes_unused_records_out() -> None:
    """A replay then uses every record."""
    program = "print(ask('Bread?'), ask('Salt?'))"
    updated = ran(program, "--cassette", "a.jsonl", "--mode", "update")
    assert last_lines(updated) == [
        "1 asked, 0 from the cache, 1 replayed, 0 refused: a.jsonl",
        "2 records no call used; moved to the disk cache",
    ]
    replayed = ran(program, "--cassette", "a.jsonl", "--mode", "none")
    assert replayed.stdout == updated.stdout
    assert last_lines(replayed) == ["0 asked, 0 from the cache, 2 replayed, 0 refused: a.jsonl"]


@pytest.mark.newest_only
@pytest.mark.parametrize(
    "ending", ["sys.exit(3)", "raise KeyError", "client.post('/x').raise_for_status()"]
)
def test_update_takes_nothing_out_after_a_run_that_failed(
    model: NumberedServer, ending: str
) -> None:
    """A whole process ends well with the exit code 0."""
    ran("ask('Bread?'); ask('Milk?')", "--cassette", "a.jsonl")
    code = 3 if "exit" in ending else 1
    ran(f"ask('Bread?')\n{ending}", "--cassette", "a.jsonl", "--mode", "update", code=code)
    assert samples("a.jsonl") == ["run#0", "run#0"]
