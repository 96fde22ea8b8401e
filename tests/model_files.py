"""Small model files, ONNX and torch, with cards beside them: a convolution, a mean over the frame, a projection."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SIDE, DIM, MAPS = 32, 12, 8
CARD = {
    "name": "small-net",
    "dim": DIM,
    "licence": "MIT",
    "recipe": {"size": [SIDE, SIDE], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
}


def write_card(model: Path, **changes: Any) -> Path:
    """A card for the model; a change to None takes the field out."""
    stated = {**CARD, **changes}
    card = model.with_name(model.name + ".card.json")
    card.write_text(json.dumps({name: value for name, value in stated.items() if value is not None}))
    return model


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights(seed: int = 0) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    random = np.random.default_rng(seed)
    shapes = {"kernel": (MAPS, 3, 3, 3), "bias": (MAPS,), "matrix": (DIM, MAPS), "offset": (DIM,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def make_onnx(
    path: Path,
    *,
    batch: int | str = "n",
    ends: str = "rows",
    layout: str = "NCHW",
    external: bool = False,
    seed: int = 0,
) -> Path:
    """``ends``: "rows" [n, 12], "maps" [n, 8, 32, 32] or "tokens" [n, 64, 128]: those reshaped."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = [batch, 3, SIDE, SIDE] if layout == "NCHW" else [batch, SIDE, SIDE, 3]
    nodes = [helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2])] if layout == "NHWC" else []
    first = "planes" if nodes else "pixels"
    nodes += [
        helper.make_node("Conv", [first, "kernel", "bias"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "offset"], ["rows"], transB=1),
        helper.make_node("Reshape", ["maps", "cut"], ["tokens"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights(seed).items()]
    tensors.append(numpy_helper.from_array(np.array([0, 64, 128], np.int64), "cut"))
    shapes = {"rows": [batch, DIM], "maps": [batch, MAPS, SIDE, SIDE], "tokens": [batch, 64, 128]}
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])
        for name in (shapes if ends == "all" else (ends,))
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "net", [pixels], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=64)
    else:
        onnx.save(model, path)
    return path


def make_text_onnx(path: Path) -> Path:
    """Token ids [1, 6] -> [1, 12]: a fixed batch, the mean of embeddings under the mask."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    table = np.random.default_rng(5).normal(size=(10, DIM)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["words", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "first"], ["rows"], keepdims=0),
    ]
    tensors = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([2]), "last"),
        numpy_helper.from_array(np.array([1]), "first"),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, 6]) for name in ("input_ids", "attention_mask")
    ]
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, [1, DIM])
    graph = helper.make_graph(nodes, "text", inputs, [rows], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def make_tokenizer(path: Path) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ("<pad>", "<unk>", "chest", "x-ray", "normal", "heart", "large")
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path))
    return path


def torch_net(ends: str = "rows", seed: int = 0) -> Any:
    """The same network in torch."""
    import torch

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, MAPS, 3, padding=1)
            self.last = torch.nn.Linear(MAPS, DIM)

        def forward(self, pixels: Any) -> Any:
            maps = torch.relu(self.conv(pixels))
            return maps if ends == "maps" else self.last(maps.mean((2, 3)))

    net = Net()
    arrays = {name: torch.from_numpy(array) for name, array in weights(seed).items()}
    net.load_state_dict(
        {
            "conv.weight": arrays["kernel"],
            "conv.bias": arrays["bias"],
            "last.weight": arrays["matrix"],
            "last.bias": arrays["offset"],
        }
    )
    return net.eval()


def make_exported(path: Path, *, batch: int | None = None, ends: str = "rows", seed: int = 0) -> Path:
    """A program of torch.export; ``batch``: a fixed one, or None for any."""
    import torch

    example = torch.zeros(batch or 2, 3, SIDE, SIDE)
    shapes = None if batch else ({0: torch.export.Dim("n", min=1, max=256)},)
    program = torch.export.export(torch_net(ends, seed), (example,), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def make_script(path: Path, *, ends: str = "rows", seed: int = 0) -> Path:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch urges its users on to torch.export
        torch.jit.trace(torch_net(ends, seed), torch.zeros(1, 3, SIDE, SIDE)).save(str(path))
    return path
