#!/usr/bin/env python3
"""Re-executes every row that phase 1 wrote, with plain Python and none of the project's code, and compares.

Usage: verify_rows.py DATA_FOLDER [--seconds N]

For each row of v2_raw/*.jsonl it runs prompt + solution + setup + tests in a process of its own and compares the result
with the row's `verified`; a row that passes must also fail with the body `return None`. Every row of v2_train.jsonl and
v2_val.jsonl must be a verified row of v2_raw, letter by letter, and every row of v2_held_out.jsonl too. Exit code 0
means that everything agrees.
"""

import argparse
import ast
import concurrent.futures
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

EMPTY_BODY = "    return None\n"


def rows(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def passes(row, solution, seconds):
    nonce = secrets.token_hex(16)
    parts = [row["prompt"] + solution, row.get("setup", ""), *row["tests"], "print(%r)" % nonce]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-"], input="\n".join(parts), cwd=folder, timeout=seconds,
                capture_output=True, text=True, encoding="utf-8",
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.rstrip().endswith(nonce)


def faults(row, seconds):
    found = []
    prompt, solution = row["prompt"], row["solution"]
    if passes(row, solution, seconds) != row["verified"]:
        # `verified` also says that the empty body fails.
        if not (not row["verified"] and passes(row, EMPTY_BODY, seconds)):
            found.append("verified is %s, plain Python disagrees" % row["verified"])
    if row["verified"]:
        if passes(row, EMPTY_BODY, seconds):
            found.append("the empty body passes")
        ast.parse(prompt + solution)
        shaped = prompt.endswith("\n") and solution.startswith("    ") and not solution[4].isspace()
        if not shaped or solution != solution.rstrip("\n") + "\n":
            found.append("the border between prompt and solution is not where it must be")
    return [row["id"] + ": " + fault for fault in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    raw = [row for path in sorted(arguments.folder.glob("v2_raw/*.jsonl")) for row in rows(path)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [fault for part in pool.map(lambda row: faults(row, arguments.seconds), raw) for fault in part]
    verified = {row["id"]: row for row in raw if row["verified"]}
    written, seen = 0, set()
    for name in ("v2_train.jsonl", "v2_val.jsonl", "v2_held_out.jsonl"):
        for row in rows(arguments.folder / name):
            written += 1
            twin = verified.get(row["id"])
            if name != "v2_held_out.jsonl" and list(row) != ["id", "prompt", "solution"]:
                found.append("%s: %s has other fields than id, prompt, solution" % (name, row["id"]))
            if twin is None or (twin["prompt"], twin["solution"]) != (row["prompt"], row["solution"]):
                found.append("%s: %s is no verified row" % (name, row["id"]))
            if row["id"] in seen:
                found.append("%s: %s is in two splits" % (name, row["id"]))
            seen.add(row["id"])
    print("%d rows executed, %d verified, %d written into splits, %d faults" % (len(raw), len(verified), written, len(found)))
    for fault in found:
        print(fault)
    sys.exit(bool(found))


main()
