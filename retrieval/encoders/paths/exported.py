"""Paths through another runtime, which takes the network as a graph: OpenVINO and ONNX Runtime, on a CPU."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from retrieval.encoders.onnx_options import session_options
from retrieval.encoders.paths.base import Forward
from retrieval.encoders.paths.machine import Machine
from retrieval.encoders.paths.torch_paths import has_bfloat16
from retrieval.errors import MissingExtra

if TYPE_CHECKING:
    import torch


def on_cpu(device: torch.device, machine: Machine) -> bool:
    return str(device.type) == "cpu"


def on_cpu_with_bfloat16(device: torch.device, machine: Machine) -> bool:
    return on_cpu(device, machine) and has_bfloat16(device, machine)


def openvino_bfloat16(forward: Forward, example: torch.Tensor) -> Forward:
    """OpenVINO, products in bfloat16."""
    return _openvino(forward, example, "bf16")


def openvino_float32(forward: Forward, example: torch.Tensor) -> Forward:
    """OpenVINO in float32."""
    return _openvino(forward, example, "f32")


def onnx_runtime(forward: Forward, example: torch.Tensor) -> Forward:
    """ONNX Runtime in float32, any batch size. The graph is written below the temporary folder while it is read."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(library) is None:
            raise MissingExtra(library, "onnx")
    import onnxruntime
    import torch

    options = session_options()
    options.intra_op_num_threads = torch.get_num_threads()
    with TemporaryDirectory(prefix="precedent-onnx-", ignore_cleanup_errors=True) as folder, _quietly():
        file = Path(folder) / "tower.onnx"
        batch = ({0: torch.export.Dim("n", min=1, max=4096)},)
        with torch.no_grad():
            torch.onnx.export(
                as_module(forward), (_several(example),), str(file), dynamo=True, dynamic_shapes=batch, verbose=False
            )
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(pixels: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {name: pixels.numpy()})[0])

    return run


def _openvino(forward: Forward, example: torch.Tensor, precision: str) -> Forward:
    """Through the frontend itself: ``openvino.convert_model`` would report its use over the network."""
    if find_spec("openvino") is None:
        raise MissingExtra("openvino", "openvino")
    import openvino
    import torch
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with _quietly(), torch.no_grad():
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(
            as_module(forward), example_input=(_several(example),), trace_kwargs={"check_trace": False}
        )
        model = frontend.convert(frontend.load(decoder))
    model.inputs[0].get_node().set_partial_shape(openvino.PartialShape([-1, *example.shape[1:]]))
    model.validate_nodes_and_infer_types()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(pixels: torch.Tensor) -> torch.Tensor:
        (rows,) = request.infer([pixels.numpy()]).values()
        return torch.from_numpy(rows)

    return run


def _several(example: torch.Tensor) -> torch.Tensor:
    """Two inputs: with one, a tracer may take the batch for a constant."""
    return example[:1].repeat(2, *(1 for _ in example.shape[1:]))


def as_module(forward: Forward) -> torch.nn.Module:
    """``forward`` as a module, which is what can be traced; the networks it holds are parts of it."""
    import torch

    if isinstance(forward, torch.nn.Module):
        return forward

    class Tower(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(_held(forward))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return forward(pixels)

    return Tower().eval()


def _held(forward: Any) -> list[torch.nn.Module]:
    """The modules a callable works with: bound to it, given to it beforehand, or closed over."""
    import torch

    held = [getattr(forward, "__self__", None)]
    held += [cell.cell_contents for cell in getattr(forward, "__closure__", None) or ()]
    if isinstance(forward, partial):
        held += [*forward.args, *forward.keywords.values()]
        held += _held(forward.func)
    return [part for part in held if isinstance(part, torch.nn.Module)]


@contextmanager
def _quietly() -> Iterator[None]:
    """Tracing warns of what it does and of its own future; whether the graph is right is measured afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
