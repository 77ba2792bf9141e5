"""How far one machine goes: what an answer costs in time and memory while a run grows.

``python -m benchmarks.scale`` records two runs of 1,000 agents in cassettes, with answers that are made in the process,
and then reads them in every way, each in a process of its own. In the other run one agent of fifty pays another price
from its second half on.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

PEAK = Path(__file__).with_name("peak_memory.py")
AGENTS = 1_000
BEGIN = f"""
import os, random, sys, time
import llmcall
from llmcall.testing import ScriptedClient

os.chdir(sys.argv[1])
STEPS = int(sys.argv[2]) // {AGENTS}
MODE = "off"
NOUNS = ["bread", "cheese", "market", "neighbour", "coin", "basket", "winter", "harvest", "price", "family"]
PERSONA = "You are agent %d at a market, curious and thrifty. " + "You remember what was said and keep your word. " * 12

def answer(messages):
    chosen = random.Random(str(messages[-3:]))
    return " ".join(chosen.choice(NOUNS) for _ in range(32))

client = ScriptedClient(answer, model="gpt-6-luna", cache_mode=MODE)

def play(is_other=False):
    histories = [[] for _ in range({AGENTS})]
    for step in range(STEPS):
        for agent, history in enumerate(histories):
            price = step % 17 + 20 * (is_other and agent % 50 == 7 and step >= STEPS // 2)
            history.append({{"role": "user", "content": f"Round {{step}}: bread costs {{price}} coins. Do you buy?"}})
            messages = [{{"role": "system", "content": PERSONA % agent}}, *history]
            with llmcall.scope(f"agent-{{agent}}"):
                reply = client.send_message(messages, max_tokens=60)
            history.append({{"role": "assistant", "content": reply.content}})
            del history[:-4]
        client.requests.clear()  # which this client notes for tests

begin = time.process_time()
"""
RECORD = "with llmcall.cassette({!r}, mode='rewrite'), llmcall.scope('run'): play({})"
COMMAND = """
import os, sys, time
from llmcall.cli.main import main

os.chdir(sys.argv[1])
output = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
begin = time.process_time()
try:
    main(sys.argv[3:])
except SystemExit as end:
    assert not end.code, end.code
os.dup2(output, 1)
"""
END = "\nprint(time.process_time() - begin)\n"
# What is measured, each with its program and the arguments of a command; the first two make the files of the others.
WAYS: dict[str, tuple[str, ...]] = {
    "record": (BEGIN + RECORD.format("run.jsonl", False),),
    "record another": (BEGIN + RECORD.format("other.jsonl", True),),
    "open": (f"{BEGIN}with llmcall.cassette('run.jsonl', mode='none'): pass",),
    "replay": (
        f"{BEGIN}with llmcall.cassette('run.jsonl', mode='none'), llmcall.scope('run'): play()",
    ),
    "to_frame": (f"{BEGIN}llmcall.cassette('run.jsonl').to_frame()",),
    "check": (COMMAND, "cassette", "check", "run.jsonl"),
    "show": (COMMAND, "show", "run.jsonl"),
    "diff": (COMMAND, "diff", "run.jsonl", "other.jsonl"),
    "report": (COMMAND, "report", "run.jsonl", "-o", "report.html"),
    "merge": (COMMAND, "cassette", "merge", "run.jsonl", "run.jsonl", "-o", "merged.jsonl"),
    "load": (COMMAND, "cache", "load", "run.jsonl"),
    "export": (COMMAND, "cache", "export", "exported.jsonl"),
    "from the cache": (
        BEGIN.replace('MODE = "off"', 'MODE = "replay"') + "with llmcall.scope('run'): play()",
    ),
}
FILES = {"cassette": "run.jsonl", "page": "report.html", "cache": ".llmcall/cache/cache.db"}


def measure(folder: str, answers: int, program: str, *arguments: str) -> tuple[float, float]:
    """Return the seconds of processor time of a program, and the peak of its memory in bytes."""
    with tempfile.TemporaryDirectory() as place:
        script = Path(place, "program.py")
        script.write_text(program + END, encoding="utf-8")
        command = [sys.executable, str(PEAK), str(script), folder, str(answers), *arguments]
        completed = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, seconds, peak = completed.stdout.split()
    return float(seconds), float(peak)


@click.command()
@click.option(
    "--answers",
    "sizes",
    type=click.IntRange(min=AGENTS),
    multiple=True,
    default=[10_000, 50_000],
    show_default=True,
    help="How many answers; several times for several sizes.",
)
@click.option("--way", "ways", type=click.Choice([*WAYS]), multiple=True, help="Only this one.")
@click.option(
    "--folder", type=click.Path(file_okay=False), help="Keep the files of each size in this folder."
)
def main(sizes: Sequence[int], ways: Sequence[str], folder: str | None) -> None:
    """Print the time and the memory of an answer, in each way."""
    for answers in sizes:
        click.echo(f"{answers:,} answers")
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(folder or temporary, str(answers))
            place.mkdir(parents=True, exist_ok=True)
            for name in ways or WAYS:
                seconds, peak = measure(str(place), answers, *WAYS[name])
                click.echo(
                    f"  {name:16}{seconds:8.1f} s {seconds / answers * 1e6:7.0f} µs an answer"
                    f"{peak / 1e6:10,.0f} MB {peak / answers:7,.0f} B an answer"
                )
            for name, path in FILES.items():
                if Path(place, path).exists():
                    size = Path(place, path).stat().st_size
                    click.echo(
                        f"  {name:16}{size / 1e6:8,.0f} MB {size / answers:7,.0f} B an answer"
                    )


if __name__ == "__main__":
    main()
