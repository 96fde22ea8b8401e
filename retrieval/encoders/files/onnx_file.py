"""Any image tower as an ONNX file with a card beside it: ``onnx:PATH``. Runs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.encoders.base import Encoder, EncoderCard, KnownEncoder, unit_rows
from retrieval.encoders.carded import Carded
from retrieval.encoders.files.card import ModelCard, beside, card_of, check_pinned, file_sha256, pooled, weights_sha256
from retrieval.encoders.onnx_options import session_options
from retrieval.encoders.recipe import Input, apply
from retrieval.encoders.several_windows import several_windows
from retrieval.encoders.volumes.files import onnx_volumes
from retrieval.encoders.weights import absolute, one_line
from retrieval.errors import MissingExtra, UsageError
from retrieval.types import Image, UnitRows

BATCH = 16  # frames a time, unless the model has a batch of its own
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
          "tensor(int32)": np.int32}  # fmt: skip
_LIBRARIES = ("onnxruntime", "onnx")

Feed = dict[str, npt.NDArray[Any]]


def known() -> Sequence[KnownEncoder]:
    lacking = [name for name in _LIBRARIES if find_spec(name) is None]
    missing = f"the library '{lacking[0]}': pip install 'precedent[onnx]'" if lacking else ""
    notes = "with a card beside it; 'precedent encoders card PATH' writes one"
    return (KnownEncoder("onnx:PATH", None, None, "as its card", missing, notes=notes, recipe_name="as its card"),)


def full_spec(rest: str) -> str:
    """The path made absolute, so that a gallery opens from any folder."""
    return str(absolute(rest))


def open_encoder(rest: str, device: str | None) -> Encoder:
    """``rest``: a path. ``device``: "cpu", or "cuda" where ONNX Runtime has it."""
    if not rest:
        raise UsageError("Expected onnx:PATH, such as onnx:/models/tower.onnx; the path is empty.")
    for library in _LIBRARIES:
        if find_spec(library) is None:
            raise MissingExtra(library, "onnx")
    path = Path(full_spec(rest))
    stated = card_of(path, f"onnx:{rest}")
    own = file_sha256(path)
    check_pinned(stated, path, own)
    files = [own, *(file_sha256(beside(path, name)) for name in _external(path))]
    session = _session(path, device)
    inputs = _image_input(session, stated, path)
    card = EncoderCard(
        name=stated.name,
        spec=f"onnx:{path}",
        dim=stated.dim,
        recipe=stated.recipe,
        weights_sha256=weights_sha256(stated, files),
        licence=stated.licence,
        text=stated.text is not None,
        logit_scale=stated.logit_scale,
        notes=stated.notes,
        kind="2D" if stated.volume is None else "3D",
        volume=stated.volume,
    )
    if stated.volume is not None:
        return _volumes(card, stated, session, inputs)
    if stated.text is None:
        tower = OnnxTower(card, stated, session, inputs)
    else:
        words = _tokenizer(path, stated)
        tower = OnnxTowers(card, stated, session, inputs, _session(beside(path, stated.text.file), device), words)
    tower.run([np.zeros((*stated.recipe.size, stated.recipe.channels), np.float32)])  # its output is that of the card
    return several_windows(tower, card)


class OnnxTower(Carded):
    """Runs a session; safe from several threads. A batch that is fixed in the model is filled up and cut again."""

    def __init__(self, card: EncoderCard, stated: ModelCard, session: Any, image: Any) -> None:
        super().__init__(card)
        self._stated = stated
        self._session = session
        self._image = image
        self._batch = image.shape[0] if isinstance(image.shape[0], int) else None
        self._output = _output(session, stated)

    def encode(self, images: Sequence[Image]) -> UnitRows:
        size = self._batch or BATCH
        parts = [images[start : start + size] for start in range(0, len(images), size)]
        rows = [self.run([apply(self._card.recipe, image) for image in part]) for part in parts]
        return np.concatenate(rows) if rows else np.empty((0, self._card.dim), np.float32)

    def run(self, inputs: Sequence[Input]) -> UnitRows:
        """Unit rows of inputs that are already as the recipe makes them; at most the model's own batch."""
        batch = np.stack(inputs)
        if self._stated.layout == "NCHW":
            batch = batch.transpose(0, 3, 1, 2)
        batch = np.ascontiguousarray(batch, _TYPES[self._image.type])
        if self._batch and len(batch) < self._batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._batch - len(batch), axis=0)])
        (output,) = self._session.run([self._output], {self._image.name: batch})
        return unit_rows(pooled(output, self._stated)[: len(inputs)])


