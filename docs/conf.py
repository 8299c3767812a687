"""The documentation site, built by ``make docs`` of the same pages that a code host shows.

Its root is the repository, so that links between README.md, docs/ and benchmarks/ are right on
both. What only the site has is added when a page is read: the table of contents to README.md, and
the reference of the package to docs/api.md. A link or an anchor that leads nowhere is a warning,
and warnings are errors. Names of pages that the table of contents lacks are warnings, too.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

import schn_ray

project = "schn-ray"
version = release = schn_ray.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = [
    "README.md",
    "docs/*.md",
    "benchmarks/README.md",
    "examples/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
]
exclude_patterns = [".*", "build", "dist", "demo", "schn_ray", "shared", "tests"]
highlight_language = "sh"

html_theme = "furo"
html_title = "schn-ray"
html_copy_source = False
html_show_copyright = False

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
suppress_warnings = ["myst.header"]  # a page may begin its sections at the third level

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80

CONTENTS = {
    "Begin": ["docs/quickstart", "docs/choosing", "docs/guide", "docs/troubleshooting"],
    "Use": [
        "docs/search",
        "docs/datasets",
        "docs/evaluation",
        "docs/report",
        "docs/tuning",
        "docs/sharing",
    ],
    "Look up": ["docs/settings", "docs/methods", "docs/method", "docs/api", "docs/interop"],
    "Run": ["docs/cluster", "docs/operating", "docs/security", "docs/scaling", "docs/ray_users"],
    "Know": ["benchmarks/README", "docs/architecture", "docs/adding_a_method", "examples/README"],
    "Follow": ["CHANGELOG", "CONTRIBUTING"],
}
CLASSES = {
    "Results": [
        "cli.verbs.results.Output",
        "cli.verbs.results.Codes",
        "cli.verbs.results.Evaluation",
        "cli.verbs.results.SearchResults",
        "cli.verbs.results.MatchTable",
        "cli.verbs.results.DuplicateGroups",
        "cli.verbs.results.MapFiles",
        "cli.verbs.results.RunComparison",
        "cli.verbs.results.SuiteResult",
        "cli.verbs.results.Study",
        "cli.verbs.results.Converted",
        "cli.verbs.results.ExportResult",
        "cli.verbs.results.CheckResult",
        "cli.verbs.results.Catalogue",
        "cli.verbs.results.SettingsReference",
        "cli.verbs.results.NodeChecks",
        "cli.album.built.BuiltAlbum",
    ],
    "Models": ["models.hasher.Hasher", "models.onnx_hasher.OnnxHasher"],
    "Indexes and stores": [
        "retrieval.index.index.Index",
        "retrieval.index.matches.Matches",
        "data.store.reader.Store",
    ],
}


def table_of_contents() -> str:
    """Return a toctree for each part of the site."""
    parts = []
    for caption, pages in CONTENTS.items():
        lines = "\n".join(f"/{page}" for page in pages)
        parts.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```")
    return "\n\n".join(parts)


def reference() -> str:
    """Return the directives that describe what the package offers, from its docstrings."""
    names = [name for name in schn_ray.__all__ if name != "SchnRayError"]
    verbs = [f".. autofunction:: schn_ray.{name}" for name in names]
    parts = [
        "## Functions",
        _rst(verbs),
        "## Errors",
        _rst([_of_class("core.errors.SchnRayError")]),
    ]
    for heading, classes in CLASSES.items():
        parts += [f"## {heading}", _rst([_of_class(name) for name in classes])]
    return "\n\n".join(parts)


def _of_class(name: str) -> str:
    return f".. autoclass:: schn_ray.{name}\n   :members:\n   :inherited-members: str, list"


def _rst(lines: list[str]) -> str:
    return "```{eval-rst}\n" + "\n\n".join(lines) + "\n```"


def add_what_only_the_site_has(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the table of contents, or the reference, to the page that it belongs to."""
    if page == root_doc:
        known = app.env.found_docs
        source[0] += f"\n\n{table_of_contents()}\n" if "docs/guide" in known else ""
    elif page == "docs/api":
        source[0] += f"\n\n{reference()}\n"


def copy_front_page(app: Sphinx, error: Exception | None) -> None:
    """Make README.html the page that a server opens first."""
    if error is None:
        folder = Path(app.outdir)
        shutil.copy(folder / "README.html", folder / "index.html")


def setup(app: Sphinx) -> None:
    """Join the functions above to the build."""
    app.connect("source-read", add_what_only_the_site_has)
    app.connect("build-finished", copy_front_page)
