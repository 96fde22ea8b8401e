"""Precedent's engine: similar-case retrieval for medical imaging.

Names are imported on first use: decoding workers need a few nouns of this package, not its database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.gallery import Gallery
    from retrieval.settings import Settings
    from retrieval.types import Case, Fusion, Hit, Image, Query, SearchResult

__version__ = "0.1.0"

__all__ = ["Case", "Fusion", "Gallery", "Hit", "Image", "Query", "SearchResult", "Settings", "__version__"]

_HOMES = {"Gallery": "retrieval.gallery", "Settings": "retrieval.settings"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "retrieval.types")), name)
    raise AttributeError(f"module 'retrieval' has no attribute '{name}'")
