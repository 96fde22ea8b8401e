"""Per-query scores of a leave-one-patient-out ranking, in blocks: similarities, exclusion, order, measures, chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval import metrics
from retrieval.errors import UsageError
from retrieval.types import Similarities, UnitRows

BLOCK_CELLS = 1 << 22  # similarities held at a time
_STUDY = "\x00study "  # before the key of a case that is known by its study alone


@dataclass(frozen=True, slots=True)
class Cohort:
    """What is ranked: vectors [n, d], patient number [n], which values each case has [n, classes] (0 or 1)."""

    vectors: UnitRows
    patients: npt.NDArray[np.int64]
    members: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    origins: npt.NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Scores:
    """Per query: one column of scores and of chance for each measure, and P@k for each (k, class)."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]  # [queries, measures]
    chance: npt.NDArray[np.float64]  # [queries, measures]
    origin: npt.NDArray[np.float64]  # [queries, measures], NaN where the oracle is not defined
    class_precision: npt.NDArray[np.float64]  # [queries, ks, classes]
    class_chance: npt.NDArray[np.float64]  # [queries, classes]
    totals: metrics.Counts  # [queries]


def tied_by_study(patient_keys: Sequence[str], studies: Sequence[str]) -> list[str]:
    """The patient of each case ("" when unknown); where only its study is known, that of the study's other cases, else
    a key of the study, since a study is of one patient."""
    of_study = {study: key for key, study in zip(patient_keys, studies, strict=True) if key and study}
    pairs = zip(patient_keys, studies, strict=True)
    return [key or (of_study.get(study, _STUDY + study) if study else "") for key, study in pairs]


def unknown_patients(patient_keys: Sequence[str]) -> int:
    """Cases of whom no patient is known, if perhaps a study."""
    return sum(not key or key.startswith(_STUDY) for key in patient_keys)


def cohort_of(
    vectors: UnitRows,
    patient_keys: Sequence[str],
    values: Sequence[Sequence[str]],
    origins: Sequence[str] | None,
    labelled: npt.NDArray[np.int64],
) -> Cohort:
    """The labelled cases of a gallery; a case without a patient key becomes a patient of its own."""
    keys = [patient_keys[i] or f"\x00{i}" for i in labelled]  # no key: a patient of its own
    classes = tuple(sorted({value for of_case in values for value in of_case}))
    column = {value: i for i, value in enumerate(classes)}
    members = np.zeros((len(labelled), len(classes)), dtype=np.float32)
    for row, i in enumerate(labelled):
        members[row, [column[value] for value in values[i]]] = 1
    return Cohort(
        vectors=vectors[labelled],
        patients=_numbered(keys),
        members=members,
        classes=classes,
        origins=None if origins is None else _numbered([origins[i] for i in labelled]),
    )


