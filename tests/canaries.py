"""Files that are full of what must not be kept: every planted string is unique and easily found again."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from tests.dicom_files import dataset, save, uid
from tests.studies import texture

TOKEN = re.compile(rb"zq\d{5}xv", re.IGNORECASE)
MOMENT = re.compile(rb"(?=(\d{8}|\d{4}-\d\d-\d\d|\d{6}\.\d{6}))")
TEXT_VRS = {"LO", "SH", "PN", "LT", "ST", "UT", "UC", "CS", "DA", "TM", "DT"}
STRUCTURE = {  # without which it would be another file, or none
    "PhotometricInterpretation", "SpecificCharacterSet", "Modality", "TransferSyntaxUID", "PlanarConfiguration",
}  # fmt: skip
SHAPE_GROUPS = {0x0000, 0x0002, 0x0004, 0x5400, 0x7FE0}  # commands, file meta, DICOMDIR, waveforms, pixels


@dataclass(slots=True)
class Canaries:
    """Hands out strings never seen before and remembers them all."""

    tokens: set[str] = field(default_factory=set)
    moments: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.tokens) + len(self.moments)

    def text(self) -> str:
        """Nine characters."""
        made = f"Zq{len(self.tokens):05d}xv"
        self.tokens.add(made)
        return made

    def day(self) -> str:
        """A date of its own, before any of this was made."""
        made = f"{date(1901, 1, 1) + timedelta(days=5 * len(self.moments)):%Y%m%d}"
        self.moments.add(made)
        return made

    def time(self) -> str:
        made = f"0708{len(self.moments) % 60:02d}.{len(self.moments) * 31 % 10**6:06d}"
        self.moments.add(made)
        return made

    def value(self, vr: str) -> str:
        """A valid value of a text, date or time VR."""
        if vr == "DA":
            return self.day()
        if vr == "TM":
            return self.time()
        if vr == "DT":
            return self.day() + "121314"
        if vr == "CS":
            return self.text().upper()
        return f"{self.text()}^{self.text()}" if vr == "PN" else self.text()

    def found_in(self, raw: bytes) -> set[str]:
        """Which of them are in these bytes, as 8-bit text or as UTF-16, in any case; dates also written with dashes."""
        texts = (raw, raw.replace(b"\x00", b""))
        hits = {match.decode() for text in texts for match in TOKEN.findall(text)}
        moments = {match.decode().replace("-", "") for text in texts for match in MOMENT.findall(text)}
        return hits | (moments & self.moments)


def full_dicom(canaries: Canaries, number: int) -> FileDataset:
    """A picture with a canary in every text element of the data dictionary, in a sequence, in private elements."""
    pixels = texture(number)
    made = dataset(pixels, sop_class="1.2.840.10008.5.1.4.1.1.7", modality="OT", SOPInstanceUID=uid(5, number))
    made.StudyInstanceUID, made.SeriesInstanceUID = uid(6, number), uid(7, number)
    made.preamble = f"{canaries.text()} {canaries.text()}".encode().ljust(128, b" ")
    _fill(made, canaries)
    nested = Dataset()
    _fill(nested, canaries)
    made.RequestAttributesSequence = Sequence([nested])
    block = made.private_block(0x0009, canaries.text(), create=True)
    block.add_new(1, "LO", canaries.text())
    block.add_new(2, "UN", canaries.text().encode() + b" ")
    deep = Dataset()
    deep.PatientName = canaries.value("PN")
    block.add_new(3, "SQ", Sequence([deep]))
    return made


def _fill(into: Dataset, canaries: Canaries) -> None:
    for number, (vr, _, _, _, keyword) in sorted(DicomDictionary.items()):
        tag = Tag(number)
        if vr in TEXT_VRS and keyword and keyword not in STRUCTURE and tag.group not in SHAPE_GROUPS:
            into[tag] = DataElement(tag, vr, canaries.value(vr))


def write_images(folder: Path, canaries: Canaries) -> list[Path]:
    """One file of each other format, with canaries wherever the format has room for words; names are canaries too."""
    pixels = Picture.fromarray(texture(70))
    exif = Picture.Exif()
    for tag in (0x010E, 0x0131, 0x013B, 0x8298, 0x9C9D):  # description, software, artist, copyright, author (UTF-16)
        exif[tag] = canaries.text().encode("utf-16-le") if tag == 0x9C9D else canaries.text()
    exif[0x0132] = f"{canaries.day()} 10:11:12"
    words = PngInfo()
    words.add_text(canaries.text(), canaries.text())
    words.add_text("Comment", canaries.text(), zip=True)
    words.add_itxt("Title", canaries.text(), tkey=canaries.text())
    paths = [folder / f"{canaries.text()}{suffix}" for suffix in (".png", ".jpg", ".tif", ".webp")]
    pixels.save(paths[0], pnginfo=words, exif=exif)
    Picture.fromarray(texture(71)).save(paths[1], exif=exif, comment=canaries.text())
    info = {
        270: canaries.text(),
        305: canaries.text(),
        315: canaries.text(),
        316: canaries.text(),
        65000: canaries.text(),
    }
    Picture.fromarray(texture(72)).save(paths[2], tiffinfo=info)
    Picture.fromarray(texture(73)).convert("RGB").save(paths[3], exif=exif, lossless=True)
    return [*paths, *write_volumes(folder, canaries)]


def write_volumes(folder: Path, canaries: Canaries) -> list[Path]:
    """NIfTI, MetaImage and NRRD."""
    voxels = np.stack([texture(80 + n, 24, 24) for n in range(6)], axis=2).astype(np.int16)
    image = nibabel.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0]))
    for name, size in (("descrip", 80), ("aux_file", 24), ("db_name", 18), ("intent_name", 16)):
        image.header[name] = canaries.text().encode()[:size]
    for code in (4, 6):  # AFNI's and plain comments
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, canaries.text().encode()))
    nifti = folder / f"{canaries.text()}.nii.gz"
    nibabel.save(image, nifti)
    paths = [nifti]
    for suffix in (".mha", ".nrrd"):
        volume = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T + len(paths)))
        for key in ("Comment", "PatientName", canaries.text()):
            volume.SetMetaData(key, canaries.text())
        paths.append(folder / f"{canaries.text()}{suffix}")
        SimpleITK.WriteImage(volume, str(paths[-1]))
    raw = paths[-1].read_bytes()
    paths[-1].write_bytes(raw.replace(b"\n\n", f"\n# {canaries.text()}\ncontent: {canaries.text()}\n\n".encode(), 1))
    return paths


def write_broken(folder: Path, canaries: Canaries, whole: Iterable[Path]) -> list[Path]:
    """Cut copies of whole files, and headers whose faulty value is the canary: a reason must not quote it."""
    paths = []
    for source in whole:
        paths.append(folder / f"{canaries.text()}{''.join(source.suffixes)}")
        raw = source.read_bytes()
        paths[-1].write_bytes(raw[: len(raw) * 3 // 5])
    texts = {
        ".nrrd": "NRRD0004\ntype: {0}\ndimension: 3\nsizes: 4 4 4\nencoding: {1}\nendian: {2}\n\n",
        ".nhdr": "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: {0}.raw\n\n",
        ".mha": "ObjectType = {0}\nNDims = 3\nDimSize = 4 4 4\nElementType = {1}\nElementDataFile = LOCAL\n",
        ".mhd": "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\nElementDataFile = {0}.raw\n",
        ".zip": "PK\x03\x04{0}{1}",
    }
    for suffix, text in texts.items():
        paths.append(folder / f"{canaries.text()}{suffix}")
        paths[-1].write_bytes(text.format(*(canaries.text() for _ in range(3))).encode())
    return [*paths, *_broken_dicom(folder, canaries)]


def _broken_dicom(folder: Path, canaries: Canaries) -> list[Path]:
    """A canary for a photometric interpretation, a character set, a frame count and a spacing."""
    paths = []
    places = {"SpecificCharacterSet": b"CS", "NumberOfFrames": b"IS", "Rows": b"US", "PhotometricInterpretation": b"CS"}
    for n, (keyword, vr) in enumerate(places.items()):
        made = dataset(texture(90 + n), modality="OT", SOPInstanceUID=uid(55, n))
        made.StudyInstanceUID, made.SeriesInstanceUID, made.PatientName = uid(56, n), uid(57, n), canaries.value("PN")
        del made[keyword if keyword in made else "PatientName"]
        paths.append(save(made, folder / f"{canaries.text()}.dcm"))
        raw, tag = paths[-1].read_bytes(), Tag(keyword)
        later = next(element.tag for element in made if element.tag > tag)
        at = raw.index(struct.pack("<HH", later.group, later.element), 132 + 100)
        marker = f"{canaries.text()} ".encode()
        element = struct.pack("<HH2sH", tag.group, tag.element, vr, len(marker)) + marker
        paths[-1].write_bytes(raw[:at] + element + raw[at:])
    return paths
