"""A coordinator on torch.distributed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any


class TorchCoordinator:
    """See `Coordinator`. It has a gloo group of its own: the training's collectives are not disturbed."""

    def __init__(self, timeout: float) -> None:
        """Use `torch_coordinator`."""
        try:
            from torch import distributed  # an extra, and slow to import
        except ImportError as error:
            raise ImportError(f"torch_coordinator needs torch: {error}") from error

        self._distributed: Any = distributed
        if not distributed.is_initialized():
            raise RuntimeError("torch.distributed.init_process_group() comes first, in every process")
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
        with self._telling():
            self._group: Any = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))

    def gather(self, value: Any) -> list[Any] | None:
        """See `Coordinator`."""
        values = [None] * self.world if self.rank == 0 else None
        with self._telling():
            self._distributed.gather_object(value, values, dst=0, group=self._group)
        return values

    def broadcast(self, value: Any) -> Any:
        """See `Coordinator`."""
        box = [value]
        with self._telling():
            self._distributed.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def close(self) -> None:
        """See `Coordinator`."""
        group, self._group = self._group, None
        if group is not None:
            with suppress(RuntimeError, ValueError):  # the training may have ended before
                self._distributed.destroy_process_group(group)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            told = f"rank {self.rank} of {self.world} lost another one: {str(error).splitlines()[0]}"
            raise ConnectionError(errno.ECONNABORTED, told) from error


def torch_coordinator(*, timeout: float = 300.0) -> TorchCoordinator:
    """A coordinator for the processes of torch.distributed, which has to be initialized.

    All processes call this together. It makes a gloo group of its own, whatever the training's backend is,
    and only for opening a group: saves need no collective.

    Args:
        timeout: seconds that a process waits for the others, which is then a ConnectionError.

    Raises:
        RuntimeError: torch.distributed is not initialized.
        ConnectionError: another process did not come.
        ImportError: there is no torch.
    """
    return TorchCoordinator(timeout)
