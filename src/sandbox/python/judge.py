"""The process of the tests. It holds the nonce and writes it after the last test; no untrusted code runs in it."""

import importlib

TESTS = "tests"  # the name of the module in which setup and tests run


def judge_main(read, write, life, others, config):
    for fd in others:
        os.close(fd)
    request = json.loads(read_exactly(0, struct.unpack(">I", read_exactly(0, 4))[0]))
    os.write(life, b"r")  # the request is off the channel; whatever happens now, the next one starts clean
    os.close(0)
    enter_cell(config)
    random.seed(0)
    peer = Peer(read, write, config["output"], serve_tests)
    verdict = {"ticket": request["ticket"], "passed": 0}
    end = 0
    try:
        judge(peer, request, verdict)
        verdict.update(kind="passed", nonce=request["nonce"])
    except Gone as error:
        verdict.update(kind="gone", message=str(error))
        end = 3
    except Verdict as error:
        verdict.update(error.args[0])
    except BaseException as error:
        verdict.update(failure(error, ""))
    verdict["message"] = verdict.get("message", "")[:2000]
    os.write(2, json.dumps(verdict).encode())
    os._exit(end)


class Verdict(BaseException):
    """Ends the judgement with the fields given."""


def judge(peer, request, verdict):
    setup, tests = compiled("setup", request["setup"]), []
    for number, test in enumerate(request["tests"], 1):
        tests.append(compiled("test %d" % number, test))
    wanted = sorted(set().union(*(names(code) for code in [setup, *tests])))
    peer.send(["code", request["code"], wanted])
    reply = peer.receive()
    if reply[0] == "syntax":
        raise Verdict({"kind": "syntax", "message": reply[1]})
    if reply[0] != "ready":
        raise Verdict({"kind": "failed", "class": str(reply[1][0]), "message": str(reply[3]), "assertion": False})
    space = {"__name__": TESTS, **offered(peer, {n: e for n, e in reply[1].items() if n in wanted})}
    run(setup, space, "setup")
    for code, test in zip(tests, request["tests"]):
        run(code, space, test)
        verdict["passed"] += 1


def compiled(what, source):
    try:
        return compile(source, "<%s>" % what, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        message = "%s does not compile: %s" % (what, error)
        raise Verdict({"kind": "failed", "class": type(error).__name__, "message": message, "assertion": False})


def run(code, space, source):
    try:
        exec(code, space)
    except (Gone, Verdict):
        raise
    except BaseException as error:
        raise Verdict(failure(error, source)) from None


def failure(error, source):
    own = isinstance(error, AssertionError) and not getattr(error, "from_program", False)
    detail = str(error)
    message = source if own and not detail else "%s: %s" % (type(error).__name__, detail)
    if not own and source:
        message += " in " + source
    return {"kind": "failed", "class": type(error).__name__, "message": message, "assertion": own}


def names(code):
    """Every name that the compiled statements could look up."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names(constant)
    return found


def offered(peer, told):
    """The names that the tests take from the code.

    A built-in's name is the code's own only when the tests name no other function of the code: then it is what they
    test (`def sum(a, b)` asked for as an exercise); otherwise the code could bend `all`, `abs` or `len` under them.
    """
    space = {}
    for name, entry in told.items():
        if "module" in entry:
            module = entry["module"]
            if module in SHARED_MODULES or module in ("sys", "os"):
                space[name] = importlib.import_module(module)
        elif "from" in entry:
            module, attribute = entry["from"]
            if module in SHARED_MODULES:
                space[name] = getattr(importlib.import_module(module), attribute)
        else:
            space[name] = peer.decode(entry["value"])
    own = [n for n, value in space.items() if callable(value) and not hasattr(builtins, n)]
    return {n: v for n, v in space.items() if not (own and hasattr(builtins, n))}


def serve_tests(peer, operation, target, values):
    """The code may call the functions the tests hand it, walk their iterators, and use the public side of objects of
    classes that the tests define; nothing leads from these to the tests' frames or the nonce."""
    hidden = operation in ("get", "set") and values[0].startswith("_")
    if operation in ("call", "iter", "next", "bool") or type(target).__module__ == TESTS and not hidden:
        return serve_anything(peer, operation, target, values)
    raise TypeError("the tests' objects do not offer this")


def read_exactly(fd, size):
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            os._exit(4)
        data += part
    return data
