"""The process of the untrusted code. It never holds the tests or the nonce; it answers calls until it is killed."""

import random
import sys
import types

# What tests may take from the code's imports is looked up in the judge's own copy of these modules.
SHARED_MODULES = {
    "bisect", "cmath", "collections", "copy", "datetime", "decimal", "fractions", "functools", "hashlib", "heapq",
    "itertools", "json", "math", "operator", "random", "re", "statistics", "string", "time", "typing",
}


def program_main(read, write, config):
    for source, target in ((read, 60), (write, 61)):
        os.dup2(source, target)
    for target in (0, 1, 2):
        os.dup2(config["null"], target)
    os.closerange(3, 60)
    os.dup2(60, 3)
    os.dup2(61, 4)
    os.closerange(60, 64)
    os.chdir(config["scratch"])
    enter_cell(config)
    peer = Peer(3, 4, config["output"], serve_anything)
    try:
        _, code, wanted = peer.receive()
        peer.send(run_code(peer, code, wanted))
        while True:
            peer.answer(peer.receive())
    except Gone:
        os._exit(0)


def run_code(peer, code, wanted):
    random.seed(0)
    sys.setrecursionlimit(1000 + 12)  # a thousand for the program, the rest for the frames below it
    try:
        compiled = compile(code, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return ["syntax", str(error)[:2000]]
    except BaseException as error:
        return peer.describe(error)
    module = types.ModuleType("program")
    sys.modules["program"] = sys.modules["__main__"] = module
    try:
        exec(compiled, module.__dict__)
        return ["ready", {n: name_of(peer, module.__dict__[n]) for n in wanted if n in module.__dict__}]
    except BaseException as error:
        return peer.describe(error)


def name_of(peer, value):
    """How a name of the code is told to the tests: modules and their functions by name, so that they use their own."""
    if type(value) is types.ModuleType:
        return {"module": value.__name__}
    home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if home in SHARED_MODULES and getattr(sys.modules.get(home), str(name), None) is value:
        return {"from": [home, name]}
    return {"value": peer.encode(value)}


def serve_anything(peer, operation, target, values):
    if operation == "call":
        return target(*values[0], **values[1])
    if operation == "set":
        return setattr(target, *values)
    if operation == "setitem":
        target[values[0]] = values[1]
        return None
    return {
        "get": lambda: getattr(target, *values),
        "iter": lambda: iter(target),
        "next": lambda: next(target),
        "len": lambda: len(target),
        "bool": lambda: bool(target),
        "item": lambda: target[values[0]],
        "instance": lambda: isinstance(values[0], target),
        "str": lambda: str(target),
        "repr": lambda: repr(target),
    }[operation]()
