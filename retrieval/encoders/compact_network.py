"""The network of the compact encoder: a MobileNetV2 (Sandler et al., CVPR 2018), pooled at several depths.

Batch normalisation is folded into the convolutions, so a frame's vector can't depend on the frames beside it. The
network looks twice, at the frame and at its middle, mirrored, and takes the mean of what it pools. Seven blocks of the
row are general: whitened statistics of the maps and of their middles, and the roots of the covariance of the channels
at two depths (Li et al., "Towards faster training of global covariance pooling networks", CVPR 2018). The last is
trained: linear experts, each of which knows the labels of one kind of picture and is silent on pictures of other kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import nn

# expansion, channels, blocks, stride of the first block (table 2 of the paper)
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
_STEM = 32
_FINE, _TEXTURE, _PARTS, _WIDE = 5, 9, 12, 13  # blocks whose output, or for the last whose expansion, is pooled
_CHANNELS = (32, 64, 96, 576, 320, 1280)  # of the maps in ``Maps``
FINE_DIM, WIDE_DIM, DEEP_DIM, TEXTURE_DIM, PARTS_DIM = 64, 256, 256, 384, 256
GENERAL_DIM = 2 * FINE_DIM + 2 * WIDE_DIM + DEEP_DIM + TEXTURE_DIM + PARTS_DIM
_INNER = 0.75  # of the side: what the second look sees
_MIDDLE = 0.4  # of a map's side: what the blocks of the middle pool
_ORDERS = ((64, 64), (96, 48), (32, 32))  # channels and kept channels of the second-order blocks: texture, parts, fine
_RIDGE = 0.05  # added to a covariance of whitened channels before its root
_ROOT_STEPS = 6
CLOSED, OPEN = 0.15, 0.40  # cosine to the mean of an expert's kind: below the first silent, above the second heard
EXPERTS_WEIGHT = 30.0  # of an expert at its loudest in the squared length, next to 1 for each general block
_DOUBT = 0.4  # scores of this length are told at 0.7 of the loudest: an expert that is unsure says less


class Maps(NamedTuple):
    """Maps [n, channels, rows, columns], from an eighth of the frame's side to a thirty-second."""

    fine: torch.Tensor
    texture: torch.Tensor
    parts: torch.Tensor
    wide: torch.Tensor
    deep: torch.Tensor
    last: torch.Tensor


