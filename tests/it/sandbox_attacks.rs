//! Hostile programs. None passes, none harms, each ends within its limit and a second.
//!
//! Each attack defines `f`, which the test `assert f(3) == 9` calls. Where an attack can tell that it worked, `f` returns
//! 9 then and only then: a pass is a breach.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use codelora::progress::Progress;
use codelora::sandbox::{Execution, Layer, Limits, Outcome, Program, Sandbox};

const SECONDS: f64 = 2.0;

/// The module all attacks may use, and `attempt`: 9 when the action succeeds, 0 when the system refuses it.
const PRELUDE: &str = "import builtins, ctypes, gc, os, signal, socket, sys, threading, time\n\
    def attempt(action):\n    try:\n        action()\n        return 9\n    except OSError:\n        return 0\n";

fn sandbox() -> &'static Sandbox {
    static SHARED: OnceLock<Sandbox> = OnceLock::new();
    SHARED.get_or_init(|| Sandbox::new(Limits::seconds(SECONDS)).expect("this machine has every class of protection"))
}

fn program(code: &str, tests: &[&str]) -> Program {
    let tests = tests.iter().map(|test| test.to_string()).collect();
    Program { code: format!("{PRELUDE}{code}\n"), setup: String::new(), tests }
}

fn run_in(sandbox: &Sandbox, code: &str, tests: &[&str]) -> Execution {
    let start = Instant::now();
    let execution = sandbox.run(&program(code, tests)).expect("the machine holds");
    let seconds = start.elapsed().as_secs_f64();
    assert!(seconds < SECONDS + 1.0, "{seconds} s for {code}");
    execution
}

/// Runs an attack, and after it an honest program, which must not feel it.
fn attack(code: &str) -> Outcome {
    let execution = run_in(sandbox(), code, &["assert f(3) == 9"]);
    println!("{execution:?}");
    let honest = run_in(sandbox(), "def f(x):\n    return x * x", &["assert f(3) == 9"]);
    assert_eq!(honest.outcome, Outcome::Passed, "after {code}: {honest:?}");
    execution.outcome
}

fn exception(class: &str) -> Outcome {
    Outcome::Exception(class.into())
}

/// One test an attack: its name, the outcomes it may have, its code.
macro_rules! attacks {
    ($($name:ident: $($outcome:pat_param)|+ => $code:expr;)*) => {$(
        #[test]
        fn $name() {
            let outcome = attack($code);
            assert!(matches!(outcome, $($outcome)|+), "{outcome:?}");
        }
    )*};
}

use Outcome::{Exception, OutOfMemory, SyntaxError, TimedOut, WrongAnswer};

