"""Public names as a reader knows them: what functions return without the module in which it is, and names in the
reference as links.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import llmcall
import llmcall.aio
import llmcall.testing
import llmcall.types

MODULES = (llmcall, llmcall.types, llmcall.testing, llmcall.aio)
PUBLIC = tuple(f"{module.__name__}." for module in MODULES)
# In the index: "Scope (class in llmcall.scopes.scope)", "after (llmcall.review.divergences.Divergence property)"
INTERNAL = re.compile(
    r"( in )?llmcall\.(?!types|testing|aio)[a-z_]+(\.[a-z_]+)*(?(1)(?=\))|\.(?=[A-Z]))"
)


class HideModules(SphinxTransform):
    """Take the names of internal modules out of headings and index, before the index is collected."""

    default_priority = 840

    def apply(self, **_: object) -> None:
        """Change the document."""
        for module in list(self.document.findall(addnodes.desc_addname)):
            if module.astext() not in PUBLIC:
                module.parent.remove(module)
        for index in self.document.findall(addnodes.index):
            index["entries"] = [
                (kind, INTERNAL.sub("", text), *others) for kind, text, *others in index["entries"]
            ]


def link_names(app: Sphinx, document: nodes.document) -> None:
    """Link the names on the reference's first two pages to their docstrings; the section's title names their module."""
    if app.env.docname not in ("reference/index", "reference/names"):
        return
    for literal in list(document.findall(nodes.literal)):
        section = next(node for node in _above(literal) if isinstance(node, nodes.section))
        title = section.next_node(nodes.title).astext()
        module = next((each for each in MODULES if each.__name__ == title), llmcall)
        name = literal.astext().partition("(")[0]
        if name in module.__all__ and callable(getattr(module, name)):
            target = f"{module.__name__}.{name}"
            options = {"refdomain": "py", "reftype": "obj", "refdoc": app.env.docname}
            link = addnodes.pending_xref("", reftarget=target, refwarn=False, **options)
            literal.replace_self(link)
            link += literal


def _above(node: nodes.Node) -> list[nodes.Node]:
    return [node, *_above(node.parent)] if node.parent else [node]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform and the links."""
    app.add_transform(HideModules)
    app.connect("doctree-read", link_names)
    return {"parallel_read_safe": True}
