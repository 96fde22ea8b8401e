"""Text as it is stored: what both databases can hold."""

from __future__ import annotations


def clean(text: str) -> str:
    """Text as both databases can hold it: no NUL, and lone surrogates (undecodable file bytes) as "?"."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")
