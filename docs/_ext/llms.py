"""The pages for assistants: `llms.txt` has a line per page, `llms-full.txt` the text of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from docutils.io import StringOutput
from sphinx.application import Sphinx
from sphinx.builders.text import TextBuilder
from sphinx.writers.text import TextWriter


def pages(app: Sphinx, name: str) -> Iterator[str]:
    """Yield the names of a page and those below it, in the order of the sidebar."""
    yield name
    for below in app.env.toctree_includes.get(name, ()):
        yield from pages(app, below)


def write_files(app: Sphinx, failure: Exception | None) -> None:
    """Write both files beside the website."""
    if failure is not None or app.builder.format != "html":
        return
    builder = TextBuilder(app, app.env)
    builder.secnumbers = {}
    writer = TextWriter(builder)
    index, texts = ["# llmcall\n"], []
    for name in pages(app, app.config.root_doc):
        document = app.env.get_and_resolve_doctree(name, app.builder)
        paragraph = document.next_node(nodes.paragraph)
        about = " ".join(paragraph.astext().split()) if paragraph is not None else ""
        index.append(f"- [{app.env.titles[name].astext()}]({name}.html): {about}")
        texts.append(str(writer.write(document, StringOutput(encoding="unicode"))))
    folder = Path(app.outdir)
    (folder / "llms.txt").write_text("\n".join(index) + "\n", encoding="utf-8")
    (folder / "llms-full.txt").write_text("\n\n".join(texts), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step."""
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True}
