"""Any image tower as a file of torch.export (``.pt2``) or TorchScript (``.pt``) with a card beside it: ``torch:PATH``.

Such a file is a program and is trusted like one. So its card must state its SHA-256, which whoever installs it writes
there ('precedent encoders card PATH' does): a file that was changed or swapped since is refused unopened.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.encoders.base import Encoder, EncoderCard, KnownEncoder
from retrieval.encoders.files.card import ModelCard, card_of, check_pinned, file_sha256, pooled, weights_sha256
from retrieval.encoders.several_windows import several_windows
from retrieval.encoders.tower import ImageTower, choose_device, inference
from retrieval.encoders.volumes.files import known_volumes, torch_volumes
from retrieval.encoders.weights import absolute, one_line
from retrieval.errors import UsageError

if TYPE_CHECKING:
    import torch

Forward = Callable[["torch.Tensor"], "torch.Tensor"]


def known() -> Sequence[KnownEncoder]:
    notes = "torch.export or TorchScript, a program: trust it as one; with a card beside it, written by " + (
        "'precedent encoders card PATH'"
    )
    own = KnownEncoder("torch:PATH", None, None, "as its card", notes=notes, recipe_name="as its card")
    return (own, *known_volumes())


def full_spec(rest: str) -> str:
    """The path made absolute, so that a gallery opens from any folder."""
    return str(absolute(rest))


def open_encoder(rest: str, device: str | None) -> Encoder:
    """``rest``: a path."""
    if not rest:
        raise UsageError("Expected torch:PATH, such as torch:/models/tower.pt2; the path is empty.")
    chosen = choose_device(device)
    path = Path(full_spec(rest))
    stated = card_of(path, f"torch:{rest}")
    own = _vouched(stated, path)
    if stated.text is not None or stated.input or stated.output:
        raise UsageError(
            f"The card of {path} has 'text', 'input' or 'output', which are for ONNX files: take them out."
        )
    program, batch = (
        _exported(path, chosen, 1 + len(stated.input_shape)) if path.suffix == ".pt2" else (_script(path, chosen), None)
    )
    forward = _rows(program, batch, stated)
    card = EncoderCard(
        name=stated.name,
        spec=f"torch:{path}",
        dim=stated.dim,
        recipe=stated.recipe,
        weights_sha256=weights_sha256(stated, [own]),
        licence=stated.licence,
        logit_scale=stated.logit_scale,
        notes=stated.notes,
        kind="2D" if stated.volume is None else "3D",
        volume=stated.volume,
    )
    _try(forward, stated, chosen, path)
    if stated.volume is not None:
        return torch_volumes(card, forward, chosen)
    tower = ImageTower(card, forward, chosen)
    return several_windows(tower, card)


def _vouched(stated: ModelCard, path: Path) -> str:
    own = file_sha256(path)
    if not stated.sha256:
        raise UsageError(
            f"The card of {path} does not state its SHA-256. A file of torch is a program: if you trust this one, "
            f'write "sha256": "{own}" on its card.'
        )
    check_pinned(stated, path, own)
    return own


def _exported(path: Path, device: torch.device, axes: int) -> tuple[Any, int | None]:
    """The program as a module, and its batch where that is fixed."""
    import torch

    try:
        program = torch.export.load(str(path))
        inputs = program.graph_signature.user_inputs
        shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs]
        module: Any = program.module().to(device)
    except Exception as error:
        raise UsageError(f"The file {path} is not a program of torch.export ({one_line(error)}).") from error
    if len(shapes) != 1 or len(shapes[0]) != axes:
        raise UsageError(
            f"The program {path} must take one batch of {axes} axes; it takes {[list(s) for s in shapes]}."
        )
    fixed = shapes[0][0]
    return module, fixed if isinstance(fixed, int) else None


def _script(path: Path, device: torch.device) -> Any:
    import torch

    try:
        with warnings.catch_warnings():  # torch urges its users on to torch.export; files there are remain readable
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:
        raise UsageError(
            f"The file {path} is not TorchScript ({one_line(error)}): a file of weights alone is opened as "
            "timm:NAME@PATH; a program of torch.export ends in .pt2."
        ) from error


def _rows(program: Any, batch: int | None, stated: ModelCard) -> Forward:
    """From inputs [n, channels, rows, columns] to rows [n, dim], whatever the program's layout, batch and output."""
    import torch

    def whole(images: torch.Tensor) -> torch.Tensor:
        output = program(images if stated.layout == "NCHW" else images.permute(0, 2, 3, 1).contiguous())
        if not isinstance(output, torch.Tensor):
            raise UsageError(
                f"The model '{stated.name}' gives a {type(output).__name__}, not one tensor: export it so."
            )
        rows: torch.Tensor = pooled(output, stated)
        return rows

    def in_parts(images: torch.Tensor) -> torch.Tensor:
        size = batch or 1
        parts = []
        for part in images.split(size):
            short = size - len(part)
            filled = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
            parts.append(whole(filled)[: len(part)])
        return torch.cat(parts)

    return in_parts if batch else whole


def _try(forward: Forward, stated: ModelCard, device: torch.device, path: Path) -> None:
    """One empty frame, so that a card that does not fit is told now."""
    import torch

    prepared = stated.recipe
    shape = (1, *(stated.input_shape if stated.volume else (prepared.channels, *prepared.size)))
    try:
        with inference():
            forward(torch.zeros(shape, device=device))
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"The program {path} does not take an input of shape {list(shape)} ({stated.layout}) as its card prepares "
            f"it ({one_line(error)}): mend size, channels or layout on the card."
        ) from error
