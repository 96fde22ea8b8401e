"""The ImageNet MobileNetV2 that the compact encoder is built on, read from its ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retrieval.encoders.compact_network import Backbone, Convolution

Array = npt.NDArray[Any]


def load_backbone(backbone: Backbone, weights: Path) -> None:
    """Gives every convolution the weights of the file, in its order.

    Raises SystemExit when the file holds another network.
    """
    kernels = _convolutions(weights)
    places = [module for module in backbone.modules() if isinstance(module, Convolution)]
    if [tuple(place.weight.shape) for place in places] != [kernel.shape for kernel, _ in kernels]:
        raise SystemExit(f"Expected a MobileNetV2 of width 1.0 in {weights.name}, found other convolutions.")
    with torch.no_grad():
        for place, (kernel, bias) in zip(places, kernels, strict=True):
            place.weight.copy_(torch.from_numpy(kernel))
            if place.bias is not None:
                place.bias.copy_(torch.from_numpy(bias))


def _convolutions(weights: Path) -> list[tuple[Array, Array]]:
    import onnx

    graph = onnx.load(str(weights)).graph
    tensors = {tensor.name: np.array(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    return [(tensors[node.input[1]], tensors[node.input[2]]) for node in graph.node if node.op_type == "Conv"]
