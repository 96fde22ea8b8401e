"""Learning one head with torch, on the processor, from a seed. Stops early by a score the caller measures.

Losses: "proxy" is the normalised softmax (Zhai and Wu, "Classification is a strong baseline for deep metric learning",
BMVC 2019): a case is pulled to the direction of its value and away from the others'. "supcon" is the supervised
contrastive loss (Khosla et al., NeurIPS 2020): a case is pulled to cases that share a value. In both, cases of one
patient teach nothing about each other: what makes them alike is the patient.

Every head begins as a map that is known to be of use and is pulled back to it (L2-SP; Li et al., ICML 2018): with a few
hundred cases, what the encoder knows is worth more than what the labels add.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from retrieval.adapters.head import HeadKind, MetricHead
from retrieval.adapters.split import Members, Numbers
from retrieval.types import UnitRows

LossKind = Literal["proxy", "supcon"]
Start = Literal["identity", "whitened"]

HIDDEN = 256
TEMPERATURE = 0.1
BATCH = 256
LEARNING_RATE = 1e-3
CHECK_EVERY = 15  # steps between two looks at the validation part
PATIENCE = 5  # looks without a better one until it ends
MAX_STEPS = 450
_SHRINKAGE = 0.3  # of the covariance to a sphere, in the whitened start
_NO_GAIN = 1e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to learn. ``pull``: strength of the pull back to the start."""

    head: HeadKind
    loss: LossKind
    start: Start
    pull: float

    def __str__(self) -> str:
        return f"{self.head}, {self.loss}, {self.start} start"


@dataclass(frozen=True, slots=True)
class Lessons:
    """What is learned from: unit rows [n, dim], the values of each [n, classes], the patient of each [n]."""

    rows: UnitRows
    members: Members
    groups: Numbers


@dataclass(frozen=True, slots=True)
class Learned:
    """The best head met, and its score; ``steps`` until then, 0 when the start itself was best."""

    head: MetricHead
    score: float
    steps: int


def learn(plan: Plan, base: str, lessons: Lessons, score: Callable[[MetricHead], float], seed: int) -> Learned:
    """Learn by ``plan`` until ``score`` (greater is better, measured on the validation part) has stopped to rise."""
    import torch

    start = _start(plan, lessons.rows, seed)
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.from_numpy(array.copy()).requires_grad_() for name, array in start.items()}
    anchors = {name: weight.detach().clone() for name, weight in weights.items()}
    proxies = torch.from_numpy(_class_means(_applied_start(start, lessons), lessons.members)).requires_grad_()
    trained = [*weights.values(), proxies] if plan.loss == "proxy" else list(weights.values())
    optimiser = torch.optim.Adam(trained, lr=LEARNING_RATE)
    rows, members = torch.from_numpy(np.ascontiguousarray(lessons.rows)), torch.from_numpy(lessons.members)
    groups, chances = torch.from_numpy(lessons.groups), torch.from_numpy(_balanced(lessons.members))

    def now() -> MetricHead:
        return MetricHead(plan.head, base, {name: w.detach().numpy().copy() for name, w in weights.items()})

    best = Learned(now(), score(now()), 0)
    stale = 0
    for step in range(1, MAX_STEPS + 1):
        batch = torch.multinomial(chances, min(BATCH, len(rows)), replacement=False, generator=generator)
        mapped = _forward(weights, rows[batch])
        loss = _proxy_loss(mapped, members[batch], proxies) if plan.loss == "proxy" else _supcon_loss(
            mapped, members[batch], groups[batch]
        )  # fmt: skip
        drift = sum(((weight - anchors[name]) ** 2).sum() for name, weight in weights.items())
        optimiser.zero_grad()
        (loss + plan.pull * drift / len(anchors["bias"])).backward()
        optimiser.step()
        if step % CHECK_EVERY:
            continue
        measured = score(head := now())
        if measured > best.score + _NO_GAIN:
            best, stale = Learned(head, measured, step), 0
        elif (stale := stale + 1) >= PATIENCE:
            break
    return best


def _start(plan: Plan, rows: UnitRows, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    dim = rows.shape[1]
    weight, bias = np.eye(dim), np.zeros(dim)
    if plan.start == "whitened":
        weight, bias = whitening(rows)
    arrays = {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}
    if plan.head == "mlp":
        hidden = min(HIDDEN, 2 * dim)
        random = np.random.default_rng(seed).standard_normal((dim, hidden))
        arrays |= {  # with an outer layer of zeros it begins as the linear map
            "inner": random.astype(np.float32),
            "offset": np.zeros(hidden, np.float32),
            "outer": np.zeros((hidden, dim), np.float32),
        }
    return arrays


def whitening(rows: UnitRows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(W [dim, dim], b [dim]) that centre rows and even out their variances, shrunk towards a sphere.

    The plain linear answer to an encoder whose strongest directions are not those that matter; learned without labels.
    """
    exact = rows.astype(np.float64)
    mean = exact.mean(axis=0)
    spread, axes = np.linalg.eigh(np.cov(exact - mean, rowvar=False, bias=True))
    shrunk = (1 - _SHRINKAGE) * np.maximum(spread, 0.0) + _SHRINKAGE * max(float(spread.mean()), 1e-12)
    scales = np.sqrt(shrunk.mean() / shrunk)
    weight = axes @ np.diag(scales) @ axes.T
    return weight, -mean @ weight


def _applied_start(start: dict[str, npt.NDArray[np.float32]], lessons: Lessons) -> npt.NDArray[np.float32]:
    return cast("npt.NDArray[np.float32]", lessons.rows @ start["weight"] + start["bias"])


def _class_means(rows: npt.NDArray[np.float32], members: Members) -> npt.NDArray[np.float32]:
    """Where the proxies begin: the mean direction of each value's cases, [classes, dim]."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    means = members.T @ (unit - unit.mean(axis=0))
    return np.ascontiguousarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), np.float32)


def _balanced(members: Members) -> npt.NDArray[np.float64]:
    """Chance of each case to be drawn: every value as often as another."""
    frequency = np.maximum(members.sum(axis=0), 1.0)
    chances = (members / frequency).sum(axis=1)
    return np.asarray(chances / chances.sum(), dtype=np.float64)


def _forward(weights: dict[str, Any], rows: Any) -> Any:
    import torch

    mapped = rows @ weights["weight"] + weights["bias"]
    if "inner" in weights:
        mapped = mapped + torch.relu(rows @ weights["inner"] + weights["offset"]) @ weights["outer"]
    return torch.nn.functional.normalize(mapped, dim=1)


def _proxy_loss(mapped: Any, members: Any, proxies: Any) -> Any:
    import torch

    logits = mapped @ torch.nn.functional.normalize(proxies, dim=1).T / TEMPERATURE
    wanted = members / members.sum(dim=1, keepdim=True)
    return -(wanted * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()


def _supcon_loss(mapped: Any, members: Any, groups: Any) -> Any:
    import torch

    others = groups[:, None] != groups[None, :]
    alike = (members @ members.T > 0) & others
    logits = (mapped @ mapped.T / TEMPERATURE).masked_fill(~others, float("-inf"))
    asked = alike.any(dim=1)
    if not bool(asked.any()):
        return mapped.sum() * 0.0
    logits, alike = logits[asked], alike[asked]
    chances = (logits - torch.logsumexp(logits, dim=1, keepdim=True)).masked_fill(~alike, 0.0)
    return -(chances.sum(dim=1) / alike.sum(dim=1)).mean()
