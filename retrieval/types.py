"""The nouns. Frozen dataclasses and array aliases; no behaviour beyond what follows from the fields.

Arrays carry a passport in their alias:

* ``Pixels``: one 2D frame. Grey ``[rows, columns]`` (uint8, uint16, int16 or float32, *after* the one rescale:
  Hounsfield units for CT, stored units otherwise, MONOCHROME1 already inverted) or colour ``[rows, columns, 3]``
  uint8 RGB. Row 0 is the top of the image as a radiologist looks at it.
* ``UnitRows``: float32 ``[n, dim]``, C-contiguous, every row of L2 norm 1 (tolerance 1e-3), finite.
* ``Keys``: int64 ``[n]``, every key >= 1. A key names one embedding of one case for ever; keys are never reused.
* ``Similarities``: float32, the inner product of unit rows, in [-1, 1].
"""

from __future__ import annotations

import builtins
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[Any]
UnitRows = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
Similarities = npt.NDArray[np.float32]


class CaseKind(StrEnum):
    """What a case is made of."""

    IMAGE = "image"  # one 2D image or frame
    VOLUME = "volume"  # a CT/MR/PET series, a NIfTI/MHA/NRRD file, a cine loop: an ordered stack of frames
    VIEWS = "views"  # images read together: PA + lateral, CC/MLO x L/R


@dataclass(frozen=True, slots=True)
class Image:
    """One 2D frame ready for an encoder.

    ``spacing``: (between rows, between columns) in mm. ``position_mm``: signed distance along the stack's normal, LPS
    millimetres. ``window``: (centre, width) in the units of ``pixels``, when the file states one (DICOM PS3.3 C.11.2).
    ``plane``: axial, coronal, sagittal, oblique or "".
    """

    pixels: Pixels
    modality: str = ""
    spacing: tuple[float, float] | None = None
    position_mm: float | None = None
    window: tuple[float, float] | None = None
    plane: str = ""
    sop_instance_uid: str = ""
    frame_number: int = 1  # 1-based, as in DICOM


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is kept of a header: an allow-list, patient-safe by construction. Empty string or None means unknown."""

    modality: str = ""  # as DICOM Modality: CT, MR, DX, CR, US, ... or as the labels file says
    body_part: str = ""  # BodyPartExamined, upper case
    view: str = ""  # ViewPosition: PA, AP, LL, CC, MLO, ...
    laterality: str = ""  # L, R, B
    sex: str = ""  # F, M, O
    age: float | None = None  # years
    manufacturer: str = ""
    study_year: int | None = None
    source: str = ""  # the data set or site, as given with --source


@dataclass(frozen=True, slots=True)
class Label:
    """One named value of a case. ``number`` is set when the value is numeric. A case may have several per name."""

    name: str
    value: str
    number: float | None = None


@dataclass(frozen=True, slots=True)
class FrameRef:
    """Where slice ``n`` of a case comes from: the ``file``-th file of the case (0-based), its frame (0-based)."""

    file: int
    frame: int
    position_mm: float | None = None
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True)
class CaseFile:
    """One file a case was read from. ``sealed_path`` is encrypted with the store's key: file names can hold names."""

    sha256: str
    bytes: int
    sealed_path: builtins.bytes


@dataclass(frozen=True, slots=True)
class Case:
    """What the gallery can return. ``case_id`` is a deterministic 16-character id; ``key`` is 0 until it is stored."""

    case_id: str
    kind: CaseKind
    attributes: Attributes = field(default_factory=Attributes)
    labels: tuple[Label, ...] = ()
    report: str = ""
    patient_key: str = ""  # keyed HMAC of the patient's id, or "" when unknown
    header_patient_key: str = ""  # of the header's own id, which a labels file may have put another in place of
    study_uid: str = ""
    series_uid: str = ""
    content_sha256: str = ""  # over the bytes of its files, in order
    pixel_sha256: str = ""  # over the BLAKE3 digests of its decoded frames, in order
    duplicate_of: str = ""  # case_id of an older case with the same pixels
    frames: tuple[FrameRef, ...] = ()
    rows: int = 0
    columns: int = 0
    spacing: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()  # quality warnings, sentences
    key: int = 0
    created_at: str = ""  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Embedding:
    """``vector``: UnitRows[0], float32 [dim]. ``slices``: UnitRows [n, dim], one per embedded frame of the case."""

    vector: npt.NDArray[np.float32]
    slices: UnitRows
    slice_frames: tuple[int, ...] = ()  # which of Case.frames each row of ``slices`` is


