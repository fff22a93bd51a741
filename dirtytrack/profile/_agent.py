"""Runs within a program that is recorded, and imports nothing but the standard library.

It opens the userfaultfd, which only the program itself can do for its memory, and hands it to the recorder.
From then on it tells where phases begin and end, and what arrays there are. Its text is run as it stands: by
``dirtytrack record`` before the program, by ``dirtytrack attach`` within one that runs already, where there
may be no dirtytrack. What goes over the socket are lines of JSON. To each the recorder answers with a byte,
by which it may ask for arrays.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import struct
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NoReturn

_SYSCALL = {"x86_64": 323}.get(platform.machine(), 282)
_OPEN_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | 1  # UFFD_USER_MODE_ONLY
_DEVICE_NEW = 0xAA00  # USERFAULTFD_IOC_NEW
_API, _API_CALL = 0xAA, 0xC018AA3F  # UFFD_API, UFFDIO_API
_FEATURES = (
    1 << 15 | 1 << 13 | 1 << 12,
    1 << 15,
)  # WP_ASYNC, WP_UNPOPULATED, WP_HUGETLBFS_SHMEM; at least the first

_libc = ctypes.CDLL(None, use_errno=True)  # now: a child of a fork may wait for ever for the loader's lock

_LEAST = 1 << 16  # bytes of an array that is told
_MOST_ARRAYS = 2000
_DEEPEST = 3
_PATIENCE = 0.05  # seconds of computing for a look at all variables
_LIBRARIES = tuple(dict.fromkeys(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")))
_LONGEST = 1000  # characters of a phase that a forked child begins in
_RECORDER = "(recorder)"
_ASKS = b"\1"  # an answer that asks for arrays
_CO_OPTIMIZED = 1  # of a code: a function's
_REFERENCES = 3  # to a dictionary of variables: the frame's, ours, and that of who counts


def open_userfaultfd() -> int:
    """Opens one that notes writes by itself.

    Raises:
        OSError: it can't be had here.
    """
    fd = _libc.syscall(_SYSCALL, _OPEN_FLAGS)
    if fd < 0:
        error = ctypes.get_errno()
        try:
            device = os.open("/dev/userfaultfd", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            raise OSError(error, f"userfaultfd: {os.strerror(error)}") from None
        fd = fcntl.ioctl(device, _DEVICE_NEW, _OPEN_FLAGS)
        os.close(device)
    for features in _FEATURES:
        try:
            fcntl.ioctl(fd, _API_CALL, bytearray(struct.pack("QQQ", _API, features, 0)))
        except OSError as error:
            failure = error
        else:
            return int(fd)
    os.close(fd)
    raise failure


def arrays() -> list[dict[str, Any]]:
    """Finds the arrays, tensors and large buffers of this process that have a name, the largest first."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    seen: set[int] = set()
    deadline = time.thread_time() + _PATIENCE

    def look(name: str, thing: Any, depth: int) -> None:
        if id(thing) in seen or len(found) >= _MOST_ARRAYS or time.thread_time() > deadline:
            return
        seen.add(id(thing))
        place = _place(thing)
        if place is not None:
            if place["nbytes"] >= _LEAST:
                found.setdefault((place["address"], place["nbytes"]), {"name": name, **place})
        elif depth < _DEEPEST:
            for part, value in _parts(thing):
                look(f"{name}{part}", value, depth + 1)

    for name, value in _variables():
        look(name, value, 0)
    return sorted(found.values(), key=lambda one: -one["nbytes"])


def _variables() -> Iterator[tuple[str, Any]]:
    # Those of the program itself first: the libraries' are many, and seldom arrays.
    own: list[tuple[str, Any]] = []
    others: list[tuple[str, Any]] = []
    for title, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        is_own = title == "__main__" or (isinstance(path, str) and not path.startswith(_LIBRARIES))
        (own if is_own else others).append((title, module))
    yield from _globals(sorted(own, key=lambda item: item[0] != "__main__"))
    frames = list(sys._current_frames().values())
    while frames:  # one is this one: a name for it would keep it and its variables for long
        yield from _locals(frames.pop())
    yield from _globals(others)