class OnnxTowers(OnnxTower):
    """With a text tower in a file of its own."""

    def __init__(
        self,
        card: EncoderCard,
        stated: ModelCard,
        session: Any,
        image: Any,
        text: Any,
        tokenizer: Callable[[list[str]], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    ) -> None:
        super().__init__(card, stated, session, image)
        self._text = text
        self._tokenizer = tokenizer

    def encode_text(self, texts: Sequence[str]) -> UnitRows:
        """Unit rows [len(texts), card.dim]; a longer text is cut to the card's context."""
        rows = [np.empty((0, self._card.dim), np.float32)]
        for text in texts:  # one at a time, so that a batch that is fixed at 1 works as well
            ids, mask = self._tokenizer([text])
            output = self._text.run(None, _text_feed(self._text, ids, mask))[0]
            rows.append(unit_rows(pooled(output, self._stated)))
        return np.concatenate(rows)


def _volumes(card: EncoderCard, stated: ModelCard, session: Any, image: Any) -> Encoder:
    """A 3D network; one empty patch goes through, so that a card that does not fit is told now."""
    output = _output(session, stated)
    batch = image.shape[0] if isinstance(image.shape[0], int) else None

    def run(patches: npt.NDArray[np.float32]) -> Any:
        (found,) = session.run([output], {image.name: patches.astype(_TYPES[image.type])})
        return pooled(found, stated)

    run(np.zeros((batch or 1, *stated.input_shape), np.float32))
    return onnx_volumes(card, run, batch)


def _session(path: Path, device: str | None) -> Any:
    import onnxruntime

    options = session_options()
    options.use_deterministic_compute = True
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_providers(device))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"The file {path} can't be opened by ONNX Runtime ({one_line(error)}).") from error


def _providers(device: str | None) -> list[Any]:
    import onnxruntime

    offered = onnxruntime.get_available_providers()
    kind, _, number = (device or "").partition(":")
    if kind == "cpu" or (not kind and "CUDAExecutionProvider" not in offered):
        return ["CPUExecutionProvider"]
    if kind in ("", "cuda") and "CUDAExecutionProvider" in offered and (number.isdigit() or not number):
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise UsageError(f"The device '{device}' can't be used by ONNX Runtime here; it offers {', '.join(offered)}.")


def _external(path: Path) -> list[str]:
    """Names of the files that hold the model's large tensors, sorted; their bytes are weights as well."""
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise UsageError(
            f"The file {path} is not an ONNX model ({one_line(error)}): export or fetch it again."
        ) from error
    functions = (node for function in model.functions for node in function.node)
    tensors = chain(_tensors(model.graph), *map(_tensors_of_node, functions))
    return sorted({ExternalDataInfo(each).location for each in tensors if uses_external_data(each)})


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph: its initialisers, and those of nodes and of the graphs within them (If, Loop)."""
    yield from graph.initializer
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors(graph)


def _image_input(session: Any, stated: ModelCard, path: Path) -> Any:
    """The input that takes images, of a shape and type that fit the card."""
    offered = {each.name: each for each in session.get_inputs()}
    name = stated.input or (next(iter(offered)) if len(offered) == 1 else "")
    if name not in offered:
        raise UsageError(f'The model {path} has the inputs {", ".join(offered)}: name one as "input" on its card.')
    image, one = offered[name], stated.input_shape
    wrong = len(image.shape) != 1 + len(one) or any(
        isinstance(length, int) and length != asked for length, asked in zip(image.shape[1:], one, strict=False)
    )
    if wrong or image.type not in ("tensor(float)", "tensor(float16)"):
        raise UsageError(
            f"The model {path} takes {image.type} of shape {list(image.shape)}, its card prepares floats of shape "
            f"[n, {', '.join(map(str, one))}] ({stated.layout}): mend size, channels or layout on the card."
        )
    return image


def _output(session: Any, stated: ModelCard) -> str:
    names = [each.name for each in session.get_outputs()]
    chosen = stated.output or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise UsageError(
            f"The model '{stated.name}' has the outputs {', '.join(names)}: name one as \"output\" on its card."
        )
    return str(chosen)


def _tokenizer(path: Path, stated: ModelCard) -> Callable[[list[str]], Any]:
    if stated.text is None:
        raise UsageError(f"The card of {path} has no text part.")
    if find_spec("tokenizers") is None:
        raise MissingExtra("tokenizers", "onnx")
    from tokenizers import Tokenizer

    file = beside(path, stated.text.tokenizer)
    try:
        words = Tokenizer.from_file(str(file))
    except Exception as error:
        raise UsageError(f"The file {file} is not a tokenizer.json ({one_line(error)}).") from error
    words.enable_truncation(stated.text.context)
    words.enable_padding(length=stated.text.context, pad_id=stated.text.pad_id)

    def tokens(texts: list[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        found = words.encode_batch(texts)
        return np.array([each.ids for each in found]), np.array([each.attention_mask for each in found])

    return tokens


def _text_feed(session: Any, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> Feed:
    """Token ids for the first input that is no mask, the attention mask for the one named so."""
    feed: Feed = {}
    for each in session.get_inputs():
        kind = _TYPES.get(each.type, np.int64)
        if "mask" in each.name:
            feed[each.name] = mask.astype(kind)
        elif "type" in each.name:
            feed[each.name] = np.zeros_like(ids, dtype=kind)
        else:
            feed[each.name] = ids.astype(kind)
    return feed
