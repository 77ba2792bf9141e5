"""Draw the pipeline of a call and its seams from the code, into architecture.svg.

A call that nothing answers yet is made under a profiler. Of the functions that it passes, the stations are shown in
their order, each with the first sentence of its docstring. A seam stands beside the station that calls it, with its
methods and the classes that implement it.
"""

from __future__ import annotations

import ast
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from html import escape
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import llmcall

PACKAGE = Path(llmcall.__file__).parent
PICTURE = Path(__file__).with_suffix(".svg")
STATIONS = (
    "LLMClient.send_message",
    "prepare_chat",
    "answer_from_record",
    "found",
    "answer_calls",
    "share",
    "send",
    "attempts",
    "attempt",
    "send_once",
    "Exchange.store_and_count",
    "Call.note_answer",
)
# The seams, each with the method by whose call its station is found.
SEAMS = {
    "Store": "get",
    "Storage": "get",
    "CallListener": "answered",
    "Gate": "acquire",
    "Transport": "send",
}
LINE, PADDING, GAP = 15, 9, 14  # heights in pixels
LEFT, ROUTE_WIDTH, SEAM_LEFT, SEAM_WIDTH = 20, 470, 570, 470
CHARACTERS = 74  # in a line of text


class Parsed(NamedTuple):
    """A class or function of the package, as its file has it.

    :param line: the line on which it begins, with its decorators.
    :param summary: the first sentence of its docstring.
    :param bases: the names of a class's bases.
    :param methods: the public methods that a class defines.
    """

    line: int
    summary: str
    bases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()


def parsed() -> dict[tuple[str, str], Parsed]:
    """Return all classes, functions and methods of the package, by file and qualified name."""
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE).as_posix()
        for name, node in _definitions(ast.parse(file.read_text(encoding="utf-8"))):
            sentence = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            summary = sentence.split(". ")[0].rstrip(".").replace("`", "")
            bases, methods = (), ()
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                functions = (ast.FunctionDef, ast.AsyncFunctionDef)
                methods = tuple(
                    item.name
                    for item in node.body
                    if isinstance(item, functions) and not item.name.startswith("_")
                )
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[path, name] = Parsed(line, summary, bases, methods)
    return found


def _definitions(
    node: ast.AST, prefix: str = ""
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}{child.name}.")


def implementations(seam: str, definitions: Mapping[tuple[str, str], Parsed]) -> list[str]:
    """Return the classes that implement a seam: they say so by a base, or have all of its methods."""
    (methods,) = (value.methods for (_, name), value in definitions.items() if name == seam)
    found, before = {seam}, set[str]()
    while found != before:  # a base may stand below its subclass
        before = found
        found = before | {
            name
            for (_, name), value in definitions.items()
            if before & set(value.bases) or set(methods) <= set(value.methods)
        }
    return sorted(found - {seam})


