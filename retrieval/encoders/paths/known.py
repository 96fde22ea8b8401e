"""The paths there are, in the order they are tried: what costs least to build comes first."""

from __future__ import annotations

from retrieval.encoders.paths import exported, torch_paths
from retrieval.encoders.paths.base import FastPath

KNOWN_PATHS = (
    FastPath("torch-float16", torch_paths.float16, torch_paths.on_gpu),
    FastPath("torch-bfloat16", torch_paths.bfloat16, torch_paths.has_bfloat16),
    FastPath("openvino-bfloat16", exported.openvino_bfloat16, exported.on_cpu_with_bfloat16),
    FastPath("openvino-float32", exported.openvino_float32, exported.on_cpu, single=True),
    FastPath("onnxruntime-float32", exported.onnx_runtime, exported.on_cpu, single=True),
    FastPath("torch-compiled-reduced", torch_paths.compiled_reduced, torch_paths.on_gpu_or_bfloat16, thorough=True),
    FastPath("torch-compiled-float32", torch_paths.compiled_float32, single=True, thorough=True),
)
