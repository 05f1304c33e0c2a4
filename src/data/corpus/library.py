"""Reads Python files and prints documents for pre-training, one JSON object a line. Nothing is executed.

Input (one JSON object on stdin): "files", "folders", "skip" (names left out of folders), "names" (function names that must not occur, in
lower case without underscores), "parts" (that no function name may contain), "body_lines", "doc_chars", "file_bytes".
Output rows: {"kind": "raw" | "pair" | "foreign", "path": ..., "text": ...}; a file beyond ASCII is foreign and has no text.
"""

import ast
import gc
import io
import json
import os
import sys
import textwrap
from collections import deque

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(tree):
    """Every function, in the order of `ast.walk`. Only statements hold functions, so no expression is visited: most of a tree."""
    todo, found = deque([tree]), []
    while todo:
        node = todo.popleft()
        if isinstance(node, FUNCTIONS):
            found.append(node)
        for part in ("body", "handlers", "cases", "orelse", "finalbody"):
            todo.extend(getattr(node, part, ()))
    return found


def excluded(node, plan):
    """Whether a function, by its name, could be one of the benchmark's."""
    name = node.name.lower().replace("_", "")
    return name in plan["names"] or any(part in name for part in plan["parts"])


def pair(node, lines, plan):
    """Signature, first docstring line and body of a short documented function, or None."""
    doc = ast.get_docstring(node)
    if not doc or len(node.body) < 2 or node.decorator_list or isinstance(node, ast.AsyncFunctionDef):
        return None
    summary = " ".join(doc.split("\n\n")[0].split())
    if not summary.isascii() or len(summary) > plan["doc_chars"] or "\\" in summary or '"""' in summary:
        return None
    last = node.body[0].end_lineno
    if node.body[1].lineno <= last:
        return None
    # A comment between the docstring and the first statement belongs to the body.
    body = lines[last:node.end_lineno]
    while body and not body[0].strip():
        body = body[1:]
    if not body or len(body) > plan["body_lines"]:
        return None
    text = textwrap.dedent("\n".join(line.rstrip() for line in body))
    if len(text) < 8:
        return None
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    head = f"def {node.name}({ast.unparse(node.args)}){returns}:\n"
    whole = f'{head}    """{summary}"""\n{textwrap.indent(text, "    ")}\n'
    # A tree is not enough: a nested function with `nonlocal` parses on its own and does not compile.
    try:
        compile(whole, node.name, "exec", dont_inherit=True)
    except SyntaxError:
        return None
    return whole


def documents(path, plan):
    """The rows of one file; none when it does not parse."""
    if os.path.getsize(path) > plan["file_bytes"]:
        return
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tree = ast.parse(text)
    except (SyntaxError, UnicodeDecodeError, ValueError, RecursionError, MemoryError):
        return
    # The parser's lines: `splitlines` would also end one at a form feed.
    lines = text.split("\n")
    drop = set()
    for node in functions(tree):
        if excluded(node, plan):
            first = min([node.lineno] + [d.lineno for d in node.decorator_list])
            drop.update(range(first, node.end_lineno + 1))
    for node in functions(tree):
        if drop.isdisjoint(range(node.lineno, node.end_lineno + 1)):
            found = pair(node, lines, plan)
            if found:
                yield {"kind": "pair", "path": path, "text": found}
    kept = "\n".join(line.rstrip() for number, line in enumerate(lines, 1) if number not in drop)
    # What lost only white space at the ends of lines still parses.
    if drop:
        try:
            ast.parse(kept)
        except SyntaxError:
            return
    whole = {"kind": "raw", "path": path, "text": kept.strip("\n") + "\n"}
    yield whole if kept.isascii() else {"kind": "foreign", "path": path, "text": ""}


def paths(plan):
    yield from plan.get("files", [])
    for root in plan.get("folders", []):
        for folder, folders, files in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in plan["skip"])
            for file in sorted(files):
                if file.endswith(".py") and file[:-3] not in plan["skip"]:
                    yield os.path.join(folder, file)


def main():
    plan = json.load(sys.stdin)
    # Syntax trees have no cycles: looking for some takes a quarter of the time.
    gc.disable()
    out = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n")
    for path in paths(plan):
        for row in documents(path, plan):
            out.write(json.dumps(row) + "\n")
    out.flush()


main()
