"""Names of the tensors: as checkpoints have them, of either style, and as the modules here have them.

Checkpoints in circulation have the published names (``image_encoder.blocks.0.0.spatial_block.ffn.norm.bias``) or an
older style (``visual.main_blocks.0.0.0.norm2.bias``). Everything is told to the user in published names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from retrieval.errors import UsageError

_ROOTS = {"visual": "image_encoder", "text": "lang_encoder"}
_PROJECTIONS = {"vision_projection": "image_projection", "text_projection": "lang_projection"}
_PARTS = {"conv_embeds": "convs", "main_blocks": "blocks"}
_BLOCKS = {"0": ("spatial_block", "window_attn"), "1": ("channel_block", "channel_attn")}
_OLD_BLOCK = re.compile(r"(image_encoder\.blocks\.\d+\.\d+)\.([01])\.(cpe\.[01]\.proj|attn|mlp|norm1|norm2)\.(.+)")
_TEXT_BLOCK = re.compile(r"(lang_encoder\.resblocks\.\d+)\.(self_attn|norm1|norm2|linear1|linear2)\.?(.*)")
_TEXT_LAYERS = {
    "self_attn": "attn",
    "norm1": "ln_1",
    "norm2": "ln_2",
    "linear1": "mlp.c_fc",
    "linear2": "mlp.c_proj",
}
_TIMM_LAYER = re.compile(
    r"(image_encoder\.blocks\.\d+\.\d+)\.(spatial|channel)_block\.(cpe1\.proj|cpe2\.proj|attn|mlp|norm1|norm2)\.(.+)"
)


def published(name: str) -> str:
    """The published name of a tensor in a checkpoint of either style; a name of neither is left as it is."""
    root, _, rest = name.partition(".")
    if not rest:
        return _PROJECTIONS.get(name, name)
    root = _ROOTS.get(root, root)
    if root != "image_encoder":
        return f"{root}.{rest}"
    part, _, rest = rest.partition(".")
    name = f"{root}.{_PARTS.get(part, part)}" + (f".{rest}" if rest else "")
    if old := _OLD_BLOCK.fullmatch(name):
        where, kind, layer, tensor = old.groups()
        block, attention = _BLOCKS[kind]
        return f"{where}.{block}.{_layer(layer, attention)}.{tensor}"
    return name


def published_of_module(name: str) -> str:
    """The published name of a tensor of the modules built here (timm's blocks, torch's transformer layers)."""
    if block := _TIMM_LAYER.fullmatch(name):
        where, kind, layer, tensor = block.groups()
        attention = "window_attn" if kind == "spatial" else "channel_attn"
        return f"{where}.{kind}_block.{_layer(layer, attention)}.{tensor}"
    if block := _TEXT_BLOCK.fullmatch(name):
        where, layer, tensor = block.groups()
        return f"{where}.{_TEXT_LAYERS[layer]}.{tensor}"
    return name


def published_names(names: Iterable[str]) -> dict[str, str]:
    """Published name -> name in the checkpoint. UsageError where a checkpoint has one tensor under two names."""
    table: dict[str, str] = {}
    for name in names:
        other = table.setdefault(published(name), name)
        if other != name:
            raise UsageError(f"The weights hold one tensor under two names, {other} and {name}: fetch them again.")
    return table


def _layer(name: str, attention: str) -> str:
    return {
        "cpe.0.proj": "conv1.fn.dw",
        "cpe1.proj": "conv1.fn.dw",
        "cpe.1.proj": "conv2.fn.dw",
        "cpe2.proj": "conv2.fn.dw",
        "attn": f"{attention}.fn",
        "norm1": f"{attention}.norm",
        "mlp": "ffn.fn.net",
        "norm2": "ffn.norm",
    }[name]