attacks! {
    infinite_loop: TimedOut => "def f(x):\n    while True: pass";
    infinite_loop_at_import: TimedOut => "while True: pass";
    sleep: TimedOut => "def f(x): time.sleep(1000)";
    ignored_signals: TimedOut =>
        "def f(x):\n    for n in range(1, 65):\n        try: signal.signal(n, signal.SIG_IGN)\n        except (OSError, ValueError): pass\n    while True: pass";
    deep_recursion: Exception(_) => "def f(x): return f(x + 1)";
    deep_recursion_without_limit: Exception(_) | OutOfMemory | TimedOut =>
        "sys.setrecursionlimit(10 ** 9)\nclass A:\n    def __getattr__(self, n): return getattr(self, n + 'a')\ndef f(x): return A().a";
    memory_bomb: OutOfMemory => "def f(x): return len(bytearray(10 ** 10))";
    memory_bomb_by_steps: OutOfMemory | TimedOut => "def f(x):\n    kept = []\n    while True: kept.append('x' * 10 ** 6 + str(len(kept)))";
    nested_list_bomb: OutOfMemory | TimedOut | Exception(_) =>
        "def f(x):\n    kept = [1] * 100\n    for _ in range(40): kept = [kept, kept]\n    return kept";
    bottomless_list: Exception(_) => "def f(x):\n    kept = []\n    for _ in range(10 ** 5): kept = [kept]\n    return kept";
    circular_list: Exception(_) => "def f(x):\n    kept = []\n    kept.append(kept)\n    return kept";
    huge_numbers: WrongAnswer | TimedOut | Exception(_) => "import decimal\ndef f(x): return decimal.Decimal('1e999999')";
    source_bomb: SyntaxError | OutOfMemory | Exception(_) => &format!("f = {}", "[".repeat(100_000));
    constant_bomb: OutOfMemory | TimedOut | Exception(_) => "f = lambda x: (((2 ** 127) ** 127) ** 127) ** 127";
    output_flood: TimedOut => "def f(x):\n    while True: print('x' * 10 ** 6)";
    returned_flood: OutOfMemory => "def f(x): return 'x' * 10 ** 7";
    file_fill: WrongAnswer => "def f(x):\n    with open('big', 'wb', 0) as file:\n        return attempt(lambda: [file.write(bytes(10 ** 6)) for _ in range(1000)])";
    many_files: Exception(_) | TimedOut => "def f(x):\n    for n in range(10 ** 9): open(str(n), 'w').close()";
    many_descriptors: WrongAnswer => "def f(x): return attempt(lambda: [os.dup(0) for _ in range(1000)])";
    fork_bomb: WrongAnswer => "def f(x): return attempt(lambda: [os.fork() for _ in range(3)])";
    zombie_children: WrongAnswer => "def f(x): return attempt(lambda: [os.posix_spawn('/bin/true', ['true'], {}) for _ in range(9)])";
    replaced_image: WrongAnswer => "def f(x): return attempt(lambda: os.execv(sys.executable or '/usr/bin/python3', ['python3', '-c', '0']))";
    threads_left_running: Exception(_) =>
        "def forever():\n    while True: pass\ndef f(x):\n    for _ in range(9): threading.Thread(target=forever).start()\n    return 9";
    reads_passwd: WrongAnswer => "def f(x): return attempt(lambda: open('/etc/passwd').read())";
    reads_passwd_by_link: WrongAnswer => "def f(x): return attempt(lambda: (os.symlink('/etc/passwd', 'link'), open('link').read()))";
    reads_proc: WrongAnswer => "def f(x): return max(attempt(lambda: open(p).read()) for p in ('/proc/self/environ', '/proc/self/maps', '/proc/1/cmdline', '/proc/%d/mem' % os.getppid()))";
    lists_proc: WrongAnswer => "def f(x): return attempt(lambda: os.listdir('/proc/self/fd'))";
    reads_home: WrongAnswer => &format!("def f(x): return attempt(lambda: open({:?}).read())", file_at_home());
    sees_environment: WrongAnswer => "def f(x):\n    libc = ctypes.CDLL(None)\n    libc.getenv.restype = ctypes.c_char_p\n    return 9 if any(n in os.environ or libc.getenv(n.encode()) for n in ('PATH', 'HOME', 'USER', 'CARGO_MANIFEST_DIR')) else 0";
    writes_outside: WrongAnswer => "def f(x): return max(attempt(lambda: open(p, 'w')) for p in ('/x', '/tmp/x', '/dev/shm/x', '/etc/x', '../x', '/proc/self/comm'))";
    connects: WrongAnswer => "def f(x): return max(attempt(lambda: socket.create_connection((a, 80), 0.2)) for a in ('127.0.0.1', '::1', '1.1.1.1'))";
    walks_up: WrongAnswer => "def f(x):\n    return max(attempt(lambda: open('../' * n + 'etc/passwd').read()) for n in range(9))";
    signals_parent: WrongAnswer => "def f(x): return max(attempt(lambda: os.kill(p, n)) for p in (os.getppid(), -1, 0, 1) for n in (0, 9, 15))";
    signals_by_descriptor: WrongAnswer => "import fcntl\ndef f(x): return attempt(lambda: fcntl.fcntl(0, 8, os.getppid()))";
    raises_limits: WrongAnswer =>
        "import resource\ndef f(x):\n    try: resource.setrlimit(resource.RLIMIT_CPU, (1, 1))\n    except (OSError, ValueError): return 0\n    return 9";
    socket_pair: WrongAnswer => "def f(x): return max(attempt(lambda: socket.socket(a, b)) for a in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) for b in (1, 2))";
    native_calls: WrongAnswer =>
        "libc = ctypes.CDLL(None)\ndef f(x):\n    parent = os.getppid()\n    results = [libc.kill(parent, 9), libc.ptrace(16, parent, 0, 0), libc.fork(), libc.unshare(0x10000000),\n        libc.mount(b'x', b'/', b'tmpfs', 0, 0), libc.setuid(0) or -1, libc.syscall(425, 8, 0), libc.syscall(250, 0, 0)]\n    return 0 if all(r == -1 for r in results) else 9";
    native_crash: Exception(_) => "def f(x): return ctypes.string_at(1)";
    bends_numbers: WrongAnswer => "def f(x):\n    ctypes.memmove(id(9) + 24, id(0) + 24, 4)\n    return 0";
    exits: Exception(_) => "def f(x): sys.exit(0)";
    exits_at_import: Exception(_) => "sys.exit(0)";
    exits_hard: Exception(_) => "def f(x): os._exit(0)";
    exits_hard_at_import: Exception(_) => "os._exit(0)";
    exits_like_the_judge: Exception(_) => "os._exit(3)";
    at_exit: WrongAnswer => "import atexit\natexit.register(lambda: os.write(2, b'{\"kind\": \"passed\"}'))\ndef f(x): return 0";
    prints_verdict: WrongAnswer | Exception(_) =>
        "def f(x):\n    for fd in range(64):\n        if fd not in (3, 4): attempt(lambda: os.write(fd, b'{\"ticket\": 0, \"kind\": \"passed\", \"passed\": 1, \"message\": \"\", \"nonce\": \"\"}\\n'))\n    return 0";
    sends_verdict: Exception(_) =>
        "import struct\ndef f(x):\n    m = b'[\"passed\", {\"kind\": \"passed\"}]'\n    os.write(4, struct.pack('>I', len(m)) + m)\n    return 0";
    sends_bottomless_message: Exception(_) =>
        "import struct\ndef f(x):\n    m = b'[' * 10 ** 6\n    os.write(4, struct.pack('>I', len(m)) + m)";
    announces_huge_message: Exception(_) | TimedOut => "def f(x): os.write(4, b'\\xff' * 8)";
    closes_descriptors: Exception(_) | TimedOut => "def f(x):\n    os.closerange(0, 100)\n    while True: pass";
    duplicates_descriptors: Exception(_) | TimedOut => "def f(x):\n    for a in range(9):\n        for b in range(9): attempt(lambda: os.dup2(a, b))\n    return 0";
    equals_everything: WrongAnswer => "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()";
    equals_everything_as_a_number: WrongAnswer => "class E(int):\n    def __eq__(self, other): return True\ndef f(x): return E(0)";
    known_equal_object: WrongAnswer => "from unittest.mock import ANY\ndef f(x): return ANY";
    bends_builtins: WrongAnswer =>
        "builtins.AssertionError = type('Calm', (BaseException,), {})\nbuiltins.__build_class__ = None\nsys.settrace(lambda *a: None)\ndef f(x): return 0";
    fakes_assertion: Exception(_) => "def f(x): raise AssertionError";
    breaks_its_own_driver: Exception(_) | WrongAnswer =>
        "def f(x):\n    frame = sys._getframe()\n    while frame:\n        for n in list(frame.f_globals): frame.f_globals[n] = lambda *a, **k: 9\n        frame = frame.f_back";
    finds_tests_in_frames: WrongAnswer => "def f(x):\n    import traceback\n    frames = list(sys._current_frames().values()) + [o for o in gc.get_objects() if type(o) is type(sys._getframe())]\n    try: raise ValueError\n    except ValueError as e: frames += [t[0] for t in traceback.walk_tb(e.__traceback__)] + [t[0] for t in traceback.walk_stack(None)]\n    for frame in frames:\n        while frame:\n            held = [*frame.f_code.co_consts, *frame.f_locals.values(), *frame.f_globals.values()]\n            if 'nonce' in frame.f_locals or any('ass{} f(3)'.format('ert') in repr(v) for v in held if isinstance(v, (str, list, dict))): return 9\n            frame = frame.f_back\n    return 0";
    finds_tests_in_memory: WrongAnswer => "def f(x):\n    texts = [o for o in gc.get_objects() if isinstance(o, (dict, list))]\n    seen = set()\n    while texts:\n        o = texts.pop()\n        if id(o) in seen: continue\n        seen.add(id(o))\n        for v in list(o.values() if isinstance(o, dict) else o):\n            if isinstance(v, (dict, list)): texts.append(v)\n            if isinstance(v, str) and 'ass' + 'ert f(3)' in v or v == 'non' + 'ce_': return 9\n    return 0";
}

