"""What an object means beyond its bytes: where these lie, what they are, whether they still are its own."""

from dirtytrack.objects._adapters import describe
from dirtytrack.objects._torch import is_module, tensors_of
from dirtytrack.objects.description import Description, Elements
from dirtytrack.objects.element_types import ElementType, title_of
from dirtytrack.objects.places import Places
from dirtytrack.objects.trackable import Trackable

__all__ = [
    "Description",
    "ElementType",
    "Elements",
    "Places",
    "Trackable",
    "describe",
    "is_module",
    "tensors_of",
    "title_of",
]
