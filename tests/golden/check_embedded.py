"""Prove the tasks of our own writing with plain Python, without any code of the crate.

Run from the repository root: `python3 tests/golden/check_embedded.py` (standard library only, Python 3.9 or later).

Covered: every solution passes its tests and the body `return None` fails them; every benchmark test rejects `None` on its
own; the wrong bodies of `mutants.py` fail and the right ones pass; no embedded task carries a benchmark function's name,
normalised AST or behaviour; names and ids are unique; the quirks that the converters must survive are present.
Not covered: the converters themselves.
"""

import ast
import builtins
import json
import os
import re
import resource
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from mutants import MUTANTS  # noqa: E402

FAULTS = []
IMPORT_INSIDE = re.compile(r"^    (import|from) ", re.M)


def expect(condition, message):
    """Note a fault; all are reported at the end."""
    if not condition:
        FAULTS.append(message)


def rows(path):
    with open(ROOT / path, encoding="utf-8", newline="") as file:
        return [json.loads(line) for line in file]


def passes(*sources):
    """Whether the sources run one after another in one namespace, in a child process of their own, within two seconds."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(2)
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.dup2(devnull, 2)
            scope = {"__name__": "task"}
            for source in sources:
                exec(compile(source, "<task>", "exec"), scope)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def behaves_like(program, name, benchmarks):
    """Ids of the benchmark tasks whose tests the program's function `name` passes; one child, half a second a task."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)

        def stop(*_):
            raise TimeoutError

        signal.signal(signal.SIGALRM, stop)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        compiled = compile(program, "<task>", "exec")
        for task in benchmarks:
            scope = {"__name__": "task"}
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                exec(compiled, scope)
                scope[task["entry_point"]] = scope[name]
                exec("\n".join(task["tests"]), scope)
                os.write(write, (task["id"] + "\n").encode())
            except BaseException:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        found = pipe.read().split()
    expect(os.waitpid(child, 0)[1] == 0, f"{name}: the comparison with the benchmarks broke off")
    return found


def indented(body):
    return "".join("    " + line + "\n" if line else "\n" for line in body.rstrip("\n").split("\n"))


def defined(source):
    """Names of all functions in the source, nested ones and methods too."""
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def normal_form(function):
    """The AST of a function's body with its own and its arguments' names replaced, docstring and annotations dropped."""
    function = ast.parse(ast.unparse(function)).body[0]
    if ast.get_docstring(function) is not None:
        function.body = function.body[1:]
    names = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            node.id = names.setdefault(node.id, f"v{len(names)}")
        elif isinstance(node, ast.arg):
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
            node.annotation = None
    function.returns = None
    return " ".join(ast.dump(node) for node in [function.args, *function.body])


def functions(source):
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]


def gutted(source, name):
    """The source with the body of its function `name` replaced by `return None`."""
    tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            node.body = [ast.Return(ast.Constant(None))]
    return ast.unparse(ast.fix_missing_locations(tree))


def check_benchmark(path, prefix_right, wrong):
    tasks = rows(path)
    for task in tasks:
        name = task["entry_point"]
        place = f"{path}: {task['id']}"
        expect(set(task) == {"id", "prompt", "entry_point", "setup", "tests", "solution"}, f"{place}: other fields")
        expect(task["id"] == "bench_" + name, f"{place}: the id is not the function's")
        expect(re.fullmatch(r'def \w+\(.*\) -> .+:\n    """[^\n]+"""\n', task["prompt"]), f"{place}: shape of the prompt")
        expect(task["solution"].startswith("    ") and task["solution"].endswith("\n"), f"{place}: shape of the solution")
        expect(len(task["tests"]) >= 6, f"{place}: fewer than six tests")
        tests = "\n".join(task["tests"])
        expect(passes(task["prompt"] + task["solution"], tests), f"{place}: the solution fails")
        for test in task["tests"]:
            expect(not passes(task["prompt"] + "    return None\n", test), f"{place}: None passes {test}")
        bodies = MUTANTS[name]
        expect(len(bodies["right"]) >= prefix_right, f"{place}: too few right bodies")
        expect(len(bodies["wrong"]) >= wrong, f"{place}: too few wrong bodies")
        for body in bodies["right"]:
            expect(passes(task["prompt"] + indented(body), tests), f"{place}: a right body fails:\n{body}")
        for body in bodies["wrong"]:
            compile(task["prompt"] + indented(body), place, "exec")
            expect(not passes(task["prompt"] + indented(body), tests), f"{place}: a wrong body passes:\n{body}")
    return tasks


