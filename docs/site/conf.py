"""How Sphinx makes the site: what `docs/site/make_site.py` has laid out becomes pages that need no network."""

from pathlib import Path

import make_site
import mathjax
from docutils import nodes
from sphinx import addnodes
from sphinx.util.fileutil import copy_asset

project = "ptlearn"
author = "The ptlearn authors"
copyright = "The ptlearn authors, MIT licence"  # the theme sets "Copyright ©" before it

extensions = ["myst_nb", "sphinx.ext.mathjax"]
root_doc = "index"
html_theme = "furo"
html_title = "ptlearn"
html_favicon = "icon.svg"
html_static_path = ["."]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_domain_indices = False
exclude_patterns = ["_*"]
templates_path = []
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
add_module_names = False
toc_object_entries_show_parents = "hide"

nb_execution_mode = "off"  # solutions are shown as they are
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["ref.python", "myst.header", "mystnb.unknown_mime_type"]

# MathJax in one file, equations drawn as SVG: no fonts to load, none from elsewhere
MATHJAX = Path(mathjax.__file__).parent / "static/mathjax/es5/tex-svg.js"
mathjax_path = MATHJAX.name
mathjax3_config = {"svg": {"fontCache": "global"}}


FILES, OBJECTS = make_site.names()


def link_names(app, document) -> None:
    """Turn names of the package and files of the repository in code into links to their pages."""
    for literal in list(document.findall(nodes.literal)):
        name = literal.astext().removesuffix("()")
        if isinstance(literal.parent, nodes.reference | addnodes.pending_xref | nodes.title):
            continue
        if (page := FILES.get(name)) is not None:
            target = {"refdomain": "std", "reftype": "doc", "reftarget": f"/{page}"}
        elif (full := name if name in OBJECTS else f"ptlearn.{name}") in OBJECTS and "." in name:
            target = {"refdomain": "py", "reftype": "obj", "reftarget": full}
        else:
            continue
        link = addnodes.pending_xref("", **target, refdoc=app.env.docname, refexplicit=True, refwarn=True)
        literal.replace_self(link)
        link += literal


def level_captions(app, pagename, templatename, context, doctree) -> None:
    """The captions of the sidebar are headings: say of which level, as a screen reader asks."""
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')


def copy_mathjax(app, error) -> None:
    if not error:
        copy_asset(MATHJAX, Path(app.outdir) / "_static")


def setup(app) -> None:
    app.connect("doctree-read", link_names)
    app.connect("html-page-context", level_captions, priority=900)  # after the theme has made them
    app.connect("build-finished", copy_mathjax)
