"""The parent of all programs: builds the walls once, then forks two processes a program and buries both.

It never reads a request: what the tests say is known to the judge's process alone, so that no later program can find
an earlier one's tests in the memory it inherits.
"""

import gc
import select
import time


def main():
    config = json.loads(read_exactly(0, struct.unpack(">I", read_exactly(0, 4))[0]))
    config["filter"] = bytes.fromhex(config["filter"]) if config["filter"] else None
    config["null"] = os.open("/dev/null", os.O_RDWR)
    sys.path[:] = [p for p in sys.path if p]
    for module in SHARED_MODULES:
        importlib.import_module(module)
    missing = build_walls(config)
    print(json.dumps({"missing": missing}), flush=True)
    compile("0", "<warm>", "exec")  # the compiler builds its tables at first use: 5 ms, here once for all programs
    json.loads(json.dumps({"warm": [0.5]}))
    gc.collect()
    gc.freeze()
    while os.read(0, 1):
        report = one_program(config)
        os.write(1, json.dumps(report).encode() + b"\n")
        if not report["read"]:
            break  # the request is still on the channel: only a fresh process can find the next one's start
    os._exit(0)


def build_walls(config):
    missing = {}
    layers = [("namespaces", "namespaces", enter_namespaces), ("landlock", "landlock", restrict_files)]
    for name, setting, build in layers:
        if config[setting] in (False, None):
            continue
        try:
            build(config)
        except Exception as error:
            missing[name] = str(error)
    if config["linux"]:
        drop_capabilities()
        prctl(SET_NO_NEW_PRIVS, 1)
    missing.update(rehearse(config))
    return missing


def rehearse(config):
    """Builds the last walls in a process that does nothing else, to know that they hold."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_cell(config)
            os._exit(0)
        except Exception as error:
            os.write(write, str(error).encode())
        os._exit(1)
    os.close(write)
    with open(read, "rb") as pipe:
        fault = pipe.read().decode()
    os.waitpid(child, 0)
    return {"seccomp" if fault.startswith("seccomp") else "limits": fault} if fault else {}


def one_program(config):
    start = time.monotonic()
    to_judge, from_program = os.pipe()
    to_program, from_judge = os.pipe()
    program = fork_into(program_main, to_program, from_program, config)
    life, held = os.pipe()  # made after the program's process, which therefore has no end of it
    others = (from_program, to_program, life)
    judge = fork_into(judge_main, to_judge, from_judge, held, others, config)
    for fd in (to_judge, from_program, to_program, from_judge, held):
        os.close(fd)
    deadline = start + config["wall"]
    read, late = wait_for_end(life, deadline)
    os.close(life)
    if late:
        os.kill(judge, signal.SIGKILL)
    _, judge_status = os.waitpid(judge, 0)
    gone = os.WIFEXITED(judge_status) and os.WEXITSTATUS(judge_status) == 3
    program_status = bury(program, 0.2 if gone else 0.0)
    clean(config["scratch"])
    return {
        "late": late,
        "read": read,
        "judge": judge_status,
        "program": program_status,
        "seconds": time.monotonic() - start,
    }


def fork_into(function, *arguments):
    child = os.fork()
    if child == 0:
        try:
            function(*arguments)
        finally:
            os._exit(98)
    return child


def wait_for_end(life, deadline):
    """Whether the judge has read its request, and whether it had to be stopped."""
    read = False
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([life], [], [], left)[0]:
            return read, True
        if not os.read(life, 1):
            return read, False
        read = True


def bury(process, patience):
    """The wait status of a process, or None when it had to be killed."""
    end = time.monotonic() + patience
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.002)


def clean(scratch):
    """Empties the scratch folder, however deep: by steps, for a path can be too long to name."""
    depth = 0
    os.chmod(scratch, 0o700)
    os.chdir(scratch)
    while True:
        below = None
        with os.scandir(".") as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name)
                    continue
                os.chmod(entry.name, 0o700)
                try:
                    os.rmdir(entry.name)
                except OSError:
                    below = entry.name
                    break
        if below is not None:
            os.chdir(below)
            depth += 1
        elif depth:
            os.chdir("..")
            depth -= 1
        else:
            return


main()