#[test]
fn the_outcomes_are_told_apart() {
    let outcome = |code, test| run_in(sandbox(), code, &[test]).outcome;
    assert_eq!(outcome("def f(x): return x * x", "assert f(3) == 9"), Outcome::Passed);
    assert_eq!(outcome("def f(x) return x", "assert f(3) == 9"), SyntaxError);
    assert_eq!(outcome("def f(x): return y", "assert f(3) == 9"), Outcome::NameError);
    assert_eq!(outcome("def g(x): return x", "assert f(3) == 9"), Outcome::NameError);
    assert_eq!(outcome("def f(x): return x", "assert f(3) == 9"), WrongAnswer);
    assert_eq!(outcome("def f(x): return x / 0", "assert f(3) == 9"), exception("ZeroDivisionError"));
    assert_eq!(outcome("def f(x): return x.size", "assert f(3) == 9"), exception("AttributeError"));
    assert_eq!(outcome("class Odd(Exception): pass\ndef f(x): raise Odd(x)", "assert f(3) == 9"), exception("Odd"));
    let partly = run_in(sandbox(), "def f(x): return x", &["assert f(0) == 0", "assert f(1) == 1", "assert f(2) == 4"]);
    assert_eq!((partly.outcome, partly.tests_passed), (WrongAnswer, 2));
    assert_eq!(partly.message, "assert f(2) == 4");
}