def _globals(modules: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for title, module in modules:
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if not name.startswith("__"):
                yield name if title == "__main__" else f"{title}.{name}", value


def _locals(frame: FrameType | None) -> Iterator[tuple[str, Any]]:
    # Before Python 3.13 the dictionary of a function's variables stays with its frame, and keeps what is in
    # it alive. So it is emptied again, unless the program has it, too: it is what locals() has returned.
    # A debugger would take the empty one for what the function is to have.
    is_kept = sys.version_info < (3, 13)
    if is_kept and sys.gettrace() is not None:
        return
    while frame is not None:
        if frame.f_code.co_flags & _CO_OPTIMIZED and frame.f_code.co_filename != __file__:
            variables = frame.f_locals
            found = list(variables.items())
            if is_kept and sys.getrefcount(variables) <= _REFERENCES:
                variables.clear()
            for name, value in found:
                yield f"{frame.f_code.co_name}.{name}", value
            del variables, found
        frame = frame.f_back


def _parts(thing: Any) -> list[tuple[str, Any]]:
    if isinstance(thing, dict):
        return [
            (f"[{key!r}]", value) for key, value in list(thing.items())[:500] if isinstance(key, str | int)
        ]
    if isinstance(thing, list | tuple):
        return [(f"[{index}]", value) for index, value in enumerate(thing[:200])]
    if isinstance(thing, type) or type(thing).__module__ in ("builtins", "types"):
        return []
    try:
        attributes = vars(thing)
    except TypeError:
        return []
    return [(f".{name}", value) for name, value in list(attributes.items())[:500]]


def _place(thing: Any) -> dict[str, Any] | None:
    # What is no memory: None. Only what is asked of exact types and by C code: nothing of the program runs.
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    try:
        if numpy is not None and isinstance(thing, numpy.ndarray):
            shape = list(thing.shape) if thing.flags.c_contiguous else []
            if not thing.flags.forc:
                return None
            return _described(thing.__array_interface__["data"][0], thing.nbytes, shape, thing.itemsize)
        if torch is not None and isinstance(thing, torch.Tensor):
            if thing.device.type != "cpu" or thing.layout is not torch.strided:
                return None
            nbytes = thing.numel() * thing.element_size()
            shape = list(thing.shape) if thing.is_contiguous() else []
            return _described(thing.data_ptr(), nbytes, shape, thing.element_size())
        if type(thing) is bytearray and len(thing) >= _LEAST:
            with memoryview(thing):
                address = ctypes.addressof(ctypes.c_char.from_buffer(thing))
            return _described(address, len(thing), [], 1)
    except Exception:  # one that can't tell where it is
        return None
    return None


def _described(address: int, nbytes: int, shape: list[int], itemsize: int) -> dict[str, Any]:
    return {"address": address, "nbytes": nbytes, "shape": shape, "itemsize": itemsize}


class Agent:
    """The end of the line in the recorded program, and in each of its forked children that is recorded."""

    def __init__(self, line: socket.socket, door: socket.socket | None = None) -> None:
        """Says nothing yet.

        Args:
            line: to the recorder.
            door: where forked children come in. None: they are not recorded.
        """
        self._take(line)
        self._door = door
        if door is not None:
            door.set_inheritable(False)
            self._door_inode = os.fstat(door.fileno()).st_ino
        self._lock = threading.RLock()
        self._depth = 0
        self._process = os.getpid()
        self._open: dict[int, list[str]] = {}
        self._owed = 0  # answers that have not come; an interrupt may have ended the wait for one
        self._forks = 0

    def begin(self) -> None:
        """Hands over the userfaultfd; the recorder has taken it when this returns."""
        try:
            fd = open_userfaultfd()
        except OSError as error:
            self._send({"failed": f"{error.strerror}", "errno": error.errno or 0})
            return
        hello = {"process": self._process, "python": platform.python_version(), "arrays": arrays()}
        self._send(hello, fd)
        os.close(fd)

    def serve(self) -> None:
        """Tells of arrays when SIGURG comes, of the end, and of forks."""
        os.register_at_fork(before=self._count_fork, after_in_child=self._go_on_in_child)
        atexit.register(self.end)
        leave = os._exit

        def leave_with_a_word(status: int) -> NoReturn:
            try:
                self.end()
            finally:
                leave(status)

        os._exit = leave_with_a_word
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGURG, self._hear_signal)
            signal.siginterrupt(signal.SIGURG, False)

    def enter(self, name: str) -> None:
        """A phase begins in this thread."""
        with self._turn() as is_mine:
            paths = self._open.setdefault(threading.get_ident(), [])
            if not paths:
                paths.append(name)
            else:
                outer = paths[-1]
                is_same = outer == name or outer.endswith(f"/{name}") or outer.count("/") >= 32
                paths.append(outer if is_same else f"{outer}/{name}")
            if is_mine:
                self._tell()

    def leave(self) -> None:
        """It ends."""
        with self._turn() as is_mine:
            paths = self._open.get(threading.get_ident(), [])
            if paths:
                paths.pop()
            if not paths:
                self._open.pop(threading.get_ident(), None)
            if is_mine:
                self._tell()

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        # One message at a time, and not in the middle of another one, where a handler of signals may run: it
        # would take the answer.
        with self._lock:
            self._depth += 1
            try:
                yield self._depth == 1
            finally:
                self._depth -= 1

    def _label(self) -> str:
        return " + ".join(sorted({paths[-1] for paths in self._open.values() if paths}))

    def _tell(self) -> None:
        # A border. The recorder may ask for arrays there: the main thread, which would hear its signal, may
        # wait for a lock for long.
        if self._send({"phase": self._label()}):
            self._tell_arrays()

    def _tell_arrays(self) -> None:
        self._send({"phase": _RECORDER})
        self._send({"arrays": arrays(), "phase": self._label()})

    def _hear_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._lock.acquire(blocking=False):  # another thread is in the middle of something
            return
        try:
            with self._turn() as is_mine:
                if is_mine:
                    self._tell_arrays()
        finally:
            self._lock.release()

    def end(self) -> None:
        """The program ends; more may still be written, and told by another end."""
        with self._turn() as is_mine:
            if is_mine:
                self._send({"end": True, "forks": self._forks})

    def _count_fork(self) -> None:
        self._forks += 1

    def _go_on_in_child(self) -> None:
        # A child is another process: its memory is not its parent's, and so it has another line, or none.
        self._lock = threading.RLock()
        self._depth = 0
        self._forks = self._owed = 0
        thread = threading.get_ident()
        self._open = {thread: self._open[thread]} if thread in self._open else {}
        self._process = -1
        self._line.close()
        if self._door is not None:
            with suppress(OSError):
                self._knock(self._door)
        if self._process == -1 and signal.getsignal(signal.SIGURG) == self._hear_signal:
            signal.signal(signal.SIGURG, signal.SIG_DFL)

    def _knock(self, door: socket.socket) -> None:
        if not _is_socket(door, self._door_inode):
            return
        fd = open_userfaultfd()
        try:
            line, other = socket.socketpair()
            with other:
                message = {"parent": os.getppid(), "phase": self._label()[:_LONGEST]}
                fds = struct.pack("2i", fd, other.fileno())
                told = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
                door.sendmsg([json.dumps(message).encode()], told, socket.MSG_NOSIGNAL)
        finally:
            os.close(fd)
        if line.recv(1):
            self._process = os.getpid()
            self._take(line)
        else:  # nobody listens, or there are too many
            line.close()

    def _take(self, line: socket.socket) -> None:
        line.set_inheritable(False)
        self._line = line
        self._inode = os.fstat(line.fileno()).st_ino

    def _send(self, message: dict[str, Any], fd: int | None = None) -> bool:
        # Says something and waits for the answer: whether arrays are asked for.
        if self._process != os.getpid():
            return False
        try:
            if not _is_socket(self._line, self._inode):
                raise ConnectionError
            data = json.dumps(message).encode() + b"\n"
            self._owed += 1
            if fd is not None:
                sent = socket.send_fds(self._line, [data], [fd])
                data = data[sent:]
            self._line.sendall(data, socket.MSG_NOSIGNAL)
            answers = b""
            while self._owed > 0:
                answers = self._line.recv(self._owed)
                if not answers:
                    raise ConnectionError
                self._owed -= len(answers)
        except OSError:  # nobody listens any more: the program goes on
            self._process = -1
            return False
        return answers[-1:] == _ASKS


