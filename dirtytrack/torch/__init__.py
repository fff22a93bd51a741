"""torch: checkpoints as easy as ``torch.save``, and incremental.

`TorchCheckpointer` saves modules, optimizers, schedulers and random states, and resumes with them.
`load` reads a checkpoint as torch.load does; `export` makes a file of one for other programs. `DcpWriter` and
`DcpReader` are storages of torch.distributed.checkpoint that write what has changed. `track_module` tracks
the tensors of a module by name, and `ModuleSnapshot` takes steps back. `dirtytrack.torch.lightning` has a
plugin for Lightning. Needs the extra: pip install "dirtytrack[torch]". What is promised is in
``docs/torch.md``.
"""

try:
    import torch  # noqa: F401 - which everything here needs
except ImportError as error:
    raise ImportError('dirtytrack.torch needs torch: pip install "dirtytrack[torch]"') from error

from dirtytrack.torch.checkpointer import TorchCheckpointer
from dirtytrack.torch.dcp import DcpReader, DcpWriter
from dirtytrack.torch.exporting import export
from dirtytrack.torch.loading import load
from dirtytrack.torch.modules import ModuleSnapshot, track_module

__all__ = ["DcpReader", "DcpWriter", "ModuleSnapshot", "TorchCheckpointer", "export", "load", "track_module"]