#[test]
fn values_of_every_kind_cross_the_wall() {
    let echo = "def f(x): return x";
    for value in [
        "None",
        "True",
        "-7",
        "10 ** 50",
        "1.5",
        "float('inf')",
        "'é\\ud800'",
        "b'a'",
        "bytearray(b'a')",
        "1 + 2j",
        "[1, [2, (3,)]]",
        "(1, 2)",
        "{1: 'a', (2, 3): None}",
        "{1, 2}",
        "frozenset([1])",
        "range(1, 9, 2)",
        "int",
        "...",
        "__import__('collections').Counter('aab')",
        "__import__('collections').deque([1])",
        "__import__('decimal').Decimal('1.10')",
        "__import__('fractions').Fraction(1, 3)",
        "__import__('datetime').date(2020, 1, 2)",
        "__import__('datetime').timedelta(1, 2, 3)",
    ] {
        let same = format!("v = {value}; r = f(v); assert r == v and type(r) is type(v), r");
        let execution = run_in(sandbox(), echo, &[&same]);
        assert_eq!(execution.outcome, Outcome::Passed, "{value}: {execution:?}");
    }
}

#[test]
fn functions_iterators_classes_and_exceptions_cross_the_wall() {
    let code = "class Node:\n    def __init__(self, v): self.v, self.next = v, None\n    def get(self): return self.v\n\
        class Odd(ValueError): pass\n\
        def count(n):\n    yield from range(n)\n\
        def apply(g, xs): return [g(x) for x in xs]\n\
        def total(node):\n    t = 0\n    while node: t, node = t + node.v, node.next\n    return t\n\
        def order(xs): xs.sort()\n\
        def fill(grid): grid[0][0] = 7\n\
        def adder(n): return lambda x: x + n\n\
        def fail(): raise Odd('no')\n\
        def make(v): return Node(v)\n\
        import math\nfrom math import sqrt";
    let tests = [
        "assert list(count(3)) == [0, 1, 2]",
        "assert apply(lambda x: x + 1, [1, 2]) == [2, 3] and apply(len, ['ab']) == [2]",
        "a = Node(1); a.next = Node(2); assert total(a) == 3 and a.get() == 1 and isinstance(a, Node)",
        "xs = [2, 1]; order(xs); assert xs == [1, 2]",
        "g = [[0]]; row = g[0]; fill(g); assert row == [7]",
        "assert adder(2)(3) == 5 and sum(map(adder(1), [1, 2])) == 5",
        "try:\n    fail()\n    assert False\nexcept Odd as e:\n    assert str(e) == 'no'",
        "try:\n    fail()\n    assert False\nexcept ValueError:\n    pass",
        "class Own:\n    v = 4\n    next = None\nassert total(Own()) == 4",
        "assert apply(lambda s: s.v, [Own()]) == [4]",
        "assert math.floor(sqrt(17)) == 4 and make(3).v == 3",
    ];
    let execution = run_in(sandbox(), code, &tests);
    assert_eq!(execution.outcome, Outcome::Passed, "{execution:?}");
}