def _is_socket(one: socket.socket, inode: int) -> bool:
    # A program that has closed all descriptors, as daemons do, may have another one by this number.
    return os.fstat(one.fileno()).st_ino == inode


def watch(agent: Agent, names: list[str]) -> None:
    """Makes functions phases: by `sys.monitoring`, or by wrappers before Python 3.12.

    Raises:
        ValueError, ImportError: a function that there is not, where it can be known.
    """
    wanted = dict.fromkeys(names)
    if not hasattr(sys, "monitoring"):
        for name in wanted:
            _wrap(agent, name)
        return
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009
    events = monitoring.events
    tool = next(tool for tool in (3, 4, 2, 5, 1, 0) if monitoring.get_tool(tool) is None)
    monitoring.use_tool_id(tool, "dirtytrack record")
    known: dict[CodeType, str] = {}

    def name_of(code: CodeType) -> str | None:
        if code in known:
            return known[code]
        name = f"{sys._getframe(2).f_globals.get('__name__', '')}:{code.co_qualname}"
        return known.setdefault(code, name) if name in wanted else None

    def entering(code: CodeType, *_: Any) -> Any:
        name = name_of(code)
        if name is None:
            return monitoring.DISABLE
        agent.enter(name)
        return None

    def leaving(code: CodeType, *_: Any) -> Any:
        if code not in known:
            return monitoring.DISABLE
        agent.leave()
        return None

    def thrown(act: Callable[..., Any]) -> Callable[..., None]:
        def callback(code: CodeType, *_: Any) -> None:
            if code in known:
                act(code)

        return callback

    callbacks = {
        events.PY_START: entering,
        events.PY_RESUME: entering,
        events.PY_RETURN: leaving,
        events.PY_YIELD: leaving,
        events.PY_THROW: thrown(entering),
        events.PY_UNWIND: thrown(leaving),
    }
    for event, callback in callbacks.items():
        monitoring.register_callback(tool, event, callback)
    monitoring.set_events(tool, sum(callbacks))


