"""What passes between the tests and the code: plain data by value, everything else by reference.

The two run in different processes. Each holds a `Peer`; a call of the other side's function is a message with its
arguments, answered by a message with its value. Messages are JSON with a length in front, read by trusted code that
builds exact built-in types only: no class, comparison or conversion of the sender's ever runs in the receiver.
"""

import builtins
import collections
import datetime
import decimal
import fractions
import json
import os
import struct

EXCEPTIONS = {n: v for n, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, BaseException)}
TYPES = {n: v for n, v in vars(builtins).items() if isinstance(v, type) and n not in EXCEPTIONS}
TYPE_NAMES = {v: n for n, v in TYPES.items()}
SAFE_INTEGER = 1 << 63  # JSON writes longer ones in decimal, which Python limits and does slowly


class Gone(BaseException):
    """The other side ended, or sent what is no message. No test can catch it by accident."""


def _pairs(value):
    return lambda peer: [[peer.encode(k), peer.encode(v)] for k, v in value.items()]


ENCODERS = {
    tuple: lambda p, v: {"tuple": [p.encode(x) for x in v]},
    dict: lambda p, v: {"dict": _pairs(v)(p)},
    set: lambda p, v: {"set": [p.encode(x) for x in v]},
    frozenset: lambda p, v: {"frozenset": [p.encode(x) for x in v]},
    bytes: lambda p, v: {"bytes": v.hex()},
    bytearray: lambda p, v: {"bytearray": v.hex()},
    complex: lambda p, v: {"complex": [v.real, v.imag]},
    range: lambda p, v: {"range": [p.encode(x) for x in (v.start, v.stop, v.step)]},
    type(Ellipsis): lambda p, v: {"ellipsis": 0},
    collections.deque: lambda p, v: {"deque": [p.encode(x) for x in v]},
    collections.Counter: lambda p, v: {"counter": _pairs(v)(p)},
    collections.OrderedDict: lambda p, v: {"ordered": _pairs(v)(p)},
    collections.defaultdict: lambda p, v: {"dict": _pairs(v)(p)},
    decimal.Decimal: lambda p, v: {"decimal": str(v)},
    fractions.Fraction: lambda p, v: {"fraction": [p.encode(v.numerator), p.encode(v.denominator)]},
    datetime.date: lambda p, v: {"date": v.isoformat()},
    datetime.datetime: lambda p, v: {"datetime": v.isoformat()},
    datetime.time: lambda p, v: {"time": v.isoformat()},
    datetime.timedelta: lambda p, v: {"timedelta": [v.days, v.seconds, v.microseconds]},
}

DECODERS = {
    "int": lambda p, x: int(x, 16),
    "tuple": lambda p, x: tuple([p.decode(v) for v in x]),
    "dict": lambda p, x: {p.decode(k): p.decode(v) for k, v in x},
    "set": lambda p, x: {p.decode(v) for v in x},
    "frozenset": lambda p, x: frozenset([p.decode(v) for v in x]),
    "bytes": lambda p, x: bytes.fromhex(x),
    "bytearray": lambda p, x: bytearray.fromhex(x),
    "complex": lambda p, x: complex(*x),
    "range": lambda p, x: range(*[p.decode(v) for v in x]),
    "ellipsis": lambda p, x: Ellipsis,
    "deque": lambda p, x: collections.deque([p.decode(v) for v in x]),
    "counter": lambda p, x: collections.Counter({p.decode(k): p.decode(v) for k, v in x}),
    "ordered": lambda p, x: collections.OrderedDict([(p.decode(k), p.decode(v)) for k, v in x]),
    "decimal": lambda p, x: decimal.Decimal(x),
    "fraction": lambda p, x: fractions.Fraction(p.decode(x[0]), p.decode(x[1])),
    "date": lambda p, x: datetime.date.fromisoformat(x),
    "datetime": lambda p, x: datetime.datetime.fromisoformat(x),
    "time": lambda p, x: datetime.time.fromisoformat(x),
    "timedelta": lambda p, x: datetime.timedelta(*x),
    "type": lambda p, x: TYPES[x],
    "error": lambda p, x: p.exception_class(x),
    "mine": lambda p, x: p.remote(x),
    "yours": lambda p, x: p.kept[x],
}


