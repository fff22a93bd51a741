"""Functions as phases: `sys.monitoring` watches them from Python 3.12 on, a wrapper before."""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from dirtytrack._text import several
from dirtytrack.errors import BusyError

_TOOL_NAME = "dirtytrack"
_TOOLS = (3, 4, 2, 5, 1, 0)  # the first two are nobody's


class Named(NamedTuple):
    """A function that is to be a phase.

    Attributes:
        name: as it was given, the name of the phase.
        holder: the module or class that has it.
        attribute: its name there.
        stored: what the holder has under that name, a staticmethod perhaps.
        function: the function.
    """

    name: str
    holder: Any
    attribute: str
    stored: Any
    function: FunctionType


def find_functions(names: Iterable[str]) -> list[Named]:
    """Finds functions by names such as "module:function" and "module:Class.method".

    Raises:
        TypeError, ValueError: no such names, no such function, or no function of Python.
        ImportError: of the module.
    """
    return [_find(name) for name in dict.fromkeys(several(names, "functions"))]


def check_name(name: object) -> None:
    """Refuses what is no name of a function, such as "module:function".

    Raises:
        TypeError: no str.
        ValueError: another one.
    """
    if not isinstance(name, str):
        raise TypeError(f'{name!r} is no name of a function: "module:function"')
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *path.split("."))):
        raise ValueError(f'{name!r} is no name of a function: it is "module:function"')


def _find(name: str) -> Named:
    check_name(name)
    module, _, path = name.partition(":")
    holder: Any = importlib.import_module(module)
    *outer, attribute = path.split(".")
    try:
        for part in outer:
            holder = getattr(holder, part)
        stored = inspect.getattr_static(holder, attribute)
    except AttributeError:
        raise ValueError(f"there is no {path!r} in module {module!r}") from None
    function = inspect.unwrap(getattr(stored, "__func__", stored))
    if not isinstance(function, FunctionType):
        raise ValueError(f"{name!r} is no function written in Python: only those can be phases")
    return Named(name, holder, attribute, stored, function)


class Functions:
    """Functions that are watched, once they are installed and until they are removed."""

    def __init__(self, named: list[Named], enter: Callable[[str], None], leave: Callable[[], None]) -> None:
        self._named = named
        self._enter = enter
        self._leave = leave
        self._watch: _Monitor | _Wrappers | None = None

    @property
    def warning(self) -> str:
        """What a reader of the result has to know; empty if nothing."""
        if not self._named or hasattr(sys, "monitoring"):
            return ""
        return "Functions were wrapped: calls by whoever had imported one before are not in its phase."

    def install(self) -> None:
        """Begins to watch.

        Raises:
            ValueError: a function that a wrapper can't watch.
            BusyError: all tools are in use.
        """
        if not self._named:
            return
        kind = _Monitor if hasattr(sys, "monitoring") else _Wrappers
        self._watch = kind(self._named, self._enter, self._leave)
        self._watch.install()

    def remove(self) -> None:
        """Ends it; idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.remove()


class _Wrappers:
    def __init__(self, named: list[Named], enter: Callable[[str], None], leave: Callable[[], None]) -> None:
        self._named = named
        self._enter = enter
        self._leave = leave
        self._installed: list[Named] = []

    def install(self) -> None:
        for one in self._named:
            code = one.function.__code__
            if code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
                raise ValueError(
                    f"{one.name!r} is a generator or a coroutine: they can be phases from Python 3.12 on"
                )
        for one in self._named:
            setattr(one.holder, one.attribute, self._wrapped(one))
            self._installed.append(one)

    def remove(self) -> None:
        while self._installed:
            one = self._installed.pop()
            setattr(one.holder, one.attribute, one.stored)

    def _wrapped(self, one: Named) -> Any:
        call = one.stored.__func__ if isinstance(one.stored, staticmethod | classmethod) else one.stored
        enter, leave = self._enter, self._leave

        @functools.wraps(call)
        def phase(*arguments: Any, **keywords: Any) -> Any:
            enter(one.name)
            try:
                return call(*arguments, **keywords)
            finally:
                leave()

        return type(one.stored)(phase) if call is not one.stored else phase


class _Monitor:
    # PY_UNWIND and PY_THROW can't be asked of one function alone before Python 3.14: for these two all
    # functions are heard, and the table of codes is looked at.

    def __init__(self, named: list[Named], enter: Callable[[str], None], leave: Callable[[], None]) -> None:
        self._names = {one.function.__code__: one.name for one in named}
        self._enter = enter
        self._leave = leave
        self._tool: int | None = None

    def install(self) -> None:
        monitoring = _monitoring()
        events = monitoring.events
        self._tool = _free_tool()
        entering, leaving = self._begin, self._end
        local = {
            events.PY_START: entering,
            events.PY_RESUME: entering,
            events.PY_RETURN: leaving,
            events.PY_YIELD: leaving,
        }
        everywhere = {events.PY_THROW: self._begin_thrown, events.PY_UNWIND: self._end_thrown}
        for event, callback in (local | everywhere).items():
            monitoring.register_callback(self._tool, event, callback)
        for code in self._names:
            monitoring.set_local_events(self._tool, code, functools.reduce(int.__or__, local))
        monitoring.set_events(self._tool, functools.reduce(int.__or__, everywhere))

    def remove(self) -> None:
        if self._tool is None:
            return
        monitoring = _monitoring()
        monitoring.set_events(self._tool, 0)
        for code in self._names:
            monitoring.set_local_events(self._tool, code, 0)
        monitoring.free_tool_id(self._tool)
        self._tool = None

    def _begin(self, code: CodeType, *_: Any) -> None:
        self._enter(self._names[code])

    def _end(self, _code: CodeType, *_: Any) -> None:
        self._leave()

    def _begin_thrown(self, code: CodeType, *_: Any) -> None:
        if code in self._names:
            self._enter(self._names[code])

    def _end_thrown(self, code: CodeType, *_: Any) -> None:
        if code in self._names:
            self._leave()


def _monitoring() -> Any:
    return getattr(sys, "monitoring")  # noqa: B009 (the types of Python 3.11 do not have it)


def _free_tool() -> int:
    monitoring = _monitoring()
    for tool in _TOOLS:
        if monitoring.get_tool(tool) is None:
            try:
                monitoring.use_tool_id(tool, _TOOL_NAME)
            except ValueError:  # somebody was faster
                continue
            return tool
    raise BusyError(
        errno.EBUSY,
        "sys.monitoring.use_tool_id",
        remedy="All six tools of sys.monitoring are in use: end a profiler, a debugger or a coverage tool.",
    )
