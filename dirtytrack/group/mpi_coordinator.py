"""A coordinator on MPI, by mpi4py."""

from __future__ import annotations

import errno
import json
import time
from typing import Any

_FIRST_WAIT, _LONGEST_WAIT = 0.0001, 0.05  # seconds between a look and the next one

_unfinished: list[Any] = []


class MpiCoordinator:
    """See `Coordinator`. It has a communicator of its own.

    MPI waits for ever for a process that has died, so nothing here blocks: requests are looked at until they
    are done, or the time is over.
    """

    def __init__(self, comm: Any, timeout: float) -> None:
        """Use `mpi_coordinator`."""
        try:
            from mpi4py import MPI  # an extra, and starts MPI
        except ImportError as error:
            raise ImportError(f"mpi_coordinator needs mpi4py, and an MPI: {error}") from error
        self._mpi: Any = MPI
        self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self.rank, self.world = self._comm.Get_rank(), self._comm.Get_size()
        self._timeout = timeout

    def gather(self, value: Any) -> list[Any] | None:
        """See `Coordinator`."""
        data = json.dumps(value).encode()
        sizes = bytearray(8 * self.world) if self.rank == 0 else None
        self._wait(self._comm.Igather(len(data).to_bytes(8, "little"), sizes, root=0))
        if sizes is None:
            self._wait(self._comm.Igatherv(data, None, root=0))
            return None
        counts = [int.from_bytes(sizes[at : at + 8], "little") for at in range(0, len(sizes), 8)]
        all_data = bytearray(sum(counts))
        self._wait(self._comm.Igatherv(data, [all_data, counts, self._mpi.BYTE], root=0))
        values = []
        for count in counts:
            values.append(json.loads(all_data[:count]))
            del all_data[:count]
        return values

    def broadcast(self, value: Any) -> Any:
        """See `Coordinator`."""
        data = bytearray(json.dumps(value).encode()) if self.rank == 0 else bytearray()
        size = bytearray(len(data).to_bytes(8, "little"))
        self._wait(self._comm.Ibcast(size, root=0))
        if self.rank:
            data = bytearray(int.from_bytes(size, "little"))
        self._wait(self._comm.Ibcast(data, root=0))
        return json.loads(data)

    def close(self) -> None:
        """See `Coordinator`. The communicator stays: to free it takes all processes."""

    def _wait(self, request: Any) -> None:
        deadline, wait = time.monotonic() + self._timeout, _FIRST_WAIT
        while not request.Test():
            if time.monotonic() > deadline:
                _unfinished.append(request)  # MPI may yet write to what it keeps
                told = f"rank {self.rank} of {self.world} waited {self._timeout:g} s for another one"
                raise TimeoutError(errno.ETIMEDOUT, told)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def mpi_coordinator(comm: Any = None, *, timeout: float = 300.0) -> MpiCoordinator:
    """A coordinator for the processes of an MPI communicator.

    All processes of it call this together. It duplicates the communicator, and only for opening a group:
    saves need no collective.

    Args:
        comm: of mpi4py. None, the default: ``MPI.COMM_WORLD``.
        timeout: seconds that a process waits for the others, which is then a TimeoutError. Start programs by
            ``python -m mpi4py``, which ends all processes then: else MPI itself waits, at their exit.

    Raises:
        ImportError: there is no mpi4py, or no MPI.
    """
    return MpiCoordinator(comm, timeout)
