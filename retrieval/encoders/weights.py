"""Weights on disk: where they are, how they are read, how they are named. torch is imported only when they are read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    import torch

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".tar")  # safetensors first: they can hold nothing but arrays
_SHOWN_KEYS = 5


def absolute(path: str | Path) -> Path:
    """The path from the root, so that a gallery opens from any folder. Links are kept: what belongs to a model lies
    beside its name, and not where a link leads (caches keep files under their hashes, without a suffix)."""
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 (resolve() follows links)


def find_checkpoint(path: Path) -> Path:
    """The weights file: ``path`` itself, or the only one of the best kind in the folder ``path``."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise NotFoundError(f"There is no weights file or folder at {path}: check the path after '@'.")
    for suffix in _SUFFIXES:
        found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix == suffix)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(file.name for file in found)
            raise UsageError(f"The folder {path} holds several weights files ({names}): name one of them instead.")
    raise NotFoundError(f"The folder {path} holds no weights file ({', '.join(_SUFFIXES)}).")


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, on the CPU. Pickles are read with ``weights_only``: no code in them runs."""
    import timm.models

    try:
        state = timm.models.load_state_dict(str(path), use_ema=False, device="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(f"The weights file {path} can't be read ({one_line(error)}): fetch it again.") from error
    if not isinstance(state, Mapping) or not state or not all(hasattr(value, "shape") for value in state.values()):
        raise UsageError(f"The weights file {path} holds no table of tensors: expected a state dict.")
    return dict(state)


def read_object(path: Path, library: str) -> Mapping[str, Any]:
    """The JSON object that ``library`` wrote beside weights. UsageError when it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The file {path} is not readable JSON ({one_line(error)}): fetch it again.") from error
    if not isinstance(found, dict):
        raise UsageError(f"The file {path} must hold a JSON object, as {library} writes it.")
    return found


def state_sha256(state: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """SHA-256 over the configuration and each tensor's name, type, shape and bytes, in order of name.

    One value whatever file the weights came from. The configuration counts because it decides what no tensor shows,
    such as the activation or the number of heads.
    """
    import torch

    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def check_keys(what: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> None:
    """UsageError naming what is missing, extra or of another shape, unless the two tables fit exactly."""
    faults = []
    for word, names in (("missing", expected.keys() - got.keys()), ("unexpected", got.keys() - expected.keys())):
        if names:
            faults.append(f"{len(names)} {word} ({_some(sorted(names))})")
    both = expected.keys() & got.keys()
    shapes = [f"{name} {tuple(got[name].shape)}" for name in sorted(both) if got[name].shape != expected[name].shape]
    if shapes:
        faults.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if faults:
        raise UsageError(
            f"The weights do not fit {what}: {'; '.join(faults)}. Check that name and weights belong together."
        )


def check_loaded(what: str, report: Mapping[str, Any], absent: tuple[str, ...], extra: tuple[str, ...]) -> None:
    """As ``check_keys``, for what transformers reports after loading. ``absent``, ``extra``: parts of names that may be
    missing from, or may be unexpected in, the file."""
    faults = []
    for word, kind, spare in (("missing", "missing_keys", absent), ("unexpected", "unexpected_keys", extra)):
        names = sorted(name for name in report[kind] if not set(name.split(".")) & set(spare))
        if names:
            faults.append(f"{len(names)} {word} ({_some(names)})")
    if shapes := sorted(str(each[0]) for each in report["mismatched_keys"]):
        faults.append(f"{len(shapes)} of another shape ({_some(shapes)})")
    if faults:
        raise UsageError(
            f"The weights do not fit {what}: {'; '.join(faults)}. Check that configuration and weights belong together."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN_KEYS]) + (", ..." if len(names) > _SHOWN_KEYS else "")


def one_line(error: BaseException) -> str:
    """The first line of what a library says, short enough for a sentence."""
    text = str(error).strip().splitlines()
    return (text[0].rstrip(".")[:200] if text else "") or type(error).__name__


def cached_on_hub(repository: str) -> bool:
    """Whether the hub's cache on this machine holds weights of ``ORGANISATION/NAME``; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    names = (
        "model.safetensors",
        "model.safetensors.index.json",
        "open_clip_model.safetensors",
        "pytorch_model.bin",
        "open_clip_pytorch_model.bin",
    )
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)
