"""What the kernel offers, typed and complete. Mechanism without policy, for experts.

``userfaultfd`` arms memory, ``pagemap`` reads what was written to it, ``mappings`` tells what is mapped
where, and ``support`` tells what this kernel and this environment can do. Most programs want
``dirtytrack.Session``, which knows when to use which.
"""

from dirtytrack.kernel import mappings, pagemap, support, userfaultfd
from dirtytrack.kernel.userfaultfd import Userfaultfd

__all__ = ["Userfaultfd", "mappings", "pagemap", "support", "userfaultfd"]