@dataclass(frozen=True, slots=True)
class EmbeddedCase:
    """A case with everything that is committed in one transaction."""

    case: Case
    embedding: Embedding
    files: tuple[CaseFile, ...] = ()
    thumbnail: bytes = b""  # JPEG, at most 256 px a side


@dataclass(frozen=True, slots=True)
class Match:
    """Which slice of the query met which slice of the hit. Indices count from 0 in the case's frames."""

    query_slice: int
    hit_slice: int
    similarity: float
    query_position_mm: float | None = None
    hit_position_mm: float | None = None


class Fusion(StrEnum):
    """How an image and a sentence are asked together."""

    SUM = "sum"  # one vector, the weighted sum of the two
    RRF = "rrf"  # two full rankings, joined by reciprocal rank


class Yardstick(StrEnum):
    """Which random pairs a percentile counts: cosines of images and of sentences lie on different scales."""

    CASES = "pairs of cases"
    SENTENCES = "pairs of a general sentence and a case"
    COMPOSED = "pairs of a case with a general sentence added and another case"


@dataclass(frozen=True, slots=True)
class HitParts:
    """How a hit meets the image and the sentence of a composed query, as cosines.

    With reciprocal rank also its places in the two full rankings, from 1 and counted in cases, and its ``score``.
    """

    image_similarity: float
    text_similarity: float
    image_rank: int | None = None
    text_rank: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer. ``percentile``: share (0 to 100) of random pairs (``SearchResult.yardstick``) that are less similar.

    ``similarity`` to a composed query is to the weighted sum of its parts, also where reciprocal rank made the order;
    ``parts`` is set for such a query only.
    """

    rank: int  # from 1
    case: Case
    similarity: float
    percentile: float
    matches: tuple[Match, ...] = ()
    parts: HitParts | None = None


class SamePatient(StrEnum):
    """What to do with cases of the query's own patient."""

    EXCLUDE = "exclude"
    INCLUDE = "include"
    ONLY = "only"


class GroupBy(StrEnum):
    """Keep only the best hit of each group."""

    PATIENT = "patient"
    STUDY = "study"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Composition:
    """How image and sentence were put together. ``text_weight``: share of the sentence, 0 to 1."""

    fusion: Fusion
    text_weight: float

    @property
    def told(self) -> str:
        """The same as a sentence."""
        if self.fusion is Fusion.RRF:
            return (
                "Ordered by reciprocal rank over the full rankings by image and by text, the text counting "
                f"{self.text_weight:.0%}."
            )
        return f"Image and text asked as one weighted sum, {self.text_weight:.0%} of it text."


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits with what is needed to trust and cite them. ``composition``: of an image with a sentence, else None.

    ``reasons``: sentences why there is no confident match; empty when there is one. ``cautions``: what else should be
    known, also of a confident match. ``p_value``: of how close the query is to its nearest cases, among how close cases
    on file are to theirs, in (0, 1]; None for a query with a sentence, and where too few patients are on file to tell.
    """

    hits: tuple[Hit, ...]
    encoder: str
    fingerprint: str
    generation: str  # "" when only the exact delta exists
    gallery_size: int
    plan: str
    candidates: int
    exhaustive: bool
    no_confident_match: bool
    took_ms: float
    yardstick: Yardstick = Yardstick.CASES
    composition: Composition | None = None
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    p_value: float | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. ``patient_key`` and ``study_uid`` are what ``same_patient`` goes by, "" when unknown.

    ``key``: its own key when it is on file, so that it does not find itself. ``frames``: those of its case, for the
    positions in matches. ``text_weight``: how much of it is a sentence, 0 to 1. A sentence beside an image is ``text``,
    a unit vector [dim]; a sentence alone is the ``embedding``. ``Gallery.text_query`` and ``with_text`` make both.
    ``modality`` and ``body_part`` are what its header says, "" when unknown: its neighbours are held against them.
    """

    embedding: Embedding
    patient_key: str = ""
    key: int = 0
    frames: tuple[FrameRef, ...] = ()
    study_uid: str = ""
    text: npt.NDArray[np.float32] | None = None
    text_weight: float = 0.0
    fusion: Fusion = Fusion.SUM
    modality: str = ""
    body_part: str = ""


@dataclass(frozen=True, slots=True)
class GalleryState:
    """What a gallery is now. ``damaged``: "" or the sentence that says what is wrong with its generation.

    ``fingerprint`` and ``dim`` are of the vectors that are searched; ``adapter``: name of the metric head they
    went through, "" for none.
    """

    size: int
    encoder: str
    fingerprint: str
    pooling: str
    dim: int
    generation: str
    delta: int  # vectors since the generation, searched exactly
    damaged: str
    adapter: str = ""