def check_humaneval(path):
    tasks = rows(path)
    for number, row in enumerate(tasks):
        place = f"{path}: {row['task_id']}"
        expect(list(row) == ["task_id", "prompt", "entry_point", "canonical_solution", "test"], f"{place}: fields")
        expect(row["task_id"] == f"Embedded/{number}", f"{place}: numbering")
        program = row["prompt"] + row["canonical_solution"]
        call = f"check({row['entry_point']})\n"
        expect(ast.get_docstring(entry(program, row["entry_point"])) or IMPORT_INSIDE.search(row["prompt"]), f"{place}: no docstring")
        expect(row["prompt"].endswith("\n") and row["canonical_solution"].endswith("\n"), f"{place}: line ends")
        asserts = sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(row["test"])))
        expect(asserts >= 5, f"{place}: {asserts} asserts")
        expect(passes(program, row["test"], call), f"{place}: the solution fails")
        expect(not passes(row["prompt"] + "    return None\n", row["test"], call), f"{place}: None passes")
        expect(len(row["canonical_solution"]) <= 900, f"{place}: long solution")
    return tasks


def entry(program, name):
    return next(node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef) and node.name == name)


def mbpp_entry(row):
    """The one function of the code that all tests call."""
    own = {node.name for node in ast.parse(row["code"]).body if isinstance(node, ast.FunctionDef)}
    called = [{node.func.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)} for test in row["test_list"]]
    common = own.intersection(*called)
    return common.pop() if len(common) == 1 else None


def check_mbpp(path):
    tasks = rows(path)
    fields = ["text", "code", "task_id", "test_setup_code", "test_list", "challenge_test_list"]
    for row in tasks:
        place = f"{path}: {row['task_id']}"
        expect(list(row) == fields, f"{place}: fields")
        expect(isinstance(row["task_id"], int) and len(row["test_list"]) >= 3, f"{place}: id or tests")
        name = mbpp_entry(row)
        expect(name is not None, f"{place}: not exactly one function is called by all tests")
        if name is None:
            continue
        parts = [row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]]
        expect(passes(row["code"], *parts), f"{place}: the code fails")
        expect(not passes(gutted(row["code"], name), *parts[: 1 + len(row["test_list"])]), f"{place}: None passes")
        expect(len(row["code"].splitlines()) <= 34 and len(row["code"]) <= 1000, f"{place}: long")
    ids = [row["task_id"] for row in tasks]
    expect(len(set(ids)) == len(ids), f"{path}: ids repeat")
    return tasks


def check_distinct(benchmarks, programs):
    """No embedded function is a benchmark function, and no two tasks share a name or a body."""
    forms = {normal_form(functions(task["prompt"] + task["solution"])[0]): task["entry_point"] for task in benchmarks}
    expect(len(forms) == len(benchmarks) - 1, "benchmark bodies: only reverse_list and string_reverse are the same in Python")
    names = {task["entry_point"] for task in benchmarks}
    expect(len(names) == len(benchmarks), "two benchmark tasks have the same name")
    seen = {}
    for place, program, name in programs:
        for function in functions(program):
            form = normal_form(function)
            expect(function.name not in names, f"{place}: {function.name} is a benchmark function by name")
            expect(form not in forms, f"{place}: {function.name} is {forms.get(form)} by AST")
            if function.name == name:
                expect(form not in seen, f"{place}: same body as {seen.get(form)}")
                seen[form] = place
        for function in ast.parse(program).body:
            if isinstance(function, ast.FunctionDef):
                twins = behaves_like(program, function.name, benchmarks)
                expect(not twins, f"{place}: {function.name} behaves like {twins}")
    entries = [name for _, _, name in programs]
    expect(len(set(entries)) == len(entries), f"names repeat: {sorted({n for n in entries if entries.count(n) > 1})}")


def check_neighbours(benchmarks):
    """A benchmark task's solution passes no other task's tests; reversing a list and a string is one slice in Python."""
    for task in benchmarks:
        twins = set(behaves_like(task["prompt"] + task["solution"], task["entry_point"], benchmarks))
        expect(task["id"] in twins, f"{task['id']} is not recognised by its own behaviour")
        twins -= {task["id"]}
        if task["entry_point"] in ("reverse_list", "string_reverse"):
            twins -= {"bench_reverse_list", "bench_string_reverse"}
        expect(not twins, f"{task['id']} passes the tests of {twins}")


def first_indents(code):
    return {len(m.group(1)) for m in re.finditer(r"^def [^\n]*:[^\S\n]*\r?\n( +)\S", code, re.M)}


