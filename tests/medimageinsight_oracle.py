"""The MedImageInsight architecture in plain NumPy and float64, straight from its description: slow, and easy to check.

It reads a checkpoint by its published names and knows nothing of the code it is compared with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

Array = npt.NDArray[np.float64]
Config = dict[str, Any]
Tensors = dict[str, npt.NDArray[Any]]


def image_rows(config: Config, tensors: Tensors, pixels: npt.NDArray[Any]) -> Array:
    """[n, 3, rows, columns] -> unit rows [n, dim]."""
    weights = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    return np.stack([_unit(_image(config, weights, frame.astype(np.float64))) for frame in pixels])


def text_rows(config: Config, tensors: Tensors, texts: list[list[int]]) -> Array:
    """Token ids, each from start to end token, without padding -> unit rows [n, dim]."""
    weights = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    return np.stack([_unit(_text(config, weights, np.array(tokens))) for tokens in texts])


def _image(config: Config, weights: dict[str, Array], frame: Array) -> Array:
    spec = config["IMAGE_ENCODER"]["SPEC"]
    maps = frame  # [channels, rows, columns]
    for stage in range(len(spec["DEPTHS"])):
        name = f"image_encoder.convs.{stage}"
        prenorm = spec["PATCH_PRENORM"][stage]
        if prenorm and stage > 0:
            maps = _norm_maps(maps, weights, f"{name}.norm")
        maps = _convolve(maps, weights, f"{name}.proj", spec["PATCH_STRIDE"][stage], spec["PATCH_PADDING"][stage])
        if not prenorm:
            maps = _norm_maps(maps, weights, f"{name}.norm")
        for block in range(spec["DEPTHS"][stage]):
            name = f"image_encoder.blocks.{stage}.{block}"
            maps = _block(maps, weights, f"{name}.spatial_block", "window_attn", spec, stage)
            maps = _block(maps, weights, f"{name}.channel_block", "channel_attn", spec, stage)
    pooled = _norm(maps.mean(axis=(1, 2)), weights, "image_encoder.norms", 1e-5)
    return pooled @ weights["image_projection"]


def _block(maps: Array, weights: dict[str, Array], name: str, attention: str, spec: Config, stage: int) -> Array:
    if spec.get("CONV_AT_ATTN", True):
        maps = maps + _depthwise(maps, weights, f"{name}.conv1.fn.dw")
    normed = _norm_maps(maps, weights, f"{name}.{attention}.norm")
    if attention == "window_attn":
        maps = maps + _windows(normed, weights, f"{name}.{attention}.fn", spec["NUM_HEADS"][stage], spec["WINDOW_SIZE"])
    else:
        by_tokens = spec.get("DYNAMIC_SCALE", True)
        maps = maps + _between_channels(normed, weights, f"{name}.{attention}.fn", spec["NUM_GROUPS"][stage], by_tokens)
    if spec.get("CONV_AT_FFN", True):
        maps = maps + _depthwise(maps, weights, f"{name}.conv2.fn.dw")
    tokens = _norm_maps(maps, weights, f"{name}.ffn.norm").transpose(1, 2, 0)
    hidden = _linear(tokens, weights, f"{name}.ffn.fn.net.fc1")
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    return maps + _linear(hidden, weights, f"{name}.ffn.fn.net.fc2").transpose(2, 0, 1)


def _windows(maps: Array, weights: dict[str, Array], name: str, heads: int, side: int) -> Array:
    """Attention within windows of side x side; maps that do not fill the last ones are padded with zeros."""
    width, rows, columns = maps.shape
    padded = np.zeros((width, -(-rows // side) * side, -(-columns // side) * side))
    padded[:, :rows, :columns] = maps
    out = np.empty_like(padded)
    for top in range(0, padded.shape[1], side):
        for left in range(0, padded.shape[2], side):
            tokens = padded[:, top : top + side, left : left + side].reshape(width, -1).T
            query, key, value = np.split(_linear(tokens, weights, f"{name}.qkv"), 3, axis=1)
            mixed = np.empty_like(tokens)
            for part in np.split(np.arange(width), heads):
                scores = query[:, part] @ key[:, part].T * len(part) ** -0.5
                mixed[:, part] = _softmax(scores) @ value[:, part]
            mixed = _linear(mixed, weights, f"{name}.proj")
            out[:, top : top + side, left : left + side] = mixed.T.reshape(width, side, side)
    return out[:, :rows, :columns]


def _between_channels(maps: Array, weights: dict[str, Array], name: str, groups: int, by_tokens: bool) -> Array:
    """Attention whose tokens are the channels of a group; scores by tokens^-0.5."""
    width, rows, columns = maps.shape
    tokens = maps.reshape(width, -1).T
    query, key, value = np.split(_linear(tokens, weights, f"{name}.qkv"), 3, axis=1)
    mixed = np.empty_like(tokens)
    scale = (len(tokens) if by_tokens else width) ** -0.5
    for part in np.split(np.arange(width), groups):
        scores = query[:, part].T @ key[:, part] * scale
        mixed[:, part] = (_softmax(scores) @ value[:, part].T).T
    return _linear(mixed, weights, f"{name}.proj").T.reshape(width, rows, columns)


def _text(config: Config, weights: dict[str, Array], tokens: npt.NDArray[Any]) -> Array:
    """Without its padding a text needs no mask: what is masked takes no part."""
    lang = config["LANG_ENCODER"]
    states = weights["lang_encoder.token_embedding.weight"][tokens]
    states = states + weights["lang_encoder.positional_embedding"][: len(tokens)]
    unseen = np.triu(np.ones((len(tokens), len(tokens)), bool), 1) & bool(lang.get("AUTOGRESSIVE", True))
    for layer in range(lang["LAYERS"]):
        name = f"lang_encoder.resblocks.{layer}"
        normed = _norm(states, weights, f"{name}.ln_1", 1e-12)
        projected = normed @ weights[f"{name}.attn.in_proj_weight"].T + weights[f"{name}.attn.in_proj_bias"]
        query, key, value = np.split(projected, 3, axis=1)
        mixed = np.empty_like(states)
        for part in np.split(np.arange(lang["WIDTH"]), lang["HEADS"]):
            scores = query[:, part] @ key[:, part].T * len(part) ** -0.5
            mixed[:, part] = _softmax(np.where(unseen, -np.inf, scores)) @ value[:, part]
        states = states + _linear(mixed, weights, f"{name}.attn.out_proj")
        hidden = _linear(_norm(states, weights, f"{name}.ln_2", 1e-12), weights, f"{name}.mlp.c_fc")
        states = states + _linear(hidden / (1 + np.exp(-1.702 * hidden)), weights, f"{name}.mlp.c_proj")
    end = int(np.argmax(tokens == tokens.max()))  # the end token has the highest number: its first place
    return _norm(states[end], weights, "lang_encoder.ln_final", 1e-12) @ weights["lang_projection"]


def _convolve(maps: Array, weights: dict[str, Array], name: str, stride: int, padding: int) -> Array:
    kernel = weights[f"{name}.weight"]
    side = kernel.shape[2]
    padded = np.pad(maps, ((0, 0), (padding, padding), (padding, padding)))
    rows, columns = ((length - side) // stride + 1 for length in padded.shape[1:])
    out = np.zeros((len(kernel), rows, columns)) + weights[f"{name}.bias"][:, None, None]
    for y in range(side):
        for x in range(side):
            seen = padded[:, y : y + stride * rows : stride, x : x + stride * columns : stride][:, :rows, :columns]
            out += np.einsum("oc,cyx->oyx", kernel[:, :, y, x], seen)
    return out


def _depthwise(maps: Array, weights: dict[str, Array], name: str) -> Array:
    kernel = weights[f"{name}.weight"]
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros_like(maps) + weights[f"{name}.bias"][:, None, None]
    for y in range(3):
        for x in range(3):
            out += kernel[:, 0, y, x, None, None] * padded[:, y : y + maps.shape[1], x : x + maps.shape[2]]
    return out


def _norm_maps(maps: Array, weights: dict[str, Array], name: str) -> Array:
    return _norm(maps.transpose(1, 2, 0), weights, name, 1e-5).transpose(2, 0, 1)


def _norm(states: Array, weights: dict[str, Array], name: str, epsilon: float) -> Array:
    centred = states - states.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _linear(states: Array, weights: dict[str, Array], name: str) -> Array:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _unit(row: Array) -> Array:
    return row / np.linalg.norm(row)
