"""Reading objects by ranges, many at a time: what is going to be read is asked for before it is.

Each request to an object store takes tens of milliseconds, however little it fetches. So who reads says
beforehand what it will read; ranges that follow each other closely become one request, several threads make
them, and what has come and was not read yet takes bounded memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

THREADS = 8
_REQUEST = 1 << 23  # bytes of a request at most, of what was announced
_GAP = 1 << 16  # bytes that are fetched for nothing, rather than by a request of their own
_AHEAD = 1 << 27  # bytes that are on their way, or have come and were not read yet
_KEPT = 1 << 25  # bytes that were read from, and may be again


class Range(NamedTuple):
    """The bytes [start, stop) of an object."""

    key: str
    start: int
    stop: int


class _Piece:
    # One request. Who waits for it takes the lock, which its thread holds until the bytes have come.

    def __init__(self, range_: Range) -> None:
        self.range = range_
        self.coming = threading.Lock()
        self.coming.acquire()
        self.data: Buffer = b""
        self.failure: BaseException | None = None
        self.is_read = False


class Ranges:
    """What a bucket's objects hold, by ranges. Methods may be called from any thread."""

    def __init__(self, fetch: Callable[[Range], Buffer]) -> None:
        """Reads by that function, which several threads call at once."""
        self._fetch = fetch
        self._mutex = threading.Lock()
        self._wanted: deque[Range] = deque()
        self._pieces: OrderedDict[Range, _Piece] = OrderedDict()  # those read last are last
        self._by_key: dict[str, dict[int, _Piece]] = {}
        self._ahead = self._kept = 0  # bytes
        self._queue: SimpleQueue[_Piece | None] = SimpleQueue()
        self._threads = 0
        self._is_closed = False

    def expect(self, ranges: Iterable[Range]) -> None:
        """These are going to be read, about in this order, and nothing else of these objects."""
        joined = _joined(ranges)
        keys = {one.key for one in joined}
        with self._mutex:
            self._wanted = deque([*(one for one in self._wanted if one.key not in keys), *joined])
            for key in keys:
                for piece in [*self._by_key.get(key, {}).values()]:
                    if not piece.is_read:
                        self._forget(piece)
            self._go_on()

    def read_into(self, key: str, start: int, buffer: memoryview) -> int:
        """Reads from an object, and returns how many bytes there were: fewer than wanted only at its end.

        Raises:
            OSError: as *fetch*.
        """
        done = 0
        while done < len(buffer):
            piece = self._take(key, start + done, len(buffer) - done)
            with piece.coming:
                pass
            if piece.failure is not None:
                with self._mutex:
                    self._forget(piece)
                raise piece.failure
            at = start + done - piece.range.start
            with memoryview(piece.data) as data:
                count = min(len(data) - at, len(buffer) - done)
                if count <= 0:
                    return done
                buffer[done : done + count] = data[at : at + count]
            self._note(piece)
            done += count
        return done

    def forget(self, key: str) -> None:
        """Nothing of an object is going to be read any more."""
        with self._mutex:
            self._wanted = deque(one for one in self._wanted if one.key != key)
            for piece in [*self._by_key.get(key, {}).values()]:
                self._forget(piece)
            self._go_on()

    def close(self) -> None:
        """Ends the threads, without waiting for what is on its way; idempotent."""
        with self._mutex:
            self._is_closed = True
            self._wanted.clear()
            for _ in range(self._threads):
                self._queue.put(None)
            self._threads = 0

    def _take(self, key: str, start: int, nbytes: int) -> _Piece:
        # The piece that has that byte, one that was announced if there is any; it may still be on its way.
        with self._mutex:
            for piece in self._by_key.get(key, {}).values():
                if piece.range.start <= start < piece.range.stop:
                    return piece
            found = next(
                (one for one in self._wanted if one.key == key and one.start <= start < one.stop), None
            )
            if found is not None:
                self._wanted.remove(found)
            return self._begin(found or Range(key, start, start + nbytes))

    def _go_on(self) -> None:
        while self._wanted and (self._ahead == 0 or self._ahead + _length(self._wanted[0]) <= _AHEAD):
            one = self._wanted.popleft()
            if not any(_covers(piece.range, one) for piece in self._by_key.get(one.key, {}).values()):
                self._begin(one)

    def _begin(self, range_: Range) -> _Piece:
        piece = self._pieces[range_] = _Piece(range_)
        self._by_key.setdefault(range_.key, {})[range_.start] = piece
        self._ahead += _length(range_)
        if self._is_closed or not self._start_thread():
            self._run(piece)  # by itself, then
        else:
            self._queue.put(piece)
        return piece

    def _start_thread(self) -> bool:
        # Whether there is one, or could be.
        if self._threads < min(THREADS, len(self._pieces)):
            try:
                threading.Thread(target=self._work, name="dirtytrack ranges", daemon=True).start()
                self._threads += 1
            except RuntimeError:
                pass
        return self._threads > 0

    def _work(self) -> None:
        while (piece := self._queue.get()) is not None:
            self._run(piece)

    def _run(self, piece: _Piece) -> None:
        try:
            piece.data = self._fetch(piece.range)
        except BaseException as error:
            piece.failure = error
        finally:
            piece.coming.release()

    def _note(self, piece: _Piece) -> None:
        # It was read from: it makes room for what is to come, and may go itself when others were read later.
        with self._mutex:
            if self._pieces.get(piece.range) is not piece:
                return
            self._pieces.move_to_end(piece.range)
            if not piece.is_read:
                piece.is_read = True
                self._ahead -= _length(piece.range)
                self._kept += _length(piece.range)
            while self._kept > _KEPT:
                self._forget(next(one for one in self._pieces.values() if one.is_read))
            self._go_on()

    def _forget(self, piece: _Piece) -> None:
        if self._pieces.pop(piece.range, None) is piece:
            of_key = self._by_key[piece.range.key]
            if of_key.get(piece.range.start) is piece:
                del of_key[piece.range.start]
            if not of_key:
                del self._by_key[piece.range.key]
            if piece.is_read:
                self._kept -= _length(piece.range)
            else:
                self._ahead -= _length(piece.range)


def _length(range_: Range) -> int:
    return range_.stop - range_.start


def _covers(one: Range, other: Range) -> bool:
    return one.start <= other.start and other.stop <= one.stop


def _joined(ranges: Iterable[Range]) -> Sequence[Range]:
    # As requests: what follows closely goes together, what is long is cut.
    found: list[Range] = []
    for one in ranges:
        last = found[-1] if found else None
        if last and last.key == one.key and last.start <= one.start <= last.stop + _GAP:
            found[-1] = Range(one.key, last.start, max(last.stop, one.stop))
        else:
            found.append(one)
    return [
        Range(key, at, min(at + _REQUEST, stop))
        for key, start, stop in found
        for at in range(start, stop, _REQUEST)
    ]