class Remote:
    """An object of the other side. Two are equal only when they are one: equality is never asked of the sender."""

    __slots__ = ("_Remote__peer", "_Remote__key")

    def __init__(self, peer, key):
        object.__setattr__(self, "_Remote__peer", peer)
        object.__setattr__(self, "_Remote__key", key)

    def __call__(self, *args, **kwargs):
        return self.__peer.call(self.__key, args, kwargs)

    def __getattr__(self, name):
        return self.__peer.ask("get", self.__key, name)

    def __setattr__(self, name, value):
        self.__peer.ask("set", self.__key, name, self.__peer.encode(value))

    def __iter__(self):
        return self.__peer.ask("iter", self.__key)

    def __next__(self):
        return self.__peer.ask("next", self.__key)

    def __len__(self):
        return self.__peer.ask("len", self.__key)

    def __bool__(self):
        return self.__peer.ask("bool", self.__key) is True

    def __getitem__(self, index):
        return self.__peer.ask("item", self.__key, self.__peer.encode(index))

    def __setitem__(self, index, value):
        self.__peer.ask("setitem", self.__key, self.__peer.encode(index), self.__peer.encode(value))

    def __instancecheck__(self, value):
        return self.__peer.ask("instance", self.__key, self.__peer.encode(value)) is True

    def __str__(self):
        return self.__peer.ask("str", self.__key)

    def __repr__(self):
        return self.__peer.ask("repr", self.__key)


