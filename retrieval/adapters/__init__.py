"""Adapters: metric heads learned on stored vectors. Splitting, learning and applying are pure; no I/O here."""
