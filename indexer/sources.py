"""Where bytes come from, and what a header says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from retrieval.types import Attributes, Image

SPATIAL = frozenset({"CT", "MR", "PT", "NM"})  # modalities whose single frames are slices of a body


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one member of a zip."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)


@dataclass(frozen=True, slots=True)
class Plane:
    """Geometry of one frame in DICOM patient coordinates (LPS, mm); PS3.3 C.7.6.2.

    ``position``: centre of the first voxel transmitted. ``row``/``column``: unit direction of increasing column index
    (along a row) and of increasing row index (down a column). ``stack``: what else tells frames of one series apart
    (temporal position, echo, b-value, stack id, image type), as a short string.
    """

    position: tuple[float, float, float]
    row: tuple[float, float, float]
    column: tuple[float, float, float]
    stack: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """What one file is, from its header alone: no pixel has been decoded.

    ``patient_id`` and ``issuer`` are raw and live only until they are turned into a keyed pseudonym: never stored,
    logged or shown. ``frames`` is 0 for a file without pixels. ``planes`` has one entry per frame, or is empty when
    there is no geometry. ``volumetric``: the frames are a stack in space (CT/MR/PET, a NIfTI with more than one
    slice) rather than a single picture or a loop in time.
    """

    source: Source
    format: str  # dicom, nifti, itk, raster, kept
    sha256: str
    bytes: int
    frames: int
    rows: int = 0
    columns: int = 0
    spacing: tuple[float, float] | None = None
    planes: tuple[Plane, ...] = ()
    volumetric: bool = False
    attributes: Attributes = field(default_factory=Attributes)
    patient_id: str = field(default="", repr=False)
    issuer: str = field(default="", repr=False)
    study_uid: str = ""
    series_uid: str = ""
    sop_uid: str = ""
    instance_number: int | None = None
    image_type: tuple[str, ...] = ()
    declared: tuple[tuple[str, str], ...] = ()  # further allow-listed facts offered as labels: (name, value)
    companions: tuple[Path, ...] = ()  # files read along with this one (.img of .hdr, .raw of .mhd)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """One input that was refused, with where and why. ``sha256`` is "" when the bytes could not be read."""

    source: Source
    stage: str  # sniff (not an image, left out), open, scan, decode, assemble, embed, commit
    reason: str
    sha256: str = ""
    limit: bool = False  # refused by a limit (HTTP 413) rather than by its content (422)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for frames of one file, by 0-based index, in this order; None means all.

    ``preview``: the frame that is also wanted as a thumbnail.
    """

    source: Source
    format: str
    frames: tuple[int, ...] | None = None
    preview: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame of a ``Wanted``.

    ``digest``: SHA-256 of its shape, dtype and values. ``thumbnail``: JPEG bytes where a preview was asked for, else
    empty. The pixels may be a view into the bytes of several frames: keep a copy of what is to be kept for long.
    """

    wanted: Wanted
    index: int
    image: Image
    digest: bytes
    thumbnail: bytes = b""