class Peer:
    """One end. `serve` answers one request of the other side: `serve(peer, operation, object, operands) -> value`."""

    def __init__(self, read, write, limit, serve):
        self.fds, self.limit, self.serve = (read, write), limit, serve
        self.kept, self.keys, self.remotes, self.errors = {}, {}, {}, {}

    # Messages

    def send(self, message):
        data = json.dumps(message).encode()
        if len(data) > self.limit:
            raise MemoryError("a message of %d bytes between program and tests" % len(data))
        data = struct.pack(">I", len(data)) + data
        try:
            while data:
                data = data[os.write(self.fds[1], data) :]
        except OSError:
            raise Gone("the program ended itself") from None

    def receive(self):
        (size,) = struct.unpack(">I", self.read(4))
        if size > self.limit:
            raise Gone("a message of %d bytes between program and tests" % size)
        data = self.read(size)
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise Gone("the program sent what is no message") from None

    def read(self, size):
        parts = []
        while size:
            part = os.read(self.fds[0], min(size, 1 << 20))
            if not part:
                raise Gone("the program ended itself")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    # Values

    def encode(self, value):
        kind = type(value)
        if kind is str or kind is bool or kind is float or value is None:
            return value
        if kind is int:
            return value if -SAFE_INTEGER < value < SAFE_INTEGER else {"int": "%x" % value}
        if kind is list:
            return [self.encode(x) for x in value]
        encoder = ENCODERS.get(kind)
        if encoder:
            return encoder(self, value)
        if kind is Remote:
            return {"yours": value._Remote__key}
        if kind is type and value in TYPE_NAMES:
            return {"type": TYPE_NAMES[value]}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"error": lineage(value)}
        for base in (str, int, float, tuple):
            if isinstance(value, base) and not isinstance(value, type):
                return self.encode(base.__getnewargs__(value)[0])
        return {"mine": self.keep(value)}

    def keep(self, value):
        key = self.keys.get(id(value))
        if key is None:
            key = self.keys[id(value)] = len(self.kept)
            self.kept[key] = value  # the reference also keeps the id from being used again
        return key

    def decode(self, data):
        kind = type(data)
        if kind is list:
            return [self.decode(x) for x in data]
        if kind is not dict:
            return data
        ((tag, content),) = data.items()
        return DECODERS[tag](self, content)

    def remote(self, key):
        if type(key) is not int:
            raise Gone("the program sent what is no message")
        if key not in self.remotes:
            self.remotes[key] = Remote(self, key)
        return self.remotes[key]

    # Exceptions

    def exception_class(self, names):
        """The built-in class, or for a class of the sender's own a stand-in below its nearest built-in ancestor."""
        if names[0] in EXCEPTIONS:
            return EXCEPTIONS[names[0]]
        if names[0] not in self.errors:
            base = next((EXCEPTIONS[n] for n in names if n in EXCEPTIONS), None)
            if base is None:
                raise Gone("the program sent what is no message")
            self.errors[names[0]] = type(str(names[0]), (base,), {})
        return self.errors[names[0]]

    def describe(self, error):
        """The message that raises `error` on the other side."""
        try:
            args = [self.encode(x) for x in error.args]
            text = str(error)[:2000]
        except Exception:
            args, text = [], ""
        return ["raise", lineage(type(error)), args, text]

    def rebuild(self, names, args, text, operation):
        cls = self.exception_class(names)
        if operation != "next" and issubclass(cls, StopIteration):
            cls = RuntimeError  # else a function that raises it would end a test's map() early, unnoticed
        try:
            error = cls(*self.decode(args))
        except Gone:
            raise
        except Exception:
            error = type(names[0], (Exception,), {})(text)
        error.from_program = True
        return error

    # Requests

    def ask(self, operation, key, *operands):
        return self.request(operation, key, operands)[0]

    def call(self, key, args, kwargs):
        sent = [self.encode(list(args)), self.encode(kwargs)]
        value, after = self.request("call", key, sent)
        if after is not None:
            update(list(args), after[0])
            update(kwargs, after[1])
        return value

    def request(self, operation, key, operands):
        self.send(["ask", operation, key, *operands])
        while True:
            message = self.receive()
            try:
                if message[0] == "value":
                    after = None if message[2] is None else [self.decode(x) for x in message[2]]
                    return self.decode(message[1]), after
                error = self.rebuild(*message[1:], operation) if message[0] == "raise" else None
            except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
                raise Gone("the program sent what is no message") from None
            if error is not None:
                raise error
            if message[0] != "ask":
                raise Gone("the program sent what is no message")
            self.answer(message)

    def answer(self, message):
        """Answers one request; whatever the request's work raises goes back as an exception."""
        after = None
        try:
            _, operation, key, *operands = message
            target = self.kept[key]
            before, values = operands, self.decode(operands)
            result = self.encode(self.serve(self, operation, target, values))
            if operation == "call":
                now = [self.encode(x) for x in values]
                after = now if now != before else None
            reply = ["value", result, after]
        except Gone:
            raise
        except BaseException as error:
            reply = self.describe(error)
        try:
            self.send(reply)
        except (MemoryError, RecursionError, ValueError, TypeError) as error:
            self.send(["raise", [type(error).__name__], [], ""])


def lineage(cls):
    return [c.__name__ for c in cls.__mro__]


def update(old, new):
    """Makes the caller's mutable arguments equal to what the call made of them, in place."""
    kind = type(old)
    if kind is not type(new):
        return
    if kind is list and len(old) == len(new) or kind is tuple:
        for index, (a, b) in enumerate(zip(old, new)):
            if type(a) in (list, dict, set, bytearray, collections.deque, tuple) and type(a) is type(b):
                update(a, b)
            elif kind is list:
                old[index] = b
    elif kind is list or kind is bytearray:
        old[:] = new
    elif kind in (dict, set):
        old.clear()
        old.update(new)
    elif kind is collections.deque:
        old.clear()
        old.extend(new)
