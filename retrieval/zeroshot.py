"""Pure: from cosines of an image with prompts to probabilities of labels nobody was trained on.

One label of several: ``softmax(logit_scale x cosine)`` over ``"{label}."``, as the model was trained to tell captions
apart (Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021).

Each label by itself: ``sigmoid(logit_scale x cosine)`` would say nearly 1 of everything, since a cosine of image and
text is hardly ever below zero and the scale is near 100. What means something is the contrast: whether the image is
nearer to the label than to prompts that say nothing. So a label's probability is the one that a question of two would
give it against a neutral prompt, averaged over several of those in the space of ``exp(logit_scale x cosine)``:

    p = exp(s c) / (exp(s c) + mean over n of exp(s c_n)) = sigmoid(s c - log mean exp(s c_n))

0.5 means as near as a neutral prompt. It is no prevalence and no probability of disease.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.types import UnitRows

Probabilities = npt.NDArray[np.float64]  # [images, labels], 0 to 1


def prompts(labels: Sequence[str]) -> list[str]:
    """What the text tower is asked for each label."""
    return [f"{label}." for label in labels]


def cosines(images: UnitRows, texts: UnitRows) -> npt.NDArray[np.float64]:
    """[images, texts], float64, each summed by itself: a pair's cosine does not depend on the others."""
    return np.array([(texts * image.astype(np.float64)).sum(axis=1) for image in images]).reshape(
        len(images), len(texts)
    )


def one_of(found: npt.NDArray[np.float64], logit_scale: float) -> Probabilities:
    """Softmax over the labels of each image; every row sums to 1. ``found``: cosines [images, labels]."""
    logits = logit_scale * found
    powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def each(found: npt.NDArray[np.float64], neutral: npt.NDArray[np.float64], logit_scale: float) -> Probabilities:
    """Each label against the neutral prompts. ``found``: [images, labels]; ``neutral``: cosines [images, prompts >= 1].

    A label's probability does not depend on which other labels are asked for.
    """
    logits = logit_scale * neutral
    peak = logits.max(axis=1, keepdims=True)
    level = peak + np.log(np.exp(logits - peak).mean(axis=1, keepdims=True))
    contrast = np.clip(logit_scale * found - level, -700.0, 700.0)  # exp of more would overflow
    return np.asarray(1.0 / (1.0 + np.exp(-contrast)))
