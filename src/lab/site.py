"""Renders notebooks as read-only pages that need no network: `site.py FOLDER NOTEBOOK…`.

A page is light or dark as its reader's browser is. Formulas become MathML, which browsers draw by themselves; nothing is loaded from anywhere; links between chapters lead to
pages; `index.html` lists them. A page that still asks another host for something is an error.
"""

import html
import pathlib
import re
import sys

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

folder, notebooks = pathlib.Path(sys.argv[1]), [pathlib.Path(name) for name in sys.argv[2:]]
folder.mkdir(parents=True, exist_ok=True)

FORMULA = re.compile(r"\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?!\w)", re.DOTALL)
# What a page would run or load: only these make a browser ask somebody.
LOADS = re.compile(r"""(?:<script[^>]+src=|<link[^>]+href=|<img[^>]+src=|@import\s+(?:url\()?|\bimport\s*\(?\s*)["']?(https?:)?//[^"'\s>]+""")


def mathml(found):
    """A formula as MathML on one line, so that Markdown leaves it alone."""
    block = found["block"] is not None
    return convert((found["block"] or found["inline"]).strip(), display="block" if block else "inline").replace("\n", " ")


def page(path):
    """The notebook as one HTML text."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = FORMULA.sub(mathml, cell.source)
            cell.source = re.sub(r"\]\(([\w.-]+)\.ipynb\)", r"](\1.html)", text)
    exporter = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="", exclude_input_prompt=True, exclude_output_prompt=True)
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title(notebook)}})
    text = text.replace("</head>", f"<style>@media (prefers-color-scheme: dark) {{\n{dark(exporter.environment)}\n}}</style></head>", 1)
    # The template brings a MathJax loader and a diagram drawer from elsewhere; there is nothing left for them to do.
    text = re.sub(r"<script[^>]*>(?:(?!</script>).)*?(?:MathJax|mermaid)(?:(?!</script>).)*?</script>", "", text, flags=re.DOTALL)
    return re.sub(r"""<script[^>]*src=["'](?:https?:)?//[^>]*></script>|<script[^>]*src=["']["'][^>]*></script>""", "", text)


def dark(environment):
    """The colours of JupyterLab's dark theme, as the exporter's own templates have them, and what they leave out."""
    theme, _, _ = environment.loader.get_source(environment, "static/theme-dark.css")
    return theme + "\n:root { color-scheme: dark; }"


def title(notebook):
    return notebook.cells[0].source.splitlines()[0].lstrip("# ").strip()


listed = []
for path in notebooks:
    text = page(path)
    foreign = LOADS.search(text)
    if foreign:
        sys.exit(f"{path.name}: the page would load {foreign[0][:120]}")
    target = folder / path.with_suffix(".html").name
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(text) / 1e3:.0f} kB", flush=True)
    listed.append((target.name, title(nbformat.read(path, as_version=4))))

links = "\n".join(f'<li><a href="{name}">{html.escape(text)}</a></li>' for name, text in listed)
(folder / "index.html").write_text(
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>codelora</title><style>body{font:18px/1.6 system-ui,sans-serif;max-width:40em;margin:4em auto;padding:0 1em}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}a{color:#8bf}}</style>"
    f"<h1>codelora</h1><p>Six chapters, as they were last executed.</p><ul>{links}</ul></html>\n",
    encoding="utf-8",
)