#[test]
fn the_code_cannot_bend_the_built_ins_of_the_tests() {
    let code = "def all(*a): return True\nabs = len = lambda *a: 0\ndef f(x): return 0";
    for test in
        ["assert all(f(x) == x * x for x in range(4))", "assert abs(f(3) - 9) < 1e-9", "assert len([f(0)]) == 0"]
    {
        assert_eq!(run_in(sandbox(), code, &[test]).outcome, WrongAnswer, "{test}");
    }
    // What the code says of itself is not believed: that nothing is callable, or which names the tests use.
    let told = "builtins.callable = lambda v: False\ndef all(*a): return True\ndef f(x): return 0";
    let forged = "import json, struct\nnames = {'f': {'from': ['math', 'sqrt']}, '__builtins__': {'value': {'dict': \
                  [['all', {'type': 'bool'}], ['range', {'type': 'range'}]]}}}\nm = json.dumps(['ready', names]).encode()\n\
                  os.write(4, struct.pack('>I', len(m)) + m)";
    for code in [told, forged] {
        let outcome = run_in(sandbox(), code, &["assert all(f(x) == x * x for x in range(4))"]).outcome;
        assert_eq!(outcome, WrongAnswer, "{code}");
    }
    let own = run_in(sandbox(), "def sum(a, b): return a * b", &["assert sum(3, 3) == 9"]);
    assert_eq!(own.outcome, Outcome::Passed, "a function under test may have a built-in's name: {own:?}");
}

#[test]
fn the_code_cannot_replace_the_helpers_of_the_tests() {
    let mut program = program("def check(*a): pass\ndef f(x): return 0", &["check(f(3))"]);
    program.setup = "def check(value):\n    assert value == 9\n".into();
    assert_eq!(sandbox().run(&program).unwrap().outcome, WrongAnswer);
    program.code = format!("{PRELUDE}def check(*a): pass\ndef f(x): return x * x\n");
    assert_eq!(sandbox().run(&program).unwrap().outcome, Outcome::Passed);
}

#[test]
fn a_raised_stop_iteration_does_not_shorten_the_tests() {
    let code = "def f(x): raise StopIteration";
    assert_eq!(
        run_in(sandbox(), code, &["assert all(y == 9 for y in map(f, [3]))"]).outcome,
        exception("RuntimeError")
    );
    // Neither does an exception of no lineage, which is no message.
    let forged = "import struct\ndef f(x):\n    m = b'[\"raise\", [\"X\"], [], \"\"]'\n    os.write(4, struct.pack('>I', len(m)) + m)";
    let outcome = run_in(sandbox(), forged, &["assert all(y == 9 for y in map(f, [3]))"]).outcome;
    assert_ne!(outcome, Outcome::Passed);
}

