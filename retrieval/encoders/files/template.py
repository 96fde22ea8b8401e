"""A card to fill in for a model file: what the file itself tells, and the commonest values for the rest."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrieval.encoders.files.card import file_sha256, places
from retrieval.encoders.weights import one_line
from retrieval.errors import ConflictError, NotFoundError, UsageError

_SIDE = 224
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's


def write_template(model: Path, *, replace: bool = False) -> Path:
    """The card, written beside the model. ConflictError where there is one already, unless ``replace``."""
    if not model.is_file():
        raise NotFoundError(f"There is no model file {model}.")
    here = next((path for path in places(model) if path.is_file()), None)
    if here and not replace:
        raise ConflictError(f"There is a card already: {here}. Add --replace to write it anew.")
    card = here or places(model)[0]
    card.write_text(json.dumps(_filled(model), indent=2) + "\n", encoding="utf-8")
    return card


def _filled(model: Path) -> dict[str, Any]:
    told = _onnx(model) if model.suffix == ".onnx" else {}
    channels, size = told.pop("channels", 3), told.pop("size", [_SIDE, _SIDE])
    return {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", model.stem).strip("-.")[:64] or "model",
        "dim": told.pop("dim", 0),
        "licence": "",
        "sha256": file_sha256(model),
        **told,
        "recipe": {
            "name": "card",
            "size": size,
            "resize": "squash",
            "interpolation": "bicubic",
            "channels": channels,
            "mean": _MEAN if channels == 3 else [0.5],
            "std": _STD if channels == 3 else [0.5],
            "ct_window": [40, 400],
        },
    }


def _onnx(model: Path) -> dict[str, Any]:
    """What the model's first input and output say: names where there are several, layout, size, channels, dim, pool."""
    if find_spec("onnxruntime") is None:
        return {}
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UsageError(f"The file {model} can't be opened by ONNX Runtime ({one_line(error)}).") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    told: dict[str, Any] = {}
    if len(inputs) > 1:
        told["input"] = inputs[0].name
    if len(outputs) > 1:
        told["output"] = outputs[0].name
    if len(inputs[0].shape) == 4:
        told |= _shape(inputs[0].shape[1:])
    return told | _rows(outputs[0].shape, told.get("layout", "NCHW"))


def _shape(one: list[Any]) -> dict[str, Any]:
    last = one[0] not in (1, 3) and one[2] in (1, 3)
    channels, size = (one[2], one[:2]) if last else (one[0], one[1:])
    return {
        "layout": "NHWC" if last else "NCHW",
        "channels": channels if channels in (1, 3) else 3,
        "size": [length if isinstance(length, int) else _SIDE for length in size],
    }


def _rows(shape: list[Any], layout: str) -> dict[str, Any]:
    """The dim, and a way to pool where the output is no row."""
    if len(shape) not in (2, 3, 4):
        return {}
    dim = shape[1] if len(shape) == 2 or (len(shape) == 4 and layout == "NCHW") else shape[-1]
    pool = {} if len(shape) == 2 else {"pool": "mean"}
    return {"dim": dim if isinstance(dim, int) else 0, **pool}
