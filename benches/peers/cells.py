"""Seconds of a notebook's first cell and of the others, as `codelora lab --check` times them: a row of benches/records/cells.csv.

    python cells.py --codelora target/release/codelora [--notebook 0] [--records DIR]

Needs the kernel that `codelora lab` installs, and the artifacts that the notebook opens: then a cell costs what the kernel costs. The
first cell loads the library and starts the kernel's analysis of it; the others are what work in a notebook feels like, so their
median and their longest are written. There is no peer: another kernel does not compile.
"""

import argparse
import csv
import re
import statistics
import subprocess
import sys
from pathlib import Path

FIELDS = ["notebook", "first_s", "median_s", "longest_s", "cells", "threads", "machine", "commit"]
LINE = re.compile(r"^(\S+)\.ipynb: cell (\d+)/(\d+) in ([0-9.]+) s$")


def machine():
    """Processor and its cores, as in the other records, and the threads."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", text, re.M)
    cores = len(re.findall(r"^processor", text, re.M))
    return f"{model[1] if model else 'unknown'} {cores} cores".replace(",", " "), cores


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
    first, others = float(found[0][4]), [float(match[4]) for match in found[1:]]
    name, cores = machine()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    row = {"notebook": found[0][1], "first_s": first, "median_s": round(statistics.median(others), 1), "longest_s": max(others),
           "cells": len(found), "threads": cores, "machine": name, "commit": commit or "unknown"}
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
