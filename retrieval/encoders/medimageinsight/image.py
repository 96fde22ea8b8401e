"""The image tower: DaViT (Ding et al. 2022, arXiv:2204.03645) of timm's attention blocks.

timm's own ``DaVit`` fixes the strides and paddings of its convolutions and ties the groups to the heads; here both come
from the configuration. Modules are torch's and timm's throughout; only their order is decided here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from retrieval.encoders.medimageinsight.config import ImageShape, Stage

if TYPE_CHECKING:
    import torch

_CHANNELS = 3
_EPSILON = 1e-5


def build_image_tower(shape: ImageShape) -> torch.nn.Module:
    """The tower with weights not yet loaded: ``convs``, ``blocks`` and ``norms``, as checkpoints name them."""
    from torch import nn

    tower = nn.Module()
    widths = (_CHANNELS, *(stage.width for stage in shape.stages))
    tower.convs = nn.ModuleList(_embedding(stage, width) for stage, width in zip(shape.stages, widths, strict=False))
    tower.blocks = nn.ModuleList(
        nn.Sequential(*(_pair(stage, shape) for _ in range(stage.depth))) for stage in shape.stages
    )
    tower.norms = nn.LayerNorm(shape.width, eps=_EPSILON)
    if shape.classes:
        tower.head = nn.Linear(shape.width, shape.classes)
    return tower


def image_features(tower: Any, shape: ImageShape, pixels: torch.Tensor) -> torch.Tensor:
    """[n, 3, rows, columns] -> [n, width]: the stages, the mean over tokens, the norm."""
    for index, (embed, blocks) in enumerate(zip(tower.convs, tower.blocks, strict=True)):
        # the reference norms tokens alone: a norm before the first convolution is in its checkpoints and never applied
        idle_norm = index == 0 and shape.stages[0].prenorm
        pixels = blocks(embed.proj(pixels) if idle_norm else embed(pixels))
    features: torch.Tensor = tower.norms(pixels.mean(dim=(2, 3)))
    return features


def _embedding(stage: Stage, channels: int) -> torch.nn.Module:
    from timm.layers import LayerNorm2d
    from torch import nn

    convolution = nn.Conv2d(channels, stage.width, stage.patch, stage.stride, stage.padding)
    norm = LayerNorm2d(channels if stage.prenorm else stage.width, eps=_EPSILON)
    layers = [("norm", norm), ("proj", convolution)]
    return nn.Sequential(OrderedDict(layers if stage.prenorm else layers[::-1]))


def _pair(stage: Stage, shape: ImageShape) -> torch.nn.Module:
    """Attention within windows (maps are padded up to the window), then attention between channels."""
    from timm.models.davit import ChannelBlock, SpatialBlock
    from torch import nn

    spatial = SpatialBlock(stage.width, stage.heads, window_size=shape.window)
    channel = ChannelBlock(stage.width, stage.groups, qkv_bias=True, v2=True)
    if not shape.scale_by_tokens:
        channel.attn.dynamic_scale = False
        channel.attn.head_dim = stage.width  # the reference scales by the whole width, timm by that of a group
    for block in (spatial, channel):
        if not shape.conv_at_attention:
            block.cpe1 = nn.Identity()
        if not shape.conv_at_ffn:
            block.cpe2 = nn.Identity()
    return nn.Sequential(OrderedDict(spatial_block=spatial, channel_block=channel))
