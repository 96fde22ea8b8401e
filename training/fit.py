"""The parts of the network that are learnt, each in closed form, in the order they build on one another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from retrieval.encoders.compact_network import CompactNetwork, Pooled, SecondOrder
from training.augment import view
from training.axes import Rows, balanced, channel_axes, principal
from training.data import Frames
from training.experts import fit_expert

EXPERT_SETS = ("cxr_kermany", "cxr_nih", "xray_knee_kl")
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """``views``: augmented copies of each labelled frame. ``penalty`` is per copy. Shrinkages as in ``axes``."""

    seed: int = 0
    views: int = 3
    penalty: float = 0.3
    fine_shrinkage: float = 0.1
    wide_shrinkage: float = 1.0
    deep_shrinkage: float = 1.0
    expert_sets: tuple[str, ...] = EXPERT_SETS


def fit(network: CompactNetwork, frames: Frames, plan: Plan, device: torch.device, tell: Callable[[str], None]) -> None:
    """Fills every buffer of ``network``, whose backbone is set, from the frames of training."""
    shares = balanced(frames.of_set)
    tell("channels")
    fit_channels(network, frames, shares, device)
    tell("general blocks")
    pooled = pool(network, frames.pixels, device)
    shrinkages = (
        plan.fine_shrinkage,
        plan.wide_shrinkage,
        plan.deep_shrinkage,
        None,
        None,
        plan.fine_shrinkage,
        plan.wide_shrinkage,
    )
    for (block, rows), shrinkage in zip(network.general(pooled), shrinkages, strict=True):
        centre, matrix = principal(rows.numpy(), shares, block.matrix.shape[1], shrinkage)
        _put(block.centre, centre)
        _put(block.matrix[:, : matrix.shape[1]], matrix)
    fit_experts(network, frames, plan, device, tell)


def fit_channels(network: CompactNetwork, frames: Frames, shares: Rows, device: torch.device) -> None:
    """The channel axes of the second-order blocks."""
    means: list[list[Rows]] = [[] for _ in network.orders]
    covariances: list[list[Rows]] = [[] for _ in network.orders]
    with torch.inference_mode():
        for start in range(0, len(frames), _CHUNK):
            maps = network.backbone(as_input(frames.pixels[start : start + _CHUNK]).to(device))
            for place, each in enumerate((maps.texture, maps.parts, maps.fine)):
                rows = each.flatten(2)
                mean = rows.mean(2, keepdim=True)
                means[place].append(mean.flatten(1).cpu().numpy())
                covariances[place].append(((rows - mean) @ (rows - mean).transpose(1, 2) / rows.shape[2]).cpu().numpy())
    for place, block in enumerate(network.orders):
        if not isinstance(block, SecondOrder):
            raise TypeError(f"Expected a second-order block at place {place}, got {type(block).__name__}.")
        found = channel_axes(
            np.concatenate(means[place]), np.concatenate(covariances[place]), shares, block.channels.shape[1]
        )
        _put(block.channels, found)


def fit_experts(
    network: CompactNetwork, frames: Frames, plan: Plan, device: torch.device, tell: Callable[[str], None]
) -> None:
    """One expert for each of ``plan.expert_sets``, on its frames and ``plan.views`` views of them, one mirrored."""
    first = 0
    for kind, name in enumerate(plan.expert_sets):
        tell(f"expert of {name}")
        part = frames.part(frames.of_set == frames.sets.index(name))
        copies = [part.pixels, *(shown(part, plan.seed, number) for number in range(plan.views))]
        found = [pool(network, copy, device) for copy in copies]
        rows = np.concatenate([each.heard.numpy() for each in found])
        whole, orders, _ = found[0]
        groups = [sum(each.shape[1] for each in whole), *(each.shape[1] for each in orders)]
        texture = orders[0].numpy() - network.texture.centre.cpu().numpy()
        expert = fit_expert(
            rows,
            texture / np.linalg.norm(texture, axis=1, keepdims=True),
            np.tile(part.labels, len(copies)),
            groups,
            plan.penalty * len(copies),
        )
        _put(network.experts.centres[kind], expert.centre)
        _put(network.experts.matrix[:, first : first + expert.matrix.shape[1]], expert.matrix)
        _put(network.experts.kinds[:, kind], expert.kind)
        first += expert.matrix.shape[1]


def shown(part: Frames, seed: int, number: int) -> np.ndarray:
    """A view of every frame: the first is the mirrored frame, others are drawn by seed, number and place."""
    if number == 0:
        return np.ascontiguousarray(part.pixels[:, :, ::-1])
    return np.stack(
        [view(frame, np.random.default_rng((seed, number, place))) for place, frame in enumerate(part.pixels)]
    )


def pool(network: CompactNetwork, pixels: np.ndarray, device: torch.device) -> Pooled:
    """What the network pools from frames of 8 bits [n, side, side, 3], on the CPU."""
    with torch.inference_mode():
        found = [
            network.pooled(as_input(pixels[start : start + _CHUNK]).to(device))
            for start in range(0, len(pixels), _CHUNK)
        ]
    return Pooled(*([torch.cat(each).cpu() for each in zip(*lists, strict=True)] for lists in zip(*found, strict=True)))


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """8-bit frames [n, rows, columns, 3] -> [n, 3, rows, columns] in -1 to 1, as the recipe makes them."""
    return (torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def _put(buffer: torch.Tensor, values: Rows) -> None:
    with torch.no_grad():
        buffer.copy_(torch.from_numpy(np.asarray(values, np.float32)))
