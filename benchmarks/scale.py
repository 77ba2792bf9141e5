"""How far one machine goes: what an answer costs in time and memory while a run grows tenfold.

``python -m benchmarks.scale`` records a run of 1,000 agents in a cassette over the disk cache, with answers
that are made in the process, and then reads it in every way, each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import click

PEAK = Path(__file__).with_name("peak_memory.py")
AGENTS = 1_000
BEGIN = f"""
import os, sys, time
import llmcall
from llmcall.testing import ScriptedClient

os.chdir(sys.argv[1])
client = ScriptedClient(
    lambda messages: "I heard: " + messages[-1]["content"], model="gpt-6-luna", cache_mode="auto"
)

def play():
    for step in range(int(sys.argv[2]) // {AGENTS}):
        for agent in range({AGENTS}):
            with llmcall.scope(f"agent-{{agent}}"):
                client.send_message([
                    {{"role": "system", "content": f"You are agent {{agent}} at a market, curious and thrifty."}},
                    {{"role": "user", "content": f"Round {{step}}: bread costs {{step % 17}} coins. Do you buy?"}},
                ], max_tokens=16)
        client.requests.clear()  # which this client notes for tests

begin = time.process_time()
"""
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
# What is measured, each with its program and the arguments of a command.
WAYS: dict[str, tuple[str, ...]] = {
    "record": (f"{BEGIN}with llmcall.cassette('run.jsonl'), llmcall.scope('run'): play()",),
    "open": (f"{BEGIN}with llmcall.cassette('run.jsonl', mode='none'): pass",),
    "replay": (
        f"{BEGIN}with llmcall.cassette('run.jsonl', mode='none'), llmcall.scope('run'): play()",
    ),
    "from the cache": (f"{BEGIN}with llmcall.scope('run'): play()",),
    "to_frame": (f"{BEGIN}llmcall.cassette('run.jsonl').to_frame()",),
    "show": (COMMAND, "show", "run.jsonl"),
    "diff": (COMMAND, "diff", "run.jsonl", "run.jsonl"),
    "report": (COMMAND, "report", "run.jsonl", "-o", "report.html"),
    "check": (COMMAND, "cassette", "check", "run.jsonl"),
}
FILES = {"cassette": "run.jsonl", "cache": ".llmcall/cache/cache.db"}


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
@click.option("--most", type=click.IntRange(min=10_000), default=100_000, show_default=True)
def main(most: int) -> None:
    """Print the time and the memory of an answer, in each way, for 10,000 answers and ten times as many
    until the most.
    """
    answers = 10_000
    while answers <= most:
        click.echo(f"{answers:,} answers")
        with tempfile.TemporaryDirectory() as folder:
            for name, program in WAYS.items():
                seconds, peak = measure(folder, answers, *program)
                click.echo(
                    f"  {name:16}{seconds:8.1f} s {seconds / answers * 1e6:7.0f} µs an answer"
                    f"{peak / 1e6:10,.0f} MB {peak / answers:7,.0f} B an answer"
                )
            for name, path in FILES.items():
                size = Path(folder, path).stat().st_size
                click.echo(f"  {name:16}{size / 1e6:8,.0f} MB {size / answers:7,.0f} B an answer")
        answers *= 10


if __name__ == "__main__":
    main()
