"""Precedent's engine: similar-case retrieval for medical imaging."""

from __future__ import annotations

from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, Hit, Image, Query, SearchResult

__version__ = "0.1.0"

__all__ = ["Case", "Gallery", "Hit", "Image", "Query", "SearchResult", "Settings", "__version__"]
