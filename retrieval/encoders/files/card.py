"""The card of a model file: what ``onnx:PATH`` and ``torch:PATH`` need to know and no such file says.

``PATH.card.json`` (or ``STEM.card.json``) beside the model. Every field is checked; one that is not known is refused,
because a misspelt field would be one that silently has no effect.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from retrieval.encoders.files.checked import checked
from retrieval.encoders.recipe import RawRecipe, Recipe
from retrieval.encoders.volumes.recipe import PUBLISHED, VolumeRecipe
from retrieval.encoders.volumes.tower import frame_recipe
from retrieval.encoders.weights import one_line
from retrieval.errors import NotFoundError, UsageError

SUFFIX = ".card.json"
LAYOUTS = ("NCHW", "NHWC")
POOLS = ("none", "mean", "cls")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text tower in a file beside the model: ``tokenizer`` is a ``tokenizer.json``, ``context`` in tokens."""

    file: str
    tokenizer: str
    context: int = 77
    pad_id: int = 0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card says.

    ``layout`` of the input. ``pool``: how tokens [n, t, d] or maps become one row: "mean", "cls" (the first token), or
    "none" for a model that gives rows already. ``input``, ``output``: names, where the model has several. ``sha256``:
    of the model file; another file is then refused. ``recipe``: the fields of a ``Recipe``; with ``"intensities":
    "raw"`` those of a ``RawRecipe``. ``volume``, in place of ``recipe``, for a 3D network: the fields of a
    ``VolumeRecipe``, or the name of a published one.
    """

    name: str
    dim: int
    recipe: Recipe
    licence: str = ""
    layout: str = "NCHW"
    pool: str = "none"
    input: str = ""
    output: str = ""
    sha256: str = ""
    logit_scale: float | None = None
    text: TextPart | None = None
    notes: str = field(default="", compare=False)
    volume: VolumeRecipe | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, without the batch: channels and sizes in the order of ``layout``."""
        if self.volume is not None:
            return (self.volume.channels, *self.volume.patch)
        channels, size = self.recipe.channels, self.recipe.size
        return (channels, *size) if self.layout == "NCHW" else (*size, channels)

    def __post_init__(self) -> None:
        faults = [
            (not _NAME.fullmatch(self.name), f"name must be letters, digits, '.', '_' or '-', got '{self.name}'"),
            (self.dim < 1, f"dim must be at least 1, got {self.dim}"),
            (self.layout not in LAYOUTS, f"layout must be one of {', '.join(LAYOUTS)}, got '{self.layout}'"),
            (self.pool not in POOLS, f"pool must be one of {', '.join(POOLS)}, got '{self.pool}'"),
            (bool(self.sha256) and not _HEX.fullmatch(self.sha256), "sha256 must be 64 lower-case hex digits"),
            (self.logit_scale is not None and self.logit_scale <= 0, f"logit_scale must be over 0: {self.logit_scale}"),
            (self.volume is not None and self.layout != "NCHW", "layout of a 3D network must be NCHW: channels first"),
            (self.volume is not None and self.text is not None, "a 3D network has no text part here"),
            (self.text is not None and self.text.context < 1, "text.context must be at least 1 token"),
        ]
        for wrong, sentence in faults:
            if wrong:
                raise ValueError(sentence)


def card_of(model: Path, spec: str) -> ModelCard:
    """The card beside a model file. NotFoundError when one of the two is absent, UsageError for what is wrong in it."""
    if not model.is_file():
        raise NotFoundError(f"There is no model file {model}: check the path in '{spec}'.")
    file = next((path for path in places(model) if path.is_file()), None)
    if file is None:
        raise NotFoundError(
            f"There is no card {places(model)[0]}: a model file does not say how images are prepared for it. "
            f"'precedent encoders card {model}' writes one to fill in."
        )
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"The card {file} is not readable JSON ({one_line(error)}).") from error
    try:
        return _parsed(stated)
    except (ValueError, UsageError) as error:
        raise UsageError(f"The card {file} can't be used: {str(error).rstrip('.')}.") from error


def places(model: Path) -> tuple[Path, Path]:
    """Where the card of a model may lie; the first wins."""
    return model.with_name(model.name + SUFFIX), model.with_name(model.stem + SUFFIX)


def _parsed(stated: Any) -> ModelCard:
    """ValueError with a sentence for whatever does not fit."""
    volume = _volume(stated)
    values = _fields_of(ModelCard, stated if volume is None else {**stated, "recipe": {}}, "the card")
    parts: dict[str, Any] = {"recipe": _frames(values["recipe"])} if volume is None else {"volume": volume}
    if volume is not None:
        parts["recipe"] = frame_recipe(volume)
    if values.get("text") is not None:
        parts["text"] = TextPart(**_typed(TextPart, values["text"], "text"))
    plain = {name: value for name, value in values.items() if name not in ("recipe", "text", "volume")}
    hints = get_type_hints(ModelCard)
    return ModelCard(**{name: checked(hints[name], value, name) for name, value in plain.items()}, **parts)


