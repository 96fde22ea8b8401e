"""Pure: ages as they are told."""

from __future__ import annotations


def age_band(age: float | None) -> str:
    """A decade of years, ``"40-49"``; ``"90+"`` from 90, where an exact age can tell who someone is; "" for None."""
    if age is None:
        return ""
    decade = int(age // 10) * 10
    return "90+" if decade >= 90 else f"{decade}-{decade + 9}"
