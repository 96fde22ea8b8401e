"""What ``config.yaml`` says of a model: the shapes of both towers, and how a frame is prepared.

Every key that decides a vector is honoured or refused by name; keys of training alone are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.encoders.medimageinsight.section import Section
from retrieval.encoders.recipe import Recipe
from retrieval.encoders.weights import one_line
from retrieval.errors import UsageError

_STAGES = ("PATCH_SIZE", "PATCH_STRIDE", "PATCH_PADDING", "PATCH_PRENORM", "DIM_EMBED", "NUM_HEADS", "NUM_GROUPS")
_IMAGE_TRAINING = ("DROP_RATE", "DROP_PATH_RATE", "ENABLE_CHECKPOINT", "BASE_DIM_EMBED", "BASE_NUM_HEADS")
_TEXT_TRAINING = ("LOAD_PRETRAINED", "PRETRAINED", "PRETRAINED_LAYERS", "PRETRAINED_TOKENIZER", "DROP_PATH")
_TEXT_WITHOUT_EFFECT = ("KEY_PADDING_TOKEN", "BASE_WIDTH", "BASE_HEADS")  # the attention mask decides what is padding
_CROP_FRACTION = 0.875  # of the reference's centre crop


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of DaViT: a convolution that makes tokens, then ``depth`` pairs of attention blocks."""

    patch: int
    stride: int
    padding: int
    prenorm: bool  # whether the norm comes before the convolution
    width: int
    heads: int  # of attention within a window
    groups: int  # of attention between channels
    depth: int


@dataclass(frozen=True, slots=True)
class ImageShape:
    """What the image tower is built from. Pixels: [n, 3, rows, columns]."""

    stages: tuple[Stage, ...]
    window: int
    classes: int = 0  # of a classifier that takes no part in a vector
    conv_at_attention: bool = True
    conv_at_ffn: bool = True
    scale_by_tokens: bool = True  # channel attention by tokens^-0.5, else by width^-0.5

    @property
    def width(self) -> int:
        return self.stages[-1].width


@dataclass(frozen=True, slots=True)
class TextShape:
    """What the text tower is built from."""

    context: int
    width: int
    heads: int
    layers: int
    causal: bool


@dataclass(frozen=True, slots=True)
class Config:
    """A model, less its weights and its vocabulary. ``dim``: numbers in a vector."""

    image: ImageShape
    text: TextShape
    dim: int
    recipe: Recipe


def read_config(path: Path) -> Config:
    """Raises UsageError naming the key that is absent, malformed, or asks for what can't be done here."""
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"The file {path} is not readable YAML ({one_line(error)}): fetch it again.") from error
    if not isinstance(table, Mapping):
        raise UsageError(f"The file {path} must hold a table of settings: fetch it again.")
    root = Section(table, "")
    config = Config(
        image=_image(root.section("IMAGE_ENCODER")),
        text=_text(root.section("LANG_ENCODER")),
        dim=root.section("UNICL_MODEL").whole("DIM_PROJECTION"),
        recipe=_recipe(root),
    )
    root.section("UNICL_MODEL").must_be("STANDPARAM", True, absent=True)
    return config


def _image(section: Section) -> ImageShape:
    section.must_be("NAME", "davit_v1", absent="davit_v1")
    spec = section.section("SPEC")
    spec.must_be("STANDPARAM", True, absent=True)
    shape = ImageShape(
        stages=_stages(spec),
        window=spec.whole("WINDOW_SIZE", absent=7),
        classes=section.whole("NUM_CLASSES", absent=0, least=0),
        conv_at_attention=spec.flag("CONV_AT_ATTN", absent=True),
        conv_at_ffn=spec.flag("CONV_AT_FFN", absent=True),
        scale_by_tokens=spec.flag("DYNAMIC_SCALE", absent=True),
    )
    spec.no_others(allowed=(*_IMAGE_TRAINING, "BASE_NUM_GROUPS"))
    return shape


def _stages(spec: Section) -> tuple[Stage, ...]:
    depths = spec.wholes("DEPTHS")
    prenorms = spec.flags("PATCH_PRENORM", len(depths))
    patches, strides, widths, heads, groups = (
        spec.wholes(key, len(depths)) for key in ("PATCH_SIZE", "PATCH_STRIDE", "DIM_EMBED", "NUM_HEADS", "NUM_GROUPS")
    )
    paddings = spec.wholes("PATCH_PADDING", len(depths), least=0)
    spec.each_divides("NUM_HEADS", heads, "DIM_EMBED", widths)
    spec.each_divides("NUM_GROUPS", groups, "DIM_EMBED", widths)
    columns = zip(patches, strides, paddings, prenorms, widths, heads, groups, depths, strict=True)
    return tuple(Stage(*column) for column in columns)


def _text(section: Section) -> TextShape:
    section.must_be("NAME", "transformer", absent="transformer")
    section.must_be("TOKENIZER", "clip", absent="clip")
    section.must_be("STANDPARAM", True, absent=True)
    shape = TextShape(
        context=section.whole("CONTEXT_LENGTH", least=2),
        width=section.whole("WIDTH"),
        heads=section.whole("HEADS"),
        layers=section.whole("LAYERS"),
        causal=section.flag("AUTOGRESSIVE", absent=True),
    )
    section.each_divides("HEADS", (shape.heads,), "WIDTH", (shape.width,))
    section.no_others(allowed=(*_TEXT_TRAINING, *_TEXT_WITHOUT_EFFECT))
    return shape


def _recipe(root: Section) -> Recipe:
    """The reference's evaluation transform: squash to IMAGE_SIZE, or its centre crop where TEST.CENTER_CROP asks."""
    image = root.section("IMAGE_ENCODER")
    columns, rows = image.wholes("IMAGE_SIZE", 2)  # the reference reads it as width, height
    crop = root.section("TEST", absent={}).flag("CENTER_CROP", absent=False)
    return Recipe(
        name="medimageinsight",
        size=(columns, columns) if crop else (rows, columns),
        resize="crop" if crop else "squash",
        interpolation=root.section("AUG", absent={}).word("INTERPOLATION", absent="bicubic"),
        mean=image.numbers("IMAGE_MEAN", 3),
        std=image.numbers("IMAGE_STD", 3),
        crop_fraction=_CROP_FRACTION if crop else 1.0,
    )


def _published() -> Config:
    rows: Sequence[Sequence[Any]] = (
        (7, 4, 3, False, 256, 8, 8, 1),
        (3, 2, 1, True, 512, 16, 16, 1),
        (3, 2, 1, True, 1024, 32, 32, 9),
        (3, 2, 1, True, 2048, 64, 64, 1),
    )
    recipe = Recipe(name="medimageinsight", size=(480, 480), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    image = ImageShape(tuple(Stage(*row) for row in rows), window=12)
    return Config(image, TextShape(context=77, width=1024, heads=16, layers=16, causal=False), 1024, recipe)


PUBLISHED = _published()  # the vendor's configuration of 2024-09-27