def _frames(recipe: Any) -> Recipe:
    if not isinstance(recipe, dict):
        raise ValueError("recipe must be an object with the fields of a recipe")
    kind = recipe.pop("intensities", "display")
    if kind not in ("display", "raw"):
        raise ValueError(f"recipe.intensities must be 'display' or 'raw', got '{kind}'")
    recipe_type = RawRecipe if kind == "raw" else Recipe
    return recipe_type(**_typed(recipe_type, {"name": "card", **recipe}, "recipe"))


def _volume(stated: Any) -> VolumeRecipe | None:
    """The recipe of a card of kind 3D, stated or by the name of a published one."""
    said = stated.get("volume") if isinstance(stated, dict) else None
    if said is None:
        return None
    if "recipe" in stated:
        raise ValueError("a card has a recipe, for frames, or a volume, for 3D networks, not both")
    if isinstance(said, str):
        if said not in PUBLISHED:
            raise ValueError(f"volume must be one of {', '.join(PUBLISHED)}, or the fields of a recipe, got '{said}'")
        return PUBLISHED[said]
    if not isinstance(said, dict):
        raise ValueError("volume must be an object with the fields of a recipe of volumes, or the name of one")
    return VolumeRecipe(**_typed(VolumeRecipe, {"name": "card", **said}, "volume"))


def _fields_of(kind: type[Any], stated: Any, where: str) -> dict[str, Any]:
    """The stated values, each of a known field, none that is needed left out."""
    if not isinstance(stated, dict):
        raise ValueError(f"{where} must be a JSON object")
    known = {each.name: each for each in fields(kind)}
    if unknown := sorted(stated.keys() - known.keys()):
        raise ValueError(f"{where} has no field '{unknown[0]}'; its fields are {', '.join(known)}")
    needed = [name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING]
    if missing := [name for name in needed if name not in stated]:
        raise ValueError(f"{where} lacks '{missing[0]}'; needed are {', '.join(needed)}")
    return dict(stated)


def _typed(kind: type[Any], stated: Any, where: str) -> dict[str, Any]:
    hints = get_type_hints(kind)
    values = _fields_of(kind, stated, where)
    return {name: checked(hints[name], value, f"{where}.{name}") for name, value in values.items()}


def beside(model: Path, name: str) -> Path:
    """A file that a card names, which must lie in the model's folder."""
    path = (model.parent / name).resolve()
    if not path.is_relative_to(model.parent.resolve()):
        raise UsageError(f"The card of {model} names '{name}', which is outside its folder: put it beside the model.")
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}, which the card or the model beside it names.")
    return path


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def weights_sha256(card: ModelCard, files: Sequence[str]) -> str:
    """Over the hashes of the model's files and all the card says of how its output is read."""
    reading: Mapping[str, Any] = {
        "layout": card.layout, "pool": card.pool, "input": card.input, "output": card.output, "files": list(files)
    }  # fmt: skip
    return hashlib.sha256(json.dumps(reading, sort_keys=True).encode()).hexdigest()


def check_pinned(card: ModelCard, model: Path, found: str) -> None:
    """UsageError when the file is not the one the card was written for."""
    if card.sha256 and card.sha256 != found:
        raise UsageError(
            f"The file {model} has SHA-256 {found}, its card says {card.sha256}: it is another file or was changed. "
            "Fetch the right one, or write that hash on the card if you trust this one."
        )


def pooled(output: Any, card: ModelCard) -> Any:
    """Rows [n, dim] of what a model gave (an array or a tensor). UsageError naming a shape that is no row."""
    shape = tuple(int(length) for length in output.shape)
    rows = output
    if len(shape) == 5 and card.pool == "mean":
        rows = output.mean((2, 3, 4))
    elif len(shape) == 4 and card.pool == "mean":
        rows = output.mean((2, 3) if card.layout == "NCHW" else (1, 2))
    elif len(shape) == 3 and card.pool in ("mean", "cls"):
        rows = output.mean(1) if card.pool == "mean" else output[:, 0]
    if len(rows.shape) != 2 or rows.shape[1] != card.dim:
        hint = ' Tokens and maps need "pool": "mean" or "cls" on the card.' if len(shape) > 2 else ""
        raise UsageError(
            f"The model '{card.name}' gives an output of shape {list(shape)}, which with pool '{card.pool}' is not "
            f"rows of the {card.dim} numbers its card states.{hint}"
        )
    return rows
