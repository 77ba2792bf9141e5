"""Names of what functions return, without the modules in which they are: a reader imports them from nowhere."""

from __future__ import annotations

import re

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

PUBLIC = ("llmcall.", "llmcall.types.", "llmcall.testing.", "llmcall.aio.")
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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the transform."""
    app.add_transform(HideModules)
    return {"parallel_read_safe": True}