class Convolution(nn.Conv2d):
    """Convolution, bias, ReLU6. A stride of 2 pads below and right, as the weights were trained (TensorFlow's SAME)."""

    def __init__(
        self, channels: int, out: int, size: int, stride: int = 1, groups: int = 1, active: bool = True
    ) -> None:
        super().__init__(channels, out, size, stride, padding=size // 2 if stride == 1 else 0, groups=groups)
        self.active = active

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.stride[0] == 2:
            maps = functional.pad(maps, (0, 1, 0, 1))
        maps = super().forward(maps)
        return functional.relu6(maps) if self.active else maps


class Block(nn.Module):
    """An inverted residual: expand, filter in depth, project."""

    def __init__(self, channels: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = channels * expansion
        self.expand = Convolution(channels, middle, 1) if expansion > 1 else nn.Identity()
        self.depth = Convolution(middle, middle, 3, stride, groups=middle)
        self.project = Convolution(middle, out, 1, active=False)
        self.residual = stride == 1 and channels == out

    def forward(self, maps: torch.Tensor, expanded: torch.Tensor) -> torch.Tensor:
        narrowed: torch.Tensor = self.project(self.depth(expanded))
        return maps + narrowed if self.residual else narrowed


class Backbone(nn.Module):
    """The convolutions of a MobileNetV2 of width 1.0: frames [n, 3, rows, columns] in -1 to 1 -> ``Maps``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, _STEM, 3, stride=2)
        self.blocks = nn.ModuleList(_blocks())
        self.last = Convolution(320, 1280, 1)

    def forward(self, frames: torch.Tensor) -> Maps:
        maps = self.stem(frames.contiguous(memory_format=torch.channels_last))
        kept = {}
        for position, block in enumerate(self.blocks):
            expanded = block.expand(maps)
            maps = block(maps, expanded)
            kept[position] = expanded if position == _WIDE else maps
        return Maps(kept[_FINE], kept[_TEXTURE], kept[_PARTS], kept[_WIDE], maps, self.last(maps))


class Whitening(nn.Module):
    """Rows, centred and turned to the principal axes of the training frames: [n, inputs] -> unit rows [n, dim]."""

    def __init__(self, inputs: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(inputs))
        self.register_buffer("matrix", torch.zeros(inputs, dim))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return unit((rows - self.centre) @ self.matrix)


class SecondOrder(nn.Module):
    """The root of the covariance of whitened channels over the positions: [n, kept (kept + 1) / 2]."""

    def __init__(self, channels: int, kept: int) -> None:
        super().__init__()
        self.register_buffer("channels", torch.zeros(channels, kept))
        down, across = torch.triu_indices(kept, kept)
        self.register_buffer("places", down * kept + across, persistent=False)
        self.register_buffer("scales", torch.where(down == across, 1.0, 2.0**0.5), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        rows = maps.flatten(2)
        rows = self.channels.T @ (rows - rows.mean(2, keepdim=True))
        covariance = rows @ rows.transpose(1, 2) / rows.shape[2]
        identity = torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
        return root(covariance + _RIDGE * identity, identity).flatten(1)[:, self.places] * self.scales


class Experts(nn.Module):
    """Scores for the labels of each kind of picture, times how much the frame is of that kind.

    ``labels``: how many each kind has. The gate looks at the texture of a frame: on the held-out parts of all sets the
    cosine to a kind's mean is at least 0.38 for frames of that kind and at most 0.13 for other modalities.
    """

    def __init__(self, labels: Sequence[int], inputs: int, gates: int) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.register_buffer("centres", torch.zeros(len(self.labels), inputs))
        self.register_buffer("matrix", torch.zeros(inputs, sum(self.labels)))
        self.register_buffer("kinds", torch.zeros(gates, len(self.labels)))

    def forward(self, rows: torch.Tensor, texture: torch.Tensor) -> torch.Tensor:
        """``rows`` [n, inputs]; ``texture`` [n, gates], unit rows."""
        gates = ((texture @ self.kinds - CLOSED) / (OPEN - CLOSED)).clamp(0, 1)
        scores = [
            told((rows - self.centres[kind]) @ part) * gates[:, kind : kind + 1]
            for kind, part in enumerate(self.matrix.split(self.labels, dim=1))
        ]
        return torch.cat(scores, 1)


class Pooled(NamedTuple):
    """What is pooled from frames: mean and deviation of each of ``Maps``, the second-order blocks of texture, parts and
    fine, and mean and deviation over the middle of fine and wide."""

    whole: list[torch.Tensor]
    orders: list[torch.Tensor]
    middle: list[torch.Tensor]

    @property
    def heard(self) -> torch.Tensor:
        """What the experts go by."""
        return torch.cat([*self.whole, *self.orders], 1)


class CompactNetwork(nn.Module):
    """[n, 3, rows, columns] in -1 to 1 -> [n, dim]: general blocks of length 1 and the experts. ``labels`` as there."""

    def __init__(self, labels: Sequence[int]) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.orders = nn.ModuleList([SecondOrder(channels, kept) for channels, kept in _ORDERS])
        lengths = [kept * (kept + 1) // 2 for _, kept in _ORDERS]
        self.fine = Whitening(2 * _CHANNELS[0], FINE_DIM)
        self.wide = Whitening(2 * _CHANNELS[3], WIDE_DIM)
        self.deep = Whitening(2 * _CHANNELS[4], DEEP_DIM)
        self.texture = Whitening(lengths[0], TEXTURE_DIM)
        self.parts = Whitening(lengths[1], PARTS_DIM)
        self.fine_middle = Whitening(2 * _CHANNELS[0], FINE_DIM)
        self.wide_middle = Whitening(2 * _CHANNELS[3], WIDE_DIM)
        self.experts = Experts(labels, 2 * sum(_CHANNELS) + sum(lengths), lengths[0])
        self.dim = GENERAL_DIM + sum(labels)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        pooled = self.pooled(frames)
        known = self.experts(pooled.heard, unit(pooled.orders[0] - self.texture.centre))
        general = [block(rows) for block, rows in self.general(pooled)]
        return torch.cat([*general, known * EXPERTS_WEIGHT**0.5], 1)

    def general(self, pooled: Pooled) -> list[tuple[Whitening, torch.Tensor]]:
        """The general blocks in the order of the row, each with what it is made of."""
        whole, orders, middle = pooled
        return [
            (self.fine, whole[0]),
            (self.wide, whole[3]),
            (self.deep, whole[4]),
            (self.texture, orders[0]),
            (self.parts, orders[1]),
            (self.fine_middle, middle[0]),
            (self.wide_middle, middle[1]),
        ]

    def pooled(self, frames: torch.Tensor) -> Pooled:
        """The mean over both looks, so that a mirrored frame is near its own, and what is in the middle counts more."""
        looks = [self._pooled(frames), self._pooled(inner(frames, _INNER).flip(3))]
        return Pooled(*([(a + b) / 2 for a, b in zip(*lists, strict=True)] for lists in zip(*looks, strict=True)))

    def _pooled(self, frames: torch.Tensor) -> Pooled:
        maps = self.backbone(frames)
        chosen = (maps.texture, maps.parts, maps.fine)
        return Pooled(
            [spread(each) for each in maps],
            [of(each) for of, each in zip(self.orders, chosen, strict=True)],
            [spread(inner(each, _MIDDLE)) for each in (maps.fine, maps.wide)],
        )


def inner(maps: torch.Tensor, share: float) -> torch.Tensor:
    """The middle of maps, ``share`` of each side."""
    ends = ((side * (1 - share) / 2, side * (1 + share) / 2) for side in maps.shape[2:])
    rows, columns = (slice(int(first + 0.5), int(last + 0.5)) for first, last in ends)  # round() can't be traced
    return maps[:, :, rows, columns]


def spread(maps: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation over the positions of each channel, each scaled to length 1: [n, 2 channels]."""
    means = maps.mean((2, 3), keepdim=True)
    deviations = (maps - means).square().mean((2, 3)).sqrt()
    return torch.cat([unit(means.flatten(1)), unit(deviations)], 1)


def root(matrices: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
    """The square roots of positive matrices [n, d, d], by a few coupled Newton-Schulz steps: products alone."""
    scale = (matrices * identity).sum((1, 2), keepdim=True)  # the trace, in operations that every runtime has
    found, inverse = matrices / scale, identity.expand_as(matrices)
    for _ in range(_ROOT_STEPS):
        step = 1.5 * identity - 0.5 * inverse @ found
        found, inverse = found @ step, step @ inverse
    return found * scale.sqrt()


def told(scores: torch.Tensor) -> torch.Tensor:
    """Scores of an expert, shortened to a length below 1 that grows with how sure it is."""
    return scores / (scores.square().sum(1, keepdim=True) + _DOUBT**2).sqrt()


def unit(rows: torch.Tensor) -> torch.Tensor:
    return functional.normalize(rows, dim=1, eps=1e-6)


def _blocks() -> list[Block]:
    made, channels = [], _STEM
    for expansion, out, count, stride in _STAGES:
        for position in range(count):
            made.append(Block(channels, out, expansion, stride if position == 0 else 1))
            channels = out
    return made
