"""The path that was found fastest for an encoder on a machine, kept as a file of its own below the data directory.

One file per encoder and machine, named by both, so that processes and machines that share a data directory never write
over each other's. The files are also the record of how a gallery's vectors were made. A file that is damaged, or holds
another encoder's or machine's choice, is passed over with a notice in the log, and the next calibration replaces it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.paths.base import EAGER
from retrieval.encoders.paths.machine import Machine
from retrieval.storage import storing

FOLDER = "paths"  # below the data directory
FORMAT = 1  # raised when calibration changes so that earlier choices should not be followed

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one path: ``speed`` times that of eager and the least ``cosine`` to it, or why it was left out."""

    path: str
    speed: float = 0.0
    cosine: float = 0.0
    invariance: float = 0.0  # least cosine of an image's vectors in batches of different sizes
    sizes: tuple[int, ...] = ()
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """``path`` in batches of one of ``sizes``; (1, 2, 3, ...) of eager. ``images``: how many it was measured on."""

    fingerprint: str
    machine: Machine
    path: str
    sizes: tuple[int, ...]
    speed: float
    cosine: float
    images: int
    trials: tuple[Trial, ...] = ()

    @property
    def sentence(self) -> str:
        """The choice in words, for people."""
        if self.path == EAGER and not self.trials:
            return "Encoding with torch in float32, which is fast enough here."
        if self.path == EAGER:
            return f"Encoding with torch in float32: of {len(self.trials)} other ways none was worth taking."
        return (
            f"Encoding with {self.path}: {self.speed:.1f} times as fast as torch in float32, cosine to it at least "
            f"{self.cosine:.5f} on {self.images} images."
        )


class ChoiceStore:
    """The choices below a data directory. Reading makes nothing; the folder is made by the first choice kept."""

    def __init__(self, home: Path) -> None:
        self._folder = home / FOLDER

    def load(self, fingerprint: str, machine: Machine) -> Choice | None:
        """The choice for this encoder on this machine, or None when there is none that can be believed."""
        path = self._path(fingerprint, machine)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            _log.warning("The file %s/%s can't be read; the encoder is calibrated again.", FOLDER, path.name)
            return None
        try:
            choice = _parse(text)
            if (choice.fingerprint, choice.machine) != (fingerprint, machine):
                raise ValueError("it is of another encoder or machine")
        except (ValueError, KeyError, TypeError, RecursionError):
            _log.warning("The file %s/%s is damaged; the encoder is calibrated again.", FOLDER, path.name)
            return None
        return choice

    def save(self, choice: Choice) -> None:
        """Keep the choice; readers see the file whole or not at all. StoreError when the disk refuses."""
        body = asdict(choice)
        text = json.dumps({"format": FORMAT, "sha256": _digest(body), "choice": body}, indent=1, sort_keys=True) + "\n"
        path = self._path(choice.fingerprint, choice.machine)
        with storing("The choice of the fastest path can't be kept"):
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".json")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _path(self, fingerprint: str, machine: Machine) -> Path:
        return self._folder / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:12]}-{machine.digest}.json"


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _parse(text: str) -> Choice:
    """The choice in a file's text; ValueError, KeyError or TypeError for anything that ``save`` has not written."""
    outer = json.loads(text)
    body = outer["choice"]
    if outer["format"] != FORMAT or outer["sha256"] != _digest(body):
        raise ValueError("of another format, or changed since it was written")
    machine = {**body["machine"], **{name: tuple(body["machine"][name]) for name in ("features", "versions")}}
    trials = tuple(Trial(**{**trial, "sizes": tuple(trial["sizes"])}) for trial in body["trials"])
    return Choice(**{**body, "machine": Machine(**machine), "sizes": tuple(body["sizes"]), "trials": trials})
