"""Executes one notebook with the codelora kernel: `execute.py NOTEBOOK ROOT` saves it, ready for review in git;
`execute.py NOTEBOOK ROOT COPY` saves it as COPY, compares what its cells show with the notebook, and fails where they differ.

A cell that writes to stderr has failed: the Rust kernel reports a panic or a failed `?` there and calls it a success.
Execution counts and every path of this machine stay out of the saved file; seconds and rates that a cell prints stay in it.
What a clock says, or a digest of it, no run gives again: a cell with the tag `measured`, and any row of a table that gives tokens/s, are
compared but for their digits.
"""

import difflib
import re
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.sign import NotebookNotary

path, root = sys.argv[1], sys.argv[2]
target = sys.argv[3] if len(sys.argv) > 3 else path
name = path.rsplit("/", 1)[-1]
notebook = nbformat.read(path, as_version=4)
before = nbformat.read(path, as_version=4)
cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
done = {"count": 0, "since": time.monotonic()}
MEASURED = "measured"


def is_measured(cell):
    return MEASURED in cell.metadata.get("tags", [])


def ready(notebook):
    print(f"{name}: kernel ready after {time.monotonic() - done['since']:.1f} s", flush=True)


def started(cell, cell_index):
    done["since"] = time.monotonic()


def finished(cell, cell_index, execute_reply):
    if cell.cell_type != "code":
        return
    done["count"] += 1
    seconds = time.monotonic() - done["since"]
    print(f"{name}: cell {done['count']}/{len(cells)} in {seconds:.2f} s", flush=True)
    stderr = "".join(o.text for o in cell.outputs if o.output_type == "stream" and o.name == "stderr")
    if stderr.strip():
        fail(cell, stderr)


def fail(cell, message):
    print(f"{name}: this cell failed:\n\n{cell.source}\n\n{message}", file=sys.stderr)
    sys.exit(1)


client = NotebookClient(
    notebook,
    timeout=3600,
    startup_timeout=300,
    kernel_name="codelora",
    resources={"metadata": {"path": path.rsplit("/", 1)[0]}},
    on_notebook_start=ready,
    on_cell_start=started,
    on_cell_executed=finished,
)
try:
    client.execute()
except CellExecutionError as error:
    said = "\n".join(
        "\n".join(output.get("traceback", [])) or f"{output.ename}: {output.evalue}"
        for cell in cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    )
    printed = "".join(o.text for cell in cells for o in cell.get("outputs", []) if o.output_type == "stream")
    print(f"{name}: {error}\n{said}\n{printed}", file=sys.stderr)
    sys.exit(1)

for cell in notebook.cells:
    cell.metadata = {"tags": [MEASURED]} if is_measured(cell) else {}
    if cell.cell_type == "code":
        cell.execution_count = None
        for output in cell.outputs:
            output.metadata = {}
            if "execution_count" in output:
                output.execution_count = None
notebook.metadata = {
    "kernelspec": {"display_name": "Rust (codelora)", "language": "rust", "name": "codelora"},
    "language_info": {"name": "rust", "file_extension": ".rs"},
}
text = nbformat.writes(notebook)
if root in text:
    where = text.index(root)
    print(f"{name}: an output holds a path of this machine: {text[where - 60:where + 80]!r}", file=sys.stderr)
    sys.exit(1)
with open(target, "w", encoding="utf-8") as file:
    file.write(text.rstrip("\n") + "\n")
# Executed here, so Jupyter may trust what it shows; a notebook from elsewhere stays untrusted until its cells are run.
NotebookNotary().sign(nbformat.read(target, as_version=4))

# A digest, or a number.
VARYING = re.compile(r"\b[0-9a-f]{12,}\b|\d[\d.,]*")
# A row of a table that gives a rate.
RATE = re.compile(r"<tr>(?:(?!</tr>).)*tokens/s(?:(?!</tr>).)*</tr>", re.DOTALL)


def shown(cell):
    """The texts a cell displays. Printed lines are progress: they hold times, and are not compared."""
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    texts = ["".join(text) for data in outputs for mime, text in sorted(data.items()) if mime.startswith("text/")]
    if is_measured(cell):
        return [VARYING.sub("#", text) for text in texts]
    return [RATE.sub(lambda row: VARYING.sub("#", row[0]), text) for text in texts]


if target != path:
    pairs = [pair for pair in zip(before.cells, notebook.cells) if pair[0].cell_type == "code"]
    changed = [(old, new) for old, new in pairs if shown(old) != shown(new)]
    for old, new in changed:
        lines = difflib.unified_diff("\n".join(shown(old)).split("\n"), "\n".join(shown(new)).split("\n"), "saved", "now", n=0, lineterm="")
        print(f"{name}: this cell shows something else now:\n\n{new.source}\n", *lines, sep="\n", file=sys.stderr)
    measured = sum(is_measured(new) for _, new in pairs)
    but = f", {measured} of them but for the digits of what is measured" if measured else ""
    print(f"{name}: {len(pairs) - len(changed)} of {len(pairs)} cells show what is saved{but}", flush=True)
    sys.exit(1 if changed else 0)
