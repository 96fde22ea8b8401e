"""From a stored choice, or a first measured one, to an encoder that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from retrieval.encoders.base import Encoder
from retrieval.encoders.paths.base import EAGER, FastPath
from retrieval.encoders.paths.choice import Choice, ChoiceStore
from retrieval.encoders.paths.execution import out_of_memory, to_device
from retrieval.encoders.paths.known import KNOWN_PATHS
from retrieval.encoders.paths.machine import Machine
from retrieval.encoders.paths.samples import sample_images
from retrieval.encoders.several_windows import SeveralWindows
from retrieval.encoders.tower import ImageTower
from retrieval.encoders.weights import one_line
from retrieval.types import Image

CALIBRATING = 16  # frames that must come together before a path is measured on them
# Frames of a job that earn measuring back. By docs/benchmarks.md it takes as long as torch needs for 120 (ViT-B) to 520
# (compact) of them, so a job around this size takes at most about twice as long as whichever had been better for it.
EARNING = 256

Tell = Callable[[Choice], None]

_log = logging.getLogger(__name__)


def follow_choice(encoder: Encoder, home: Path, *, paths: Iterable[FastPath] = KNOWN_PATHS) -> Choice | None:
    """Let the encoder run the path chosen for it on this machine; None, and eager as before, when there is none.

    The path is built before the first frame is encoded: a process that encodes none does not pay for it.
    """
    tower = tower_of(encoder)
    choice = tower and ChoiceStore(home).load(tower.card.fingerprint, Machine.here(tower.execution.device))
    if tower and choice:
        known = tuple(paths)
        tower.first.expect(lambda images: _follow(tower, choice, known))
    return choice or None


def choose_while_encoding(
    encoder: Encoder, home: Path, tell: Tell | None = None, *, now: bool = False, sources: int = EARNING
) -> None:
    """As ``follow_choice``; where there is no choice yet, calibrate on the first frames that come in numbers.

    ``sources``: files of the job. Fewer than ``EARNING`` are run as they are, unless they turn out to be of more frames
    than that. ``now``: calibrate at once instead, on ``sample_images``. ``tell`` is called once the path is known. An
    encoder that is not a torch tower is left as it is.
    """
    if tower := tower_of(encoder):
        if choice := follow_choice(encoder, home):
            if tell:
                tell(choice)
            return

        def calibrate(images: Sequence[Image]) -> None:
            choice = calibrate_now(encoder, home, images)
            if choice and tell:
                tell(choice)

        if now:
            calibrate(())
        else:
            tower.first.expect(calibrate, CALIBRATING, 0 if sources >= EARNING else EARNING)


def calibrate_now(
    encoder: Encoder,
    home: Path | None = None,
    images: Sequence[Image] = (),
    *,
    paths: Iterable[FastPath] = KNOWN_PATHS,
    thorough: bool = False,
) -> Choice | None:
    """Measure the paths, run the chosen one from now on, keep it below ``home`` if that is given.

    Measured on the first of ``images``, made up to 16 by ``sample_images``. None, and eager, for an encoder that is not
    a torch tower and where memory is too short to measure. ``thorough``: also what takes minutes to build. StoreError
    when the choice can't be kept.
    """
    from retrieval.encoders.paths.calibration import calibrate

    tower = tower_of(encoder)
    if tower is None:
        return None
    tower.first.forget()
    frames = [*images[:CALIBRATING], *sample_images(CALIBRATING - min(len(images), CALIBRATING))]
    try:
        found = calibrate(
            tower.execution, tower.inputs(frames), tower.card.fingerprint, paths=tuple(paths), thorough=thorough
        )
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        _log.warning("%s: too little memory to look for a faster path.", tower.card.fingerprint)
        return None
    tower.execution.use(found.choice.path, found.forward, found.choice.sizes)
    _log.info("%s: %s", found.choice.fingerprint, found.choice.sentence)
    if home is not None:
        ChoiceStore(home).save(found.choice)
    return found.choice


def tower_of(encoder: Encoder) -> ImageTower | None:
    """The torch tower in an encoder, through what is wrapped around it."""
    if isinstance(encoder, SeveralWindows):
        return tower_of(encoder.within)
    return encoder if isinstance(encoder, ImageTower) else None


def _follow(tower: ImageTower, choice: Choice, paths: Sequence[FastPath]) -> None:
    execution = tower.execution
    path = next((path for path in paths if path.name == choice.path), None)
    try:
        if path is not None:
            example = to_device(tower.inputs(sample_images(2)), execution.device)
            forward = path.build(execution.eager, example)
        elif choice.path == EAGER:
            forward = execution.eager
        else:
            raise LookupError("this version has no such path")
    except Exception as error:  # noqa: BLE001 - whatever another library raises, eager is right as well
        _log.warning("The path %s can't be used (%s): encoding with torch in float32.", choice.path, one_line(error))
        return
    execution.use(choice.path, forward, choice.sizes)