def _numbered(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Numbers by first appearance: keyed pseudonyms sort differently in every store, and the bootstrap must not."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Block:
    """Some queries with every case ranked for each, most similar first; what may not be found stands at the end."""

    queries: npt.NDArray[np.int64]  # [q], rows of the cohort
    order: npt.NDArray[np.int64]  # [q, n], rows of the cohort by rank
    similarities: Similarities  # [q, n], by rank; -inf for what may not be found
    relevant: metrics.Ranked  # [q, n], by rank
    totals: metrics.Counts  # [q], relevant cases that could be found
    sizes: metrics.Counts  # [q], cases that could be found


def ranked_blocks(
    cohort: Cohort, queries: npt.NDArray[np.int64] | None = None, block_cells: int = BLOCK_CELLS
) -> Iterator[Block]:
    """Rank all cases of other patients for each of ``queries`` (rows of the cohort; all of them by default).

    At most ``block_cells`` similarities (or one query's) are held at a time. Ties rank by position.
    """
    asked = np.arange(len(cohort.patients), dtype=np.int64) if queries is None else queries
    step = max(1, block_cells // max(len(cohort.patients), 1))
    for start in range(0, len(asked), step):
        yield _ranked(cohort, asked[start : start + step])


def _ranked(cohort: Cohort, rows: npt.NDArray[np.int64]) -> Block:
    forbidden = cohort.patients[rows, None] == cohort.patients[None, :]  # the query itself included
    relevant = (cohort.members[rows] @ cohort.members.T > 0) & ~forbidden
    similarities = cohort.vectors[rows] @ cohort.vectors.T
    similarities[forbidden] = -np.inf
    order = np.argsort(-similarities, axis=1, kind="stable")
    return Block(
        queries=rows,
        order=order,
        similarities=np.take_along_axis(similarities, order, axis=1),
        relevant=np.take_along_axis(relevant, order, axis=1),
        totals=relevant.sum(axis=1),
        sizes=(~forbidden).sum(axis=1),
    )


def score(cohort: Cohort, ks: tuple[int, ...], block_cells: int = BLOCK_CELLS) -> Scores:
    """Every case's scores as a query against all cases of other patients; ``ks`` ascending."""
    return joined([score_block(cohort, block, ks) for block in ranked_blocks(cohort, block_cells=block_cells)])


def joined(blocks: Sequence[Scores]) -> Scores:
    """The scores of all queries. Raises ``UsageError`` when there are none."""
    if not blocks:
        raise UsageError("No case has a value of this label: check the label's name and the filter.")

    def one(name: str) -> Any:
        return np.concatenate([getattr(block, name) for block in blocks])

    fields = ("values", "chance", "origin", "class_precision", "class_chance", "totals")
    return Scores(blocks[0].names, *(one(name) for name in fields))


def score_block(cohort: Cohort, block: Block, ks: tuple[int, ...]) -> Scores:
    """The scores of some queries; ``ks`` ascending."""
    order, sizes = block.order, block.sizes
    names, values, chance, origin = [], [], [], []
    columns = _columns(block.relevant, block.totals, sizes, ks, _same_origin(cohort, block))
    for name, value, expected, oracle in columns:
        names.append(name)
        values.append(value)
        chance.append(expected)
        origin.append(oracle)
    class_precision = np.stack([_carrying(cohort, order, sizes, k) for k in ks], axis=1)
    carriers = _carriers(cohort, block.queries)
    return Scores(
        tuple(names),
        np.stack(values, axis=1),
        np.stack(chance, axis=1),
        np.stack(origin, axis=1),
        class_precision,
        carriers / np.maximum(sizes, 1)[:, None],
        block.totals,
    )


def _carriers(cohort: Cohort, queries: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How many cases of other patients carry each class, [queries, classes]."""
    of_patient = np.zeros((cohort.patients.max() + 1, len(cohort.classes)))
    np.add.at(of_patient, cohort.patients, cohort.members)
    return np.asarray(of_patient.sum(axis=0) - of_patient[cohort.patients[queries]], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _SameOrigin:
    """Per query: how many cases it may find that share its origin, and how many of these are relevant."""

    sizes: metrics.Counts
    totals: metrics.Counts


def _same_origin(cohort: Cohort, block: Block) -> _SameOrigin | None:
    if cohort.origins is None:
        return None
    same = cohort.origins[block.order] == cohort.origins[block.queries, None]
    findable = np.arange(block.order.shape[1]) < block.sizes[:, None]
    return _SameOrigin((same & findable).sum(axis=1), (same & block.relevant).sum(axis=1))


def _columns(
    ranked: metrics.Ranked, totals: metrics.Counts, sizes: metrics.Counts, ks: tuple[int, ...], same: _SameOrigin | None
) -> Iterator[tuple[str, metrics.Scores, metrics.Scores, metrics.Scores]]:
    """(name, score, chance, origin oracle) of every measure, each [queries]."""
    undefined = np.full(len(totals), np.nan)
    for k in ks:
        oracle = undefined if same is None else _origin_precision(totals, sizes, same, k)
        yield f"P@{k}", metrics.precision_at(ranked, k), metrics.chance_precision(totals, sizes, k), oracle
    last = ks[-1]
    yield f"R@{last}", metrics.recall_at(ranked, totals, last), metrics.chance_recall(totals, sizes, last), undefined
    average = metrics.average_precision(ranked, totals)
    yield "mAP", average, metrics.chance_average_precision(totals, sizes), undefined
    yield f"nDCG@{last}", metrics.ndcg_at(ranked, totals, last), metrics.chance_ndcg(totals, sizes, last), undefined


def _origin_precision(totals: metrics.Counts, sizes: metrics.Counts, same: _SameOrigin, k: int) -> metrics.Scores:
    """Expected P@k when cases of the query's origin come first, in random order, then all others."""
    near = np.minimum(same.sizes, k)
    far = np.minimum(sizes - same.sizes, k - near)
    hits = near * same.totals / np.maximum(same.sizes, 1)
    hits = hits + far * (totals - same.totals) / np.maximum(sizes - same.sizes, 1)
    return np.asarray(hits / k, dtype=np.float64)


def _carrying(cohort: Cohort, order: npt.NDArray[np.int64], sizes: metrics.Counts, k: int) -> npt.NDArray[np.float64]:
    """For each class, the share of the first k cases that carry it, [queries, classes]."""
    reached = np.arange(min(k, order.shape[1]))[None, :] < sizes[:, None]
    shares = np.einsum("qr,qrc->qc", reached, cohort.members[order[:, :k]], dtype=np.float64) / k
    return np.asarray(shares, dtype=np.float64)
