"""What an object means beyond its bytes: where these lie, what they are, whether they still are its own."""

from dirtytrack.objects._adapters import describe
from dirtytrack.objects.description import Description, Elements

__all__ = ["Description", "Elements", "describe"]
