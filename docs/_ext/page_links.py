"""Links between pages as code hosts follow them, by the page's file.

`Costs <howto/costs.rst>`__ has that text, `<howto/costs.rst>`__ the title of the page.
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def link_pages(app: Sphinx, document: nodes.document) -> None:
    """Turn the references to files of pages into references to pages."""
    for reference in list(document.findall(nodes.reference)):
        address = str(reference.get("refuri", ""))
        if not address.endswith(".rst") or "://" in address:
            continue
        text = reference.astext()
        link = addnodes.pending_xref(
            "",
            nodes.inline(text, text),
            refdomain="std",
            reftype="doc",
            refdoc=app.env.docname,
            reftarget=address.removesuffix(".rst"),
            refexplicit=text != address,
            refwarn=True,
        )
        reference.replace_self(link)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the step."""
    app.connect("doctree-read", link_pages)
    return {"parallel_read_safe": True}
