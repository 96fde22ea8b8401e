"""A bundle as RadFM takes it: text with a place for each image, and the images as blocks of voxels.

Blocks are float32 [3, 512, 512, D], 0 to 1, grey repeated over the three channels. A picture has D = 4, its copies; a
volume's frames are interpolated along their axis to the next multiple of 4, at most 64. Neighbours come first, the
query last; blocks of the same D are stacked as [S, 3, 512, 512, D] in the order of the text.
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from indexer.evidence_images import Frames
from indexer.pixels import to_display
from retrieval.evidence.cited import Evidence
from retrieval.evidence.formats.markdown import case_text, data_fence, ending, preface
from retrieval.evidence.formats.plain import evidence_json

PLACE = "<image>"
SIDE = 512
FLAT = 4
DEEPEST = 64

Block = npt.NDArray[np.float32]  # [3, 512, 512, D], 0 to 1


@dataclass(frozen=True, slots=True)
class Placed:
    """The frames of one place in the text. ``of``: a citation as "[1]", or "query"."""

    of: str
    frames: Frames


def depth_of(frames: int) -> int:
    """D for so many frames: 4 for one, else the next multiple of 4, at most 64."""
    return min(DEEPEST, max(FLAT, -(-frames // 4) * 4))


def block_of(frames: Frames) -> Block:
    """The frames of a case as one block."""
    shown = [_square(to_display(image, frames.window)) for image in frames.images]
    depth = depth_of(len(shown))
    block = np.empty((3, SIDE, SIDE, depth), dtype=np.float32)
    for n, at in enumerate(np.linspace(0, len(shown) - 1, depth)):
        low = int(at)
        high = min(low + 1, len(shown) - 1)
        part = np.float32(at - low)
        block[..., n] = ((1 - part) * shown[low] + part * shown[high]).transpose(2, 0, 1)
    return block


def _square(shown: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32 [512, 512, 3], 0 to 1."""
    from PIL import Image as Picture

    picture = Picture.fromarray(shown).convert("RGB").resize((SIDE, SIDE), Picture.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float32) / np.float32(255)


def most_text_of(evidence: Evidence) -> str:
    """The text with a place for every image of the bundle: what ``max_tokens`` counts."""
    places = {f"[{case.number}]": len(case.images) for case in evidence.cases}
    return text_of(evidence, {**places, "query": evidence.own_images})


def text_of(evidence: Evidence, places: Mapping[str, int]) -> str:
    """The markdown with so many places after each case, by its citation as "[1]", and at the end for the "query"."""
    fence = data_fence(evidence)
    cases = [
        "\n".join([_plain(case_text(case, fence)), *[PLACE] * places.get(f"[{case.number}]", 0)])
        for case in evidence.cases
    ]
    own = " ".join(["The query:", *[PLACE] * places["query"]]) if places.get("query") else "The query has no image."
    return "\n\n".join([_plain(preface(evidence, fence)), *cases, _plain(ending(evidence, fence)), own])


def _plain(text: str) -> str:
    """Data may not hold a place of its own: it would put the images out of step."""
    return text.replace("<image", "< image").replace("</image", "< /image")


def save_radfm(evidence: Evidence, placed: list[Placed], path: Path) -> tuple[Path, Path]:
    """Write ``path`` with the endings .npz and .json; both paths. Blocks are made and written one by one."""
    arrays, told = path.with_suffix(".npz"), path.with_suffix(".json")
    placed = [each for each in placed if each.frames.images]
    depths = [depth_of(len(each.frames.images)) for each in placed]
    with zipfile.ZipFile(arrays, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for depth in sorted(set(depths)):
            group = [each for each, of in zip(placed, depths, strict=True) if of == depth]
            with archive.open(f"images_d{depth}.npy", "w", force_zip64=True) as file:
                shape = (len(group), 3, SIDE, SIDE, depth)
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for each in group:
                    file.write(block_of(each.frames).astype("<f4", copy=False).tobytes())
    places = [
        {
            "of": each.of,
            "array": f"images_d{depth}",
            "index": depths[:n].count(depth),
            "thumbnail": each.frames.thumbnail,
        }
        for n, (each, depth) in enumerate(zip(placed, depths, strict=True))
    ]
    text = text_of(evidence, Counter(each.of for each in placed))
    written = {"text": text, "images": places, "evidence": evidence_json(evidence)}
    told.write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return arrays, told
