"""Seconds until a notebook's kernel is ready, until its first figure, of its first cell and of the others, as `codelora lab --check`
times them: a row of benches/records/cells.csv.

    python cells.py --codelora target/release/codelora [--notebook 0] [--records DIR]

Needs the kernel that `codelora lab` installs, and the artifacts that the notebook opens: then a cell costs what the kernel costs. The
first cell loads the library and starts the kernel's analysis of it; the others are what work in a notebook feels like, so their
median and their longest are written. Until the first figure means: the kernel's start and all cells up to the one that shows it, one
after the other. There is no peer: another kernel does not compile.
"""

import argparse
import csv
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

FIELDS = ["notebook", "kernel_s", "first_s", "figure_s", "median_s", "longest_s", "cells", "threads", "machine", "commit"]
READY = re.compile(r"^\S+\.ipynb: kernel ready after ([0-9.]+) s$", re.M)
LINE = re.compile(r"^(\S+)\.ipynb: cell (\d+)/(\d+) in ([0-9.]+) s$")


def machine():
    """Processor, its cores and its widest vectors, as in the other records, and the threads."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    cores = len(re.findall(r"^processor", text, re.M))
    vectors = next((name for flag, name in [("avx512f", " AVX-512"), ("avx2", " AVX2")] if re.search(rf"\b{flag}\b", text)), "")
    return f"{model[1] if model else 'unknown'} {cores} cores{vectors}".replace(",", " "), cores


def before_figure(notebook):
    """How many cells it takes until a saved notebook shows its first figure."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    shows = [any("image/png" in output.get("data", {}) for output in cell["outputs"]) for cell in cells]
    return shows.index(True) + 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--codelora", required=True)
    parser.add_argument("--notebook", default="0", help="its number")
    parser.add_argument("--records", default=str(Path(__file__).resolve().parent.parent / "records"))
    options = parser.parse_args()
    done = subprocess.run([options.codelora, "lab", "--check", options.notebook], stdout=subprocess.PIPE, text=True)
    found = [match for line in done.stdout.splitlines() if (match := LINE.match(line))]
    # A cell that shows other figures than the saved one still took its time; a notebook that stopped halfway is no measurement.
    if not found or len(found) != int(found[0][3]):
        sys.exit(f"{len(found)} cells were timed; the notebook has to run to its end")
    seconds = [float(match[4]) for match in found]
    kernel = float(READY.search(done.stdout)[1])
    notebook = Path(__file__).resolve().parents[2] / "notebooks" / f"{found[0][1]}.ipynb"
    figure = round(kernel + sum(seconds[: before_figure(notebook)]), 1)
    name, cores = machine()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    row = {"notebook": found[0][1], "kernel_s": kernel, "first_s": seconds[0], "figure_s": figure,
           "median_s": round(statistics.median(seconds[1:]), 2), "longest_s": max(seconds[1:]),
           "cells": len(found), "threads": cores, "machine": name,
           "commit": commit or "unknown"}
    path = Path(options.records) / "cells.csv"
    old = list(csv.DictReader(path.open())) if path.exists() else []
    kept = [line for line in old if (line["notebook"], line["machine"]) != (row["notebook"], row["machine"])]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, row])
    print(row)


if __name__ == "__main__":
    main()