def _wrap(agent: Agent, name: str) -> None:
    module, _, path = name.partition(":")
    if module == "__main__":
        raise ValueError(f"{name}: functions of the program itself can be phases from Python 3.12 on")
    holder: Any = importlib.import_module(module)
    *outer, attribute = path.split(".")
    try:
        for part in outer:
            holder = getattr(holder, part)
        stored = vars(holder)[attribute]
    except (AttributeError, KeyError):
        raise ValueError(f"there is no {path!r} in module {module!r}") from None
    is_method = isinstance(stored, staticmethod | classmethod)
    function = stored.__func__ if is_method else stored

    def phase(*arguments: Any, **keywords: Any) -> Any:
        agent.enter(name)
        try:
            return function(*arguments, **keywords)
        finally:
            agent.leave()

    for copied in ("__module__", "__name__", "__qualname__", "__doc__", "__dict__"):
        setattr(phase, copied, getattr(function, copied, None))
    setattr(holder, attribute, type(stored)(phase) if is_method else phase)


def run(line: int, door: int | None, phases: list[str], is_module: bool, program: list[str]) -> None:
    """Runs a program as ``python program`` does, with the recorder at the other end of these sockets."""
    sys.argv[:] = program
    folder = Path.cwd() if is_module else Path(program[0]).resolve().parent
    sys.path.insert(0, str(folder))
    agent = Agent(socket.socket(fileno=line), None if door is None else socket.socket(fileno=door))
    try:
        watch(agent, phases)
    except (ValueError, ImportError) as error:
        raise SystemExit(f"dirtytrack record: {error}") from None
    agent.serve()
    agent.begin()
    try:
        # The variables are kept until the last look: without them memory would go, and what it had written.
        _variables = (
            runpy.run_module(program[0], run_name="__main__", alter_sys=True)
            if is_module
            else runpy.run_path(program[0], run_name="__main__")
        )
    finally:
        agent.end()


def answer(address: str, with_userfaultfd: bool) -> None:
    """Within a program that runs already: tells the recorder once what there is, and goes away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(address)
        agent = Agent(line)
        if with_userfaultfd:
            agent.begin()
        else:
            agent._send({"arrays": arrays()})
