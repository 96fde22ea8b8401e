"""How the compact encoder was trained: ``python -m training.compact`` (docs/compact.md)."""
