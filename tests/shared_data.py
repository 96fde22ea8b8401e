"""Where the shared real data lies, when it is there."""

from __future__ import annotations

import csv
import os
from pathlib import Path


def shared_root() -> Path | None:
    """``PRECEDENT_SHARED``, or ``shared`` beside the repository; None when absent."""
    stated = os.environ.get("PRECEDENT_SHARED")
    root = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared"
    return root if (root / "corpora" / "labels.csv").is_file() else None


def labels(root: Path, folder: str) -> list[dict[str, str]]:
    """The rows of ``folder/labels.csv``."""
    with (root / folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
