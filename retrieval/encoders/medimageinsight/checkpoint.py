"""Weights into modules: safetensors alone, every tensor accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.encoders.medimageinsight.keys import published_names, published_of_module
from retrieval.encoders.weights import check_keys, one_line
from retrieval.errors import UsageError

if TYPE_CHECKING:
    import torch

_POINTER = b"version https://git-lfs"


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name, whatever the file's suffix. A pickle is refused unread."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            pointer = file.read(len(_POINTER)) == _POINTER
        if pointer:
            raise UsageError(f"{path} is a pointer of git LFS, not the weights: run 'git lfs pull' in that folder.")
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(
            f"The weights file {path} is not in safetensors format ({one_line(error)}): pickled checkpoints are not "
            "read, because they can run code. Fetch the published file again, or convert yours."
        ) from error


def load(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Fill a model of the "meta" device, on the CPU, in float32. UsageError naming every tensor that does not fit."""
    names = published_names(tensors)
    modules = {published_of_module(name): name for name in model.state_dict()}
    expected = {name: model.state_dict()[module] for name, module in modules.items()}
    check_keys("this configuration", expected, {name: tensors[stored] for name, stored in names.items()})
    model.to_empty(device="cpu")
    model.load_state_dict({modules[name]: tensors[stored] for name, stored in names.items()})