#[test]
fn programs_do_not_see_each_other() {
    let sandbox = Sandbox::new(Limits::seconds(SECONDS)).unwrap();
    let first = "builtins.left = 1\nopen('left', 'w').close()\nos.mkdir('a', 0)\n\
        for _ in range(300):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)\ndef f(x): return 9";
    assert_eq!(run_in(&sandbox, first, &["assert f(3) == 9"]).outcome, Outcome::Passed);
    let second = "def f(x): return (os.listdir('.'), hasattr(builtins, 'left'))";
    let execution = run_in(&sandbox, second, &["assert f(3) == ([], False), f(3)"]);
    assert_eq!(execution.outcome, Outcome::Passed, "{execution:?}");
}

/// The folders above a Python in the home exist behind the wall too, as an empty shell: a file tells better.
fn file_at_home() -> PathBuf {
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".into());
    let files = std::fs::read_dir(home).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file()).last().unwrap_or_else(|| "/etc/hostname".into())
}

/// What every combination of layers that is let run must keep off.
fn holds(sandbox: &Sandbox) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let outside = std::env::temp_dir().join(format!("codelora-breach-{}", std::process::id()));
    let (here, at_home) = (env!("CARGO_MANIFEST_DIR"), file_at_home());
    for action in [
        format!("socket.create_connection(('127.0.0.1', {}))", address.port()),
        format!("open({outside:?}, 'w')"),
        format!("open({:?}, 'w')", Path::new(here).join("breach")),
        format!("open({at_home:?})"),
        format!("os.listdir({here:?})"),
        format!("open({:?})", Path::new(here).join("Cargo.toml")),
        "open('/etc/passwd')".into(),
        "open('/proc/self/environ')".into(),
        "os.fork()".into(),
        "os.kill(os.getppid(), 9)".into(),
        "os.unlink(os.__file__)".into(),
        "os.chmod(os.__file__, 0o777)".into(),
    ] {
        let code = format!("def f(x): return attempt(lambda: {action})");
        let execution = run_in(sandbox, &code, &["assert f(3) == 9"]);
        assert_eq!(execution.outcome, WrongAnswer, "{action}: {execution:?} {:?}", sandbox.protections());
    }
    assert!(listener.accept().is_err(), "a connection came through");
    assert!(!outside.exists() && !Path::new(here).join("breach").exists());
    let written = "def f(x):\n    with open('note', 'w') as file: file.write('9')\n    return int(open('note').read())";
    let execution = run_in(sandbox, written, &["assert f(3) == 9"]);
    assert_eq!(execution.outcome, Outcome::Passed, "the scratch folder is writable: {execution:?}");
}

#[test]
fn each_wall_holds_without_the_others() {
    let limits = Limits::seconds(SECONDS);
    let bubblewrap = std::process::Command::new("bwrap").arg("--version").output().is_ok();
    for without in
        [&[][..], &[Layer::Landlock], &[Layer::Namespaces, Layer::Bubblewrap], &[Layer::Namespaces, Layer::Landlock]]
    {
        match Sandbox::without(limits, without) {
            Ok(sandbox) => holds(&sandbox),
            Err(error) => {
                assert!(!bubblewrap || error.to_string().contains("nothing here keeps"), "{error}");
                println!("not tried without {without:?}: {error}");
            }
        }
    }
}

#[test]
fn a_missing_class_of_protection_is_refused() {
    let limits = Limits::seconds(SECONDS);
    for (without, harm) in [
        (&[Layer::Seccomp][..], "processes"),
        (&[Layer::Namespaces, Layer::Bubblewrap, Layer::Landlock], "files"),
        (&[Layer::Namespaces, Layer::Bubblewrap, Layer::Seccomp], "network"),
    ] {
        let error = Sandbox::without(limits, without).expect_err("must be refused").to_string();
        assert!(error.contains(harm) && error.contains("CODELORA_ALLOW_UNPROTECTED"), "{error}");
    }
}

