"""For garbage collectors: card tables and write watch, the write barrier that the hardware has."""

from dirtytrack.barrier.cardtable import CardTable
from dirtytrack.barrier.segment import Segment
from dirtytrack.barrier.writewatch import WriteWatch, get_write_watch, reset_write_watch

__all__ = ["CardTable", "Segment", "WriteWatch", "get_write_watch", "reset_write_watch"]
