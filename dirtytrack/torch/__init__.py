"""torch: checkpoints as easy as ``torch.save``, and incremental.

`TorchCheckpointer` saves modules, optimizers, schedulers and random states, and resumes with them. Needs the
extra: pip install "dirtytrack[torch]". What is promised is in ``docs/torch.md``.
"""

try:
    import torch  # noqa: F401 - which everything here needs
except ImportError as error:
    raise ImportError('dirtytrack.torch needs torch: pip install "dirtytrack[torch]"') from error

from dirtytrack.torch.checkpointer import TorchCheckpointer

__all__ = ["TorchCheckpointer"]
