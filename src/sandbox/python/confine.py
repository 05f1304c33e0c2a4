"""The walls: namespaces, Landlock, seccomp, capabilities, limits. Every call either holds or raises."""

import ctypes
import os
import resource
import signal
import struct

libc = ctypes.CDLL(None, use_errno=True)

NEW_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mnt pid net ipc uts
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SECCOMP, SET_NO_NEW_PRIVS = 1, 4, 22, 38
SCRATCH = "/scratch"


def check(result, what):
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, "%s: %s" % (what, os.strerror(number)))
    return result


def prctl(option, value):
    word = ctypes.c_ulong
    check(libc.prctl(ctypes.c_int(option), word(value), word(0), word(0), word(0)), "prctl %d" % option)


def mount(source, target, kind, flags, data=None):
    names = [None if x is None else os.fsencode(x) for x in (source, target, kind)]
    data = None if data is None else data.encode()
    check(libc.mount(*names, ctypes.c_ulong(flags), data), "mount %s" % target)


def enter_namespaces(config):
    """New user, mount, process, network, IPC and host-name spaces; a root that holds only what Python reads."""
    uid, gid = os.geteuid(), os.getegid()
    check(libc.unshare(NEW_NAMESPACES), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (uid, uid)), ("gid_map", "%d %d 1" % (gid, gid))):
        with open("/proc/self/" + name, "w") as file:
            file.write(text)
    root = config["scratch"]
    mount(None, "/", None, REC | PRIVATE)
    mount("none", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for path in config["readable"]:
        show(path, root + path)
    os.makedirs(root + SCRATCH)
    options = "size=%d,nr_inodes=1024,mode=700" % (4 * config["file"])
    mount("none", root + SCRATCH, "tmpfs", NOSUID | NODEV | NOEXEC, options)
    mount(None, root, None, REMOUNT | RDONLY | NOSUID | NODEV)
    os.chdir(root)
    check(libc.syscall(ctypes.c_long(config["pivot_root"]), b".", b"."), "pivot_root")
    check(libc.umount2(b".", 2), "umount")
    os.chdir("/")
    config["scratch"] = SCRATCH
    become_first_process()


def show(path, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        open(target, "w").close()
    mount(path, target, None, BIND | REC)
    # A mount made by another user keeps its flags: a remount that drops one is refused.
    kept = os.statvfs(target).f_flag & (NOSUID | NODEV | NOEXEC)
    mount(None, target, None, REMOUNT | BIND | RDONLY | kept)


def become_first_process():
    """The caller goes on as process 1 of the new process space; the one before it waits and passes its end on."""
    child = os.fork()
    if child:
        os.closerange(0, 64)
        _, status = os.waitpid(child, 0)
        os._exit(0 if status == 0 else 1)
    prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def restrict_files(config):
    """Landlock: only the prepared rule set's paths are readable, only the scratch folder is writable."""
    ruleset, number = config["landlock"], ctypes.c_long
    version = libc.syscall(number(444), None, number(0), number(1))
    # write, read, list, remove (2), make folder, file, symbolic link; then refer and truncate where handled
    access = 0b1_0001_1011_1110 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    scratch = os.open(config["scratch"], os.O_PATH | os.O_DIRECTORY)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", access, scratch))
    check(libc.syscall(number(445), number(ruleset), number(1), rule, number(0)), "landlock_add_rule")
    check(libc.syscall(number(446), number(ruleset), number(0)), "landlock_restrict_self")
    os.close(scratch)
    os.close(ruleset)


def drop_capabilities():
    header, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    check(libc.capset(header, nothing), "capset")
    prctl(SET_DUMPABLE, 0)  # no other process of this user reads this one's memory through /proc


class FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def restrict_calls(instructions):
    """seccomp: the system calls that a single-threaded computation needs, and no other."""
    program = FilterProgram(len(instructions) // 8, instructions)
    word = ctypes.c_ulong
    check(libc.prctl(ctypes.c_int(SET_SECCOMP), word(2), ctypes.byref(program), word(0), word(0)), "seccomp")


def limit(config):
    cpu = int(config["wall"]) + 1
    for name, soft, hard in (
        ("CORE", 0, 0),
        ("CPU", cpu, cpu + 1),
        ("AS", config["memory"], config["memory"]),
        ("FSIZE", config["file"], config["file"]),
        ("NOFILE", config["open_files"], config["open_files"]),
        ("NPROC", 0, 0),
    ):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (soft, hard))


def enter_cell(config):
    """The last walls, in each process that runs one program or its tests."""
    if config["linux"]:
        prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        prctl(SET_DUMPABLE, 0)
    limit(config)
    if config["filter"]:
        restrict_calls(config["filter"])