def passed(definitions: Mapping[tuple[str, str], Parsed]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the files of the stations that a call passes, in their order, and the station of each seam."""
    pipeline: dict[str, str] = {}
    beside: dict[str, str] = {}
    names = {(str(PACKAGE / key[0]), value.line): key for key, value in definitions.items()}
    entrances = {
        f"{owner}.{method}": seam
        for seam, method in SEAMS.items()
        for owner in (seam, *implementations(seam, definitions))
    }

    def note(frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        path, name = names.get((code.co_filename, code.co_firstlineno), ("", ""))
        if event == "call" and name in STATIONS:
            pipeline.setdefault(name, path)
        if event == "call" and name in entrances:
            beside.setdefault(entrances[name], next(reversed(pipeline)))

    class Parrot(llmcall.types.Transport):
        def send(self, request: llmcall.types.Request, timeout: float | None) -> dict[str, object]:
            if pipeline:
                beside.setdefault("Transport", next(reversed(pipeline)))
            choice = {"message": {"content": "Good morning!"}, "finish_reason": "stop"}
            return {"choices": [choice]}

    with tempfile.TemporaryDirectory() as folder:
        client = llmcall.LLMClient(transport=Parrot(), model="parrot", cache_path=folder)
        client.send_message("Hello?")  # imports
        _profiled(note, lambda: client.send_message("Who is there?"))
        client.cache.close()
    return pipeline, beside


def _profiled(note: Callable[[FrameType, str, object], None], call: Callable[[], object]) -> None:
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)


def picture() -> str:
    """Return the picture as SVG."""
    definitions = parsed()
    pipeline, beside = passed(definitions)
    parts: list[str] = []
    top, middles = 20, dict[str, int]()
    for name, path in pipeline.items():
        height = _box(parts, LEFT, top, ROUTE_WIDTH, name, path, [definitions[path, name].summary])
        middles[name] = top + height // 2
        if name != next(reversed(pipeline)):
            parts.append(_arrow(LEFT + ROUTE_WIDTH // 2, top + height, top + height + GAP))
        top += height + GAP
    bottom, top = top, 20
    for seam in sorted(SEAMS, key=lambda seam: middles[beside[seam]]):
        (path, value), *_ = ((p, v) for (p, name), v in definitions.items() if name == seam)
        lines = [
            value.summary,
            f"methods: {', '.join(value.methods)}",
            f"here: {', '.join(name for name in implementations(seam, definitions) if name[0] != '_')}",
        ]
        middle = middles[beside[seam]]
        top = max(top, middle - LINE)
        parts.append(
            f'<path class="seam" d="M{LEFT + ROUTE_WIDTH} {middle} L{SEAM_LEFT} {top + LINE}"/>'
        )
        top += _box(parts, SEAM_LEFT, top, SEAM_WIDTH, seam, path, lines, kind="seam") + GAP
    width, height = SEAM_LEFT + SEAM_WIDTH + 20, max(top, bottom) + 6
    return HEAD.format(width=width, height=height) + "\n".join(parts) + "\n</svg>\n"


def _box(
    parts: list[str],
    left: int,
    top: int,
    width: int,
    title: str,
    path: str,
    texts: list[str],
    kind: str = "station",
) -> int:
    """Add a box with its texts; return its height."""
    lines = [line for text in texts for line in textwrap.wrap(text, CHARACTERS)]
    height = 2 * PADDING + LINE * (1 + len(lines))
    parts.append(
        f'<rect class="{kind}" x="{left}" y="{top}" width="{width}" height="{height}" rx="5"/>'
    )
    baseline = top + PADDING + 11
    parts.append(f'<text class="name" x="{left + 10}" y="{baseline}">{escape(title)}</text>')
    parts.append(f'<text class="path" x="{left + width - 10}" y="{baseline}">{escape(path)}</text>')
    for number, line in enumerate(lines, 1):
        parts.append(f'<text x="{left + 10}" y="{baseline + number * LINE}">{escape(line)}</text>')
    return height


def _arrow(x: int, start: int, end: int) -> str:
    return f'<path class="pipeline" d="M{x} {start} V{end - 2}" marker-end="url(#tip)"/>'


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<title>The pipeline of a call, and its seams</title>
<style>
svg {{ background: #fff }}
text {{ font: 12px system-ui, sans-serif; fill: #222 }}
.name {{ font: bold 12px ui-monospace, monospace }}
.path {{ font: 11px ui-monospace, monospace; fill: #667; text-anchor: end }}
rect {{ stroke: #99a; fill: #f4f6fb }}
rect.seam {{ stroke: #b58a2f; fill: #fdf6e3 }}
path {{ fill: none; stroke: #99a; stroke-width: 1.5 }}
path.seam {{ stroke: #b58a2f; stroke-dasharray: 4 3 }}
</style>
<marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto">
<path d="M0 0 L5 3 L0 6"/>
</marker>
"""

if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
