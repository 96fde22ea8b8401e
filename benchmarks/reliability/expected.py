"""What a gallery should answer, from a dictionary and a matrix product: written to be obviously right, not fast."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from benchmarks.reliability.sessions import Asked
from retrieval.types import Attributes, Case, CaseKind, EmbeddedCase, Embedding, GroupBy, Label, SamePatient

DIM = 486  # of the classical encoder
PATIENTS, STUDIES = 12, 30
Vector = npt.NDArray[np.float32]


def directions(count: int, seed: int) -> npt.NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    unit: npt.NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


SHARED = directions(16, 1)  # few, so that equal similarities, which go by key, are common


def made_up(name: str, rng: np.random.Generator) -> EmbeddedCase:
    """A case whose facts are drawn; half of all vectors are shared ones, and one content in three is as it was."""
    content = int(rng.integers(3))
    if rng.random() < 0.5:
        vector = SHARED[(sum(name.encode()) + content) % len(SHARED)]
    else:
        vector = directions(1, sum(name.encode()) * 3 + content)[0]
    case = Case(
        name,
        CaseKind.IMAGE,
        attributes=attributes(rng),
        labels=labels(rng),
        patient_key=patient(rng),
        study_uid=str(rng.choice(["", f"2.25.{rng.integers(1, STUDIES)}"])),
        content_sha256=f"content {name} {content}",
        pixel_sha256=f"pixels {name} {content}",
    )
    return EmbeddedCase(case, Embedding(vector, vector[None, :], (0,)))


def attributes(rng: np.random.Generator) -> Attributes:
    age = float(rng.integers(0, 90)) if rng.random() < 0.8 else None
    modality, sex = str(rng.choice(["CT", "MR", "CR", ""])), str(rng.choice(["F", "M", ""]))
    return Attributes(modality=modality, sex=sex, age=age)


def labels(rng: np.random.Generator) -> tuple[Label, ...]:
    grade = int(rng.integers(5))
    either = (Label("finding", str(rng.choice(["nodule", "normal", "Node"]))), Label("grade", str(grade), float(grade)))
    return either[: int(rng.integers(3))]


def patient(rng: np.random.Generator) -> str:
    return "" if rng.random() < 0.25 else f"patient{rng.integers(PATIENTS)}"


def _finding(case: Case) -> str:
    return next((label.value for label in case.labels if label.name == "finding"), "")


def _grade(case: Case) -> float:
    return next((label.number or 0.0 for label in case.labels if label.name == "grade"), -1.0)


# In the short form that users type, and what each means.
FILTERS: dict[str, Callable[[Case], bool]] = {
    "": lambda case: True,
    "modality=ct": lambda case: case.attributes.modality == "CT",
    "modality!=CT": lambda case: case.attributes.modality != "CT",
    "modality=": lambda case: case.attributes.modality == "",
    "modality=CT|MR,sex=F": lambda case: case.attributes.modality in {"CT", "MR"} and case.attributes.sex == "F",
    "age>=30,age<60": lambda case: case.attributes.age is not None and 30 <= case.attributes.age < 60,
    "age=": lambda case: case.attributes.age is None,
    "label.finding=nodule": lambda case: _finding(case) == "nodule",
    "label.finding!=nodule": lambda case: _finding(case) != "nodule",
    "label.finding^=no": lambda case: _finding(case).lower().startswith("no"),
    "label.grade>2": lambda case: _grade(case) > 2,
    "label.grade=3,modality=MR": lambda case: _grade(case) == 3 and case.attributes.modality == "MR",
    "source=nowhere": lambda case: False,
}


@dataclass(slots=True)
class Expected:
    """The gallery as it should be: cases by id with their keys, what is live and what could be gone back to."""

    cases: dict[str, Case] = field(default_factory=dict)
    vectors: dict[str, Vector] = field(default_factory=dict)
    last_key: int = 0
    live: str = ""
    previous: str = ""

    def copy(self) -> Expected:
        return replace(self, cases=dict(self.cases), vectors=dict(self.vectors))

    def only(self, case_ids: Collection[str]) -> Expected:
        """What is expected where nothing else is on file."""
        kept = [case_id for case_id in self.cases if case_id in case_ids]
        cases = {case_id: self.cases[case_id] for case_id in kept}
        return replace(self, cases=cases, vectors={case_id: self.vectors[case_id] for case_id in kept})

    # writing

    def add(self, embedded: EmbeddedCase, *, put: bool) -> tuple[str, int]:
        """(status, key) as the catalog should tell them; ``put``: in the place of other content."""
        case, old = embedded.case, self.cases.get(embedded.case.case_id)
        if old is not None and old.content_sha256 == case.content_sha256:
            patient_key = case.patient_key or old.patient_key
            taken = replace(old, attributes=case.attributes, labels=case.labels, patient_key=patient_key)
            self.cases[case.case_id] = taken
            return ("unchanged" if taken == old else "updated"), old.key
        if old is not None and not put:
            return "conflict", old.key
        self.last_key += 1
        self.cases[case.case_id] = replace(case, key=self.last_key)
        self.vectors[case.case_id] = embedded.embedding.vector
        return ("added" if old is None else "updated"), self.last_key

    def delete(self, case_ids: Sequence[str]) -> list[str]:
        """Those that were there, in order."""
        gone = [case_id for case_id in dict.fromkeys(case_ids) if case_id in self.cases]
        for case_id in gone:
            del self.cases[case_id], self.vectors[case_id]
        return gone

    def of_patient(self, patient_key: str) -> list[str]:
        return [case.case_id for case in self.cases.values() if patient_key and case.patient_key == patient_key]

    def published(self, name: str, keep_previous: bool) -> None:
        self.previous = self.live if keep_previous else ""
        self.live = name

    # asking

    def similarities(self, vector: Vector) -> dict[str, float]:
        """Of every case on file: the inner product, summed in float64 and rounded to float32, within [-1, 1]."""
        if not self.vectors:
            return {}
        rows = np.stack(list(self.vectors.values())).astype(np.float64)
        rounded = (rows * vector.astype(np.float64)).sum(axis=1).astype(np.float32)
        return dict(zip(self.vectors, np.clip(rounded, -1, 1).tolist(), strict=True))

    def answer(self, asked: Asked) -> list[tuple[str, float]]:
        """Ids and similarities, best first: everything is scored, sorted, and the best of each group kept."""
        scores = self.similarities(asked.query.embedding.vector)
        found: list[tuple[str, float]] = []
        groups: set[str] = set()
        for case in sorted(self.cases.values(), key=lambda case: (-scores[case.case_id], case.key)):
            group = _group(case, asked.group)
            if not self._may_answer(case, asked) or group in groups or len(found) == asked.k:
                continue
            groups |= {group} - {""}
            found.append((case.case_id, scores[case.case_id]))
        return found

    def _may_answer(self, case: Case, asked: Asked) -> bool:
        query = asked.query
        own = (query.patient_key and case.patient_key == query.patient_key) or (
            query.study_uid and case.study_uid == query.study_uid
        )
        wanted = {SamePatient.INCLUDE: True, SamePatient.EXCLUDE: not own, SamePatient.ONLY: bool(own)}
        return case.key != query.key and wanted[asked.same_patient] and FILTERS[asked.filters](case)


def _group(case: Case, by: GroupBy) -> str:
    return {GroupBy.NONE: "", GroupBy.PATIENT: case.patient_key, GroupBy.STUDY: case.study_uid}[by]
