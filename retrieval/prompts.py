"""Sentences of ours that sentences of users are compared with. Data: changing one changes answers, so say so."""

from __future__ import annotations

# Something general of every common kind of image: what a sentence that says nothing in particular would score.
GENERAL = (
    "a chest radiograph.",
    "an abdominal radiograph.",
    "a radiograph of the hand.",
    "a radiograph of the knee.",
    "a mammogram.",
    "a CT slice of the chest.",
    "a CT slice of the abdomen.",
    "a CT slice of the head.",
    "an MR image of the brain.",
    "an MR image of the knee.",
    "an MR image of the spine.",
    "an MR image of the heart.",
    "an ultrasound image of the breast.",
    "an ultrasound image of the abdomen.",
    "a photograph of a skin lesion.",
    "a fundus photograph.",
    "an optical coherence tomography scan of the retina.",
    "a histology slide.",
    "a microscope image of blood cells.",
    "an endoscopic image.",
    "a normal examination without abnormal findings.",
    "an abnormal examination.",
    "an image of an adult patient.",
    "a medical image.",
)

# What any image may be called without saying anything of it: the other side of a multilabel question.
NEUTRAL = ("medical image.", "image.", "unspecified finding.", "other.")
