"""Pure: an image and a sentence asked together, as one vector (weighted sum) or as two rankings (reciprocal rank).

Reciprocal-rank fusion after Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual
rank learning methods" (SIGIR 2009), with their constant 60 and the weights of the two parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval.errors import UsageError
from retrieval.types import Keys, Similarities, UnitRows

RRF_CONSTANT = 60
_CANCELLED = 1e-6  # a sum shorter than this has no direction

Ranks = npt.NDArray[np.int64]  # [n], from 1
Scores = npt.NDArray[np.float64]  # [n]


def compose(images: UnitRows, sentence: npt.NDArray[np.float32], weight: float) -> UnitRows:
    """Unit rows [n, dim]: each row of ``images`` and the unit vector ``sentence`` [dim], summed by weight.

    ``weight``: share of the sentence, 0 to 1; at 0 and 1 the parts themselves come back, to the bit. UsageError when a
    row and the sentence cancel out.
    """
    check_weight(weight)
    if weight == 0.0:
        return images
    if weight == 1.0:
        return np.repeat(sentence[None, :], len(images), axis=0)
    summed = (1.0 - weight) * images.astype(np.float64) + weight * sentence.astype(np.float64)
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    if len(lengths) and float(lengths.min()) < _CANCELLED:
        raise UsageError("Image and text point in opposite directions and cancel out: choose another text weight.")
    return np.ascontiguousarray(summed / lengths, dtype=np.float32)


def check_weight(weight: float) -> None:
    """UsageError unless it is a share."""
    if not 0.0 <= weight <= 1.0:
        raise UsageError(f"The text weight must be from 0 (image alone) to 1 (text alone), got {weight}.")


def ranks(keys: Keys, similarities: Similarities) -> Ranks:
    """The place of each key in the full ranking, from 1: best first, equal similarities by key."""
    places = np.empty(len(keys), np.int64)
    places[np.lexsort((keys, -similarities))] = np.arange(1, len(keys) + 1)
    return places


@dataclass(frozen=True, slots=True)
class Fused:
    """Two full rankings of the same keys and what came of them, best first, ties by key. All arrays are [n]."""

    keys: Keys
    scores: Scores
    image_ranks: Ranks
    text_ranks: Ranks


def reciprocal_rank(keys: Keys, image: Similarities, text: Similarities, weight: float) -> Fused:
    """``(1 - weight) / (60 + rank by image) + weight / (60 + rank by text)`` of every key, best first.

    Exact: ``image`` and ``text`` are the similarities of all that may be returned, not of the best of each list.
    ``weight``: share of the sentence, 0 to 1; at 0.5 the order is that of the unweighted sum.
    """
    check_weight(weight)
    by_image, by_text = ranks(keys, image), ranks(keys, text)
    scores = (1.0 - weight) / (RRF_CONSTANT + by_image) + weight / (RRF_CONSTANT + by_text)
    order = np.lexsort((keys, -scores))
    return Fused(keys[order], scores[order], by_image[order], by_text[order])