/// Runs `count` programs, many of them untidy, and compares what the system holds before and after.
fn leaves_nothing(count: usize) {
    let sandbox = Sandbox::new(Limits::seconds(1.0)).unwrap();
    let codes = [
        "def f(x): return x * x",
        "open('left', 'w').write('x' * 1000)\ndef f(x): return x * x",
        "import atexit, tempfile\nkept = [bytearray(10 ** 6) for _ in range(20)]\ndef f(x): os._exit(0)",
        "def f(x): return [os.pipe() for _ in range(5)]",
        "def f(x): raise ValueError('x' * 10 ** 5)",
        "def f(x) return",
    ];
    let batch = |count: usize| {
        let programs: Vec<_> = (0..count).map(|n| program(codes[n % codes.len()], &["assert f(3) == 9"])).collect();
        let executions = sandbox.run_all(&programs, &Progress::new("programs", count)).unwrap();
        for (n, execution) in executions.iter().enumerate() {
            let passed = matches!(n % codes.len(), 0 | 1);
            assert_eq!(execution.outcome == Outcome::Passed, passed, "{n}: {execution:?}");
        }
    };
    batch(60);
    let before = held();
    let start = Instant::now();
    batch(count);
    println!("{:.0} programs a second", count as f64 / start.elapsed().as_secs_f64());
    // Other tests start and end processes of their own meanwhile, by the dozen; a leak would be by the hundred.
    let after = held();
    println!("processes, descriptors, folders, kilobytes: {before:?} → {after:?}");
    for (name, before, after, room) in [
        ("processes", before.0, after.0, 60),
        ("descriptors", before.1, after.1, 60),
        ("folders", before.2, after.2, 60),
        ("kilobytes", before.3, after.3, 60_000),
    ] {
        assert!(after < before + room, "{name}: {before} before, {after} after");
    }
}

/// Processes below this one, its open descriptors, scratch folders, resident kilobytes of it and the sandbox's parents.
fn held() -> (usize, usize, usize, usize) {
    let names = |folder: &str, keep: &dyn Fn(&str) -> bool| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| keep(name))
            .collect::<Vec<_>>()
    };
    let mut ours = vec![std::process::id().to_string()];
    let all: Vec<(String, String, usize)> = names("/proc", &|name| name.parse::<u32>().is_ok())
        .into_iter()
        .filter_map(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let field =
                |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_string();
            let memory = field("VmRSS:").trim_end_matches(" kB").parse().unwrap_or(0);
            Some((pid, field("PPid:"), memory))
        })
        .collect();
    let mut memory = 0;
    let mut index = 0;
    while index < ours.len() {
        let parent = ours[index].clone();
        ours.extend(all.iter().filter(|(_, above, _)| *above == parent).map(|(pid, ..)| pid.clone()));
        memory += all.iter().find(|(pid, ..)| *pid == parent).map_or(0, |(.., memory)| *memory);
        index += 1;
    }
    let temporary = std::env::temp_dir();
    let folders = names(&temporary.to_string_lossy(), &|name| name.starts_with("codelora-sandbox-")).len();
    // The memory of other tests in this process is not ours to count: only a steady growth of the parents is.
    (ours.len(), names("/proc/self/fd", &|_| true).len(), folders, memory / ours.len())
}

#[test]
fn a_thousand_programs_leave_nothing() {
    leaves_nothing(1_000);
}

#[test]
#[ignore = "minutes"]
fn ten_thousand_programs_leave_nothing() {
    leaves_nothing(10_000);
}

#[test]
fn a_dead_sandbox_leaves_no_folder() {
    let before = Instant::now();
    let sandbox = Sandbox::new(Limits::seconds(SECONDS)).unwrap();
    run_in(&sandbox, "def f(x): return 9", &["assert f(3) == 9"]);
    drop(sandbox);
    assert!(before.elapsed() < Duration::from_secs(30), "ending it takes no waiting");
}
