"""From files to a gallery (``add``), and from a file to a query (``ask``).

Both are imported on first use: decoding workers import this package too, and must stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.files import add, ask

__all__ = ["add", "ask"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from indexer import files

        return getattr(files, name)
    raise AttributeError(f"module 'indexer' has no attribute '{name}'")
