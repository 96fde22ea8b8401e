"""Where the files of a published folder lie. Two layouts are in circulation, and copies with their own names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import NotFoundError, UsageError

# the vendor's file is misspelt; mirrors have both spellings
_CHECKPOINTS = ("medimageinsigt-v1.0.0.pt", "medimageinsight-v1.0.0.pt")
_TOKENIZERS = ("clip_tokenizer_4.16.2", "clip_tokenizer_v4162")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_CONFIG, _VOCABULARY, _MERGES = "config.yaml", "vocab.json", "merges.txt"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one model. ``language_model.pth``, which callers name, is never read: both towers are in
    ``checkpoint``."""

    config: Path
    checkpoint: Path
    vocabulary: Path
    merges: Path


def find(folder: Path) -> Layout:
    """Raises NotFoundError naming what is absent, UsageError where a choice would have to be guessed."""
    if not (folder / _CONFIG).is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{_CONFIG}")) if folder.is_dir() else []
        hint = f": name its folder {inside[0]} instead." if inside else ": expected the folder as it is published."
        raise NotFoundError(f"There is no {_CONFIG} in {folder}{hint}")
    tokenizer = _tokenizer(folder)
    return Layout(folder / _CONFIG, _checkpoint(folder), tokenizer / _VOCABULARY, tokenizer / _MERGES)


def _checkpoint(folder: Path) -> Path:
    places = [place for place in (folder / "vision_model", folder) if place.is_dir()]
    for place in places:
        for name in _CHECKPOINTS:
            if (place / name).is_file():
                return place / name
    for place in places:
        found = sorted(path for path in place.iterdir() if path.is_file() and path.suffix in _SUFFIXES)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise UsageError(f"{place} holds several weights files ({names}): keep the one to use, {_CHECKPOINTS[0]}.")
    raise NotFoundError(f"There is no weights file vision_model/{_CHECKPOINTS[0]} in {folder}: fetch the folder again.")


def _tokenizer(folder: Path) -> Path:
    parent = folder / "language_model"
    named = [parent / name for name in _TOKENIZERS]
    others = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    for place in (*named, parent, *others):
        if (place / _VOCABULARY).is_file() and (place / _MERGES).is_file():
            return place
    raise NotFoundError(
        f"There is no tokenizer ({_VOCABULARY} and {_MERGES}) in {parent / _TOKENIZERS[0]}: fetch the folder again."
    )
