"""Facts about Python programs from their syntax trees. Reads one JSON string a line, writes one JSON object a line.

Nothing is executed: programs are parsed only. A program that does not parse gives null. One that crashes the parser
ends this process by a signal; the caller sees which row it was and starts again behind it.
"""

import ast
import hashlib
import json
import os
import resource
import signal
import sys
import sysconfig
import warnings

SECONDS_PER_ROW = 5
MEMORY_BYTES = 1 << 30
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.IfExp, ast.ExceptHandler, ast.Assert, ast.comprehension)


def standard_library():
    if hasattr(sys, "stdlib_module_names"):
        return set(sys.stdlib_module_names)
    found = set(sys.builtin_module_names)
    for folder in (sysconfig.get_path("stdlib"), os.path.join(sysconfig.get_path("stdlib"), "lib-dynload")):
        found.update(name.split(".")[0] for name in os.listdir(folder))
    return found


def without_docstring(body):
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        if isinstance(body[0].value.value, str):
            return body[1:]
    return body


def names_bound(tree):
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            found.append(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del)):
            found.append(node.id)
        elif isinstance(node, FUNCTIONS + (ast.ClassDef,)):
            found.append(node.name)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.append(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            found.extend(node.names)
    return list(dict.fromkeys(found))


class Form:
    """The tree as words in pre-order, closed by `)`; names that the tree binds are numbered as they come."""

    def __init__(self, tree):
        self.bound = set(names_bound(tree))
        self.numbers = {}
        self.words = []
        self.visit(tree)

    def name(self, name):
        if name not in self.bound:
            return name
        return "v%d" % self.numbers.setdefault(name, len(self.numbers))

    def visit(self, node):
        if isinstance(node, list):
            for item in node:
                self.visit(item)
            return
        if not isinstance(node, ast.AST):
            self.words.append(repr(node).replace(" ", "_"))
            return
        if isinstance(node, (ast.Load, ast.Store, ast.Del, ast.Import, ast.ImportFrom)):
            return
        self.words.append(type(node).__name__)
        for field, value in ast.iter_fields(node):
            if value is None or field in ("annotation", "returns", "type_comment", "kind", "type_params"):
                if not (field == "value" and isinstance(node, ast.Constant)):
                    continue
            if isinstance(node, (ast.Name, ast.arg) + FUNCTIONS + (ast.ClassDef, ast.ExceptHandler)) and isinstance(value, str):
                self.words.append(self.name(value))
            elif field == "body" and isinstance(node, FUNCTIONS + (ast.ClassDef, ast.Module)):
                self.visit(without_docstring(value))
            else:
                self.visit(value)
        self.words.append(")")


def complexity(tree):
    branches = 0
    for node in ast.walk(tree):
        if isinstance(node, BRANCHES) or type(node).__name__ == "match_case":
            branches += 1
        if isinstance(node, ast.comprehension):
            branches += len(node.ifs)
        if isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
    return 1 + branches


def function(node, top_level):
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = any(default is None for default in arguments.kw_defaults)
    body = ast.Module(without_docstring(node.body), [])
    return {
        "name": node.name,
        "top_level": top_level,
        "min_args": 255 if required else positional - len(arguments.defaults),
        "max_args": 255 if arguments.vararg else positional,
        "form": " ".join(Form(node).words),
        "body_sha256": hashlib.sha256(ast.dump(body).encode("utf-8", "replace")).hexdigest(),
        "complexity": complexity(node),
        "docstring_words": len((ast.get_docstring(node) or "").split()),
    }


def facts(source, library):
    tree = ast.parse(source)
    compile(tree, "<sample>", "exec", dont_inherit=True)
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports.add(node.module.split(".")[0])
    functions = [function(node, node in tree.body) for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    return {
        "functions": functions,
        "form": " ".join(Form(tree).words),
        "complexity": max([item["complexity"] for item in functions], default=complexity(tree)),
        "names": len(names_bound(tree)),
        "imports": sorted(imports),
        "foreign_imports": sorted(imports - library),
    }


def main():
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = standard_library()
    for line in sys.stdin:
        # The alarm is not caught on purpose: it ends a parser that does not come back.
        signal.setitimer(signal.ITIMER_REAL, SECONDS_PER_ROW)
        try:
            answer = facts(json.loads(line), library)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            answer = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(answer), flush=True)


main()