def check_quirks(humaneval, mbpp):
    """The irregularities that real rows have are all here."""
    counts = {
        "humaneval: begins with a newline": sum(r["prompt"].startswith("\n") for r in humaneval),
        "humaneval: helper before the entry": sum(r["prompt"].count("\ndef ") + r["prompt"].startswith("def ") > 1 for r in humaneval),
        "humaneval: import inside the prompt's function": sum(bool(IMPORT_INSIDE.search(r["prompt"])) for r in humaneval),
        "humaneval: stray global": sum(bool(re.search(r"^[A-Z_]+ = ", r["prompt"], re.M)) for r in humaneval),
        "humaneval: ''' quotes": sum("'''" in r["prompt"] for r in humaneval),
        "humaneval: backslash": sum("\\" in r["prompt"] for r in humaneval),
        "humaneval: non-ASCII": sum(not r["prompt"].isascii() for r in humaneval),
        "humaneval: extra names in the test": sum(not r["test"].lstrip().startswith("def check") for r in humaneval),
        "mbpp: CRLF": sum("\r\n" in r["code"] for r in mbpp),
        "mbpp: trailing CR": sum(r["code"].endswith("\r") for r in mbpp),
        "mbpp: tabs": sum(bool(re.search(r"^\t", r["code"], re.M)) for r in mbpp),
        "mbpp: tabs and spaces": sum(bool(re.search(r"^\t", r["code"], re.M) and re.search(r"^ ", r["code"], re.M)) for r in mbpp),
        "mbpp: top-level imports": sum(bool(re.search(r"^(import|from) ", r["code"], re.M)) for r in mbpp),
        "mbpp: classes": sum(bool(re.search(r"^class ", r["code"], re.M)) for r in mbpp),
        "mbpp: several functions": sum(len(re.findall(r"^def ", r["code"], re.M)) > 1 for r in mbpp),
        "mbpp: entry not first": sum(next(n.name for n in ast.parse(r["code"]).body if isinstance(n, ast.FunctionDef)) != mbpp_entry(r) for r in mbpp),
        "mbpp: one-line body": sum(bool(re.search(r"^def .*: *[^\s#]", r["code"], re.M)) for r in mbpp),
        "mbpp: setup code": sum(bool(r["test_setup_code"]) for r in mbpp),
        "mbpp: decorator": sum(bool(re.search(r"^@", r["code"], re.M)) for r in mbpp),
        "mbpp: multi-line signature": sum(bool(re.search(r"^def \w+\([^)]*\n", r["code"], re.M)) for r in mbpp),
        "mbpp: challenge tests": sum(bool(r["challenge_test_list"]) for r in mbpp),
        "mbpp: backslash continuation": sum(bool(re.search(r"\\\r?\n", r["code"])) for r in mbpp),
        "mbpp: semicolon": sum(bool(re.search(r"; ", r["code"])) for r in mbpp),
        "mbpp: top-level lambda": sum(bool(re.search(r"^\w+ = lambda", r["code"], re.M)) for r in mbpp),
        "mbpp: docstring in the code": sum('"""' in r["code"] for r in mbpp),
        "mbpp: no newline of any kind at the end": sum(not r["code"].endswith(("\n", "\r")) for r in mbpp),
    }
    for width in range(1, 10):
        counts[f"mbpp: first indent of {width}"] = sum(width in first_indents(r["code"]) for r in mbpp)
    ranges = {"prompt": (1, 10), "test, first part": (11, 70), "test": (71, 510), "validation": (511, 600), "train": (601, 974)}
    for split, (low, high) in ranges.items():
        counts[f"mbpp: {split}"] = sum(low <= r["task_id"] <= high for r in mbpp)
    for quirk, count in counts.items():
        expect(count > 0, f"no row has: {quirk}")
    return counts


def main():
    simple = check_benchmark("data/benchmarks/simple20.jsonl", 2, 3)
    other = check_benchmark("data/benchmarks/other40.jsonl", 0, 3)
    expect(len(simple) == 20 and len(other) == 40, "a benchmark has the wrong size")
    check_neighbours(simple + other)
    humaneval = check_humaneval("data/embedded/humaneval.jsonl")
    mbpp = check_mbpp("data/embedded/mbpp.jsonl")
    programs = [(r["task_id"], r["prompt"] + r["canonical_solution"], r["entry_point"]) for r in humaneval]
    programs += [(r["task_id"], r["code"], mbpp_entry(r)) for r in mbpp]
    check_distinct(simple + other, programs)
    for quirk, count in check_quirks(humaneval, mbpp).items():
        print(f"{count:4d}  {quirk}")
    right = sum(len(bodies["right"]) for bodies in MUTANTS.values())
    wrong = sum(len(bodies["wrong"]) for bodies in MUTANTS.values())
    print(f"{len(humaneval)} + {len(mbpp)} tasks, {len(simple)} + {len(other)} benchmark tasks, {right} right and {wrong} wrong bodies: {len(FAULTS)} faults")
    for fault in FAULTS:
        print("FAULT", fault)
    return 1 if FAULTS else 0


if __name__ == "__main__":
    sys.exit(main())
