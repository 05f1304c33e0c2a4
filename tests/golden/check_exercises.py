#!/usr/bin/env python3
"""Runs generated exercises without the crate: python3 tests/golden/check_exercises.py SAMPLES.jsonl

Each line is a task with prompt, solution, entry_point, setup and tests. The solution must pass its tests, the body
`return None` must not, and the text must have the layout of a sample. No sample may pass four in five of a benchmark task's
tests.
Of each family, one sample for every choice of slot rows must fail the tests of the samples that differ in one slot,
unless both are the same function under other names. The exercises are our own code, so they run in this process.
Prints one line per fault and a summary; exits with 1 when there is a fault. Needs Python 3.11.
"""

import ast
import collections
import json
import os
import re
import resource
import signal
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 2.0


class Late(Exception):
    """A sample took too long."""


def on_alarm(_signal, _frame):
    raise Late()


def failure(code, setup, tests):
    """Why `code` fails its tests, or None."""
    scope, part, error = {"__name__": "sample"}, "", None
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            for part in [code, setup, *tests]:
                exec(part, scope)
        except Exception as raised:
            error = raised
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Late as late:  # it rang while another error was on its way
        error = late
    if error is None:
        return None
    if isinstance(error, Late):
        return "takes too long"
    return f"{type(error).__name__}: {error} ({part.strip().splitlines()[-1] if part.strip() else ''})"


def layout(task):
    """What is wrong with the text, or None."""
    prompt, solution = task["prompt"], task["solution"]
    if not prompt.endswith('"""\n'):
        return "the prompt does not end after the docstring"
    if not solution.startswith("    ") or solution.startswith("     "):
        return "the solution is not indented by four spaces"
    if not solution.endswith("\n") or solution.endswith("\n\n"):
        return "the solution does not end in one newline"
    function = ast.parse(prompt + solution).body[-1]
    if not isinstance(function, ast.FunctionDef) or function.name != task["entry_point"]:
        return "the last statement is not the function under test"
    if not ast.get_docstring(function):
        return "the function has no docstring"
    if re.search(r"[{}]|  |\b(\w+) \1\b", ast.get_docstring(function).split("\n")[0]):
        return "the docstring holds a brace, a doubled word or a doubled space"
    return None


def stand_in(task, other):
    """`task`'s code under the name of the function that `other`'s tests call."""
    return f"{task['prompt']}{task['solution']}\n{other['entry_point']} = {task['entry_point']}\n"


def outline(task):
    """The function's syntax tree without its docstring, with names numbered in the order of their first use."""
    function = ast.parse(task["prompt"] + task["solution"]).body[-1]
    function.body, function.name, function.returns = function.body[1:], "f", None
    numbers = {}
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
            node.arg = str(numbers.setdefault(node.arg, len(numbers)))
        elif isinstance(node, ast.Name):
            node.id = str(numbers.setdefault(node.id, len(numbers))) if node.id not in dir(__builtins__) else node.id
    return ast.dump(function)


def neighbours(tasks):
    """Pairs of samples of one family and form that differ in the row of one slot, and how many choices there are."""
    slots = {}
    common = set(tomllib.loads((ROOT / "data/exercises/common.toml").read_text(encoding="utf-8"))["slots"])
    for path in sorted((ROOT / "data/exercises").glob("*.toml")):
        for family in tomllib.loads(path.read_text(encoding="utf-8")).get("family", []):
            slots[family["name"]] = set(family.get("slots", {})) | common
            slots[family["name"] + "_rephrased"] = set()  # the same rows, compared above already
    groups = collections.defaultdict(dict)
    for task in tasks:
        family, *picks = task["provenance"]["original_id"].split(" ")
        picks = dict(pick.split("=") for pick in picks)
        rows = tuple((slot, picks[slot]) for slot in sorted(slots[family] & picks.keys()))
        groups[family, picks["form"]].setdefault(rows, task)
    pairs = []
    for samples in groups.values():
        for rows, task in samples.items():
            for others, other in samples.items():
                if sum(a != b for a, b in zip(rows, others)) == 1:
                    pairs.append((task, other))
    return pairs, sum(len(samples) for samples in groups.values())


def behaves_like(task, row):
    """Whether the function passes at least four in five of a benchmark task's tests, which is what the data phase refuses.

    In a process of its own with little time: a power of 10**15 is one instruction that no signal ends.
    """
    process = os.fork()
    if process == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        passed = sum(failure(stand_in(task, row), "", [test]) is None for test in row["tests"])
        os._exit(0 if 5 * passed >= 4 * len(row["tests"]) else 1)
    return os.waitpid(process, 0)[1] == 0


def parameters(task):
    """How many parameters the function has."""
    return len(ast.parse(task["prompt"] + "    pass\n").body[-1].args.args)


def benchmark():
    """The tasks that must stay unseen."""
    lines = (ROOT / "data/benchmarks/simple20.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main():
    signal.signal(signal.SIGALRM, on_alarm)
    faults, families = [], collections.Counter()
    seen, excluded = set(), benchmark()
    with open(sys.argv[1], encoding="utf-8") as lines:
        tasks = [json.loads(line) for line in lines]
    for task in tasks:
        place = f"{task['id']} {task['provenance']['original_id']}"
        families[task["provenance"]["original_id"].split(" ")[0]] += 1
        fault = layout(task) or failure(task["prompt"] + task["solution"], task["setup"], task["tests"])
        if not fault and failure(task["prompt"] + "    return None\n", task["setup"], task["tests"]) is None:
            fault = "`return None` passes"
        if not fault and (task["prompt"], task["solution"]) in seen:
            fault = "it is there twice"
        seen.add((task["prompt"], task["solution"]))
        if not fault:
            alike = [row for row in excluded if parameters(row) == parameters(task)]
            passed = [row["entry_point"] for row in alike if behaves_like(task, row)]
            fault = f"it passes the benchmark's {passed}" if passed else None
        if fault:
            faults.append(f"{place}: {fault}")
    pairs, choices = neighbours(tasks)
    for task, other in pairs:
        if not failure(stand_in(task, other), other["setup"], other["tests"]) and outline(task) != outline(other):
            faults.append(f"{task['provenance']['original_id']} passes {other['provenance']['original_id']}")
    print(*faults, sep="\n")
    print(f"{len(tasks)} samples of {len(families)} families, {choices} choices of slot rows,", end=" ")
    print(f"{len(pairs)} neighbours, {len(excluded)} benchmark tasks: {len(faults)} faults")
    sys.exit(1 if faults or not tasks else 0)


main()
