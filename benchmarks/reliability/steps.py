"""One random step of a gallery at a time, each compared with what ``expected`` says: see ``model``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from benchmarks.reliability import expected
from benchmarks.reliability.expected import FILTERS, PATIENTS, SHARED, STUDIES, directions, made_up
from benchmarks.reliability.places import Places
from benchmarks.reliability.sessions import Answer, Asked, Gate, Place
from retrieval.errors import NotFoundError, UsageError
from retrieval.indexes import backend_names
from retrieval.types import Embedding, GroupBy, Query, SamePatient

LOCAL = tuple(name for name in backend_names() if name != "milvus")
BACKENDS = (*LOCAL, "faiss:SQ8", "faiss:Flat", "faiss:IVF4,SQ8,nprobe=4", "faiss:IVF8,SQfp16,nprobe=7")
STARTS = (0, 40, 500, 1300)
NAMES = 80  # of cases that are added: few, so that they meet again
MOST = 25  # cases of a batch
OFTEN = ("",) * len(FILTERS) + tuple(FILTERS)  # only without a filter is an index searched as it is
SEEDS = st.integers(0, 2**32 - 1)


class Divergence(Exception):
    """The gallery did something else than it should."""


@dataclass(slots=True)
class Tally:
    """What was done to all galleries together. ``loose``: answers that did not claim to be exhaustive."""

    galleries: int = 0
    steps: int = 0
    searches: int = 0
    loose: int = 0
    plans: Counter[str] = field(default_factory=Counter)


def agree(what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise Divergence(f"{what}: got {got}, expected {wanted}")


class Model(RuleBasedStateMachine):
    """One gallery, three sessions, and what it should be. ``walk`` sets the first four."""

    gates: Sequence[Gate]
    rooms: Places
    tally: Tally
    starts: Sequence[int]
    place: Place | None = None

    @initialize(
        cases=st.runner().flatmap(lambda model: st.sampled_from(model.starts)), backend=st.sampled_from(("", *BACKENDS))
    )
    def start(self, cases: int, backend: str) -> None:
        self.place, self.known = self.rooms.new(cases)
        self.tally.galleries += 1
        for gate in self.gates:
            gate.open(self.place)
        if cases and backend:
            self.rebuild(0, backend, keep=True)

    def teardown(self) -> None:
        if self.place is None:
            return
        try:
            agree("verify", self.gates[0].faults(), [])
        finally:
            for gate in self.gates:
                gate.close()
            self.rooms.drop(self.place)

    @invariant()
    def counted(self) -> None:
        self.tally.steps += self.place is not None

    # writing

    @rule(who=st.integers(0, 2), drawn=SEEDS, count=st.integers(1, MOST), put=st.booleans())
    def add(self, who: int, drawn: int, count: int, put: bool) -> None:
        rng = np.random.default_rng(drawn)
        batch = [made_up(self._some_name(rng), rng) for _ in range(count)]
        told = [(outcome.status, outcome.key) for outcome in self.gates[who].add(batch, put)]
        agree("outcomes", told, [self.known.add(each, put=put) for each in batch])
        self._look(who, drawn)

    @rule(who=st.integers(0, 2), drawn=SEEDS, count=st.integers(1, MOST))
    def delete(self, who: int, drawn: int, count: int) -> None:
        rng = np.random.default_rng(drawn)
        names = [self._some_name(rng) for _ in range(count)]
        agree("deleted", self.gates[who].delete(names), self.known.delete(names))
        self._look(who, drawn)

    @rule(who=st.integers(0, 2), patient=st.integers(0, PATIENTS))
    def delete_patient(self, who: int, patient: int) -> None:
        key = f"patient{patient}" if patient < PATIENTS else ""
        gone = self.known.delete(self.known.of_patient(key))
        agree("cases deleted of a patient", self.gates[who].delete_patient(key), len(gone))
        self._look(who, patient)

    @rule(who=st.integers(0, 2), drawn=SEEDS)
    def revise(self, who: int, drawn: int) -> None:
        rng = np.random.default_rng(drawn)
        name = self._some_name(rng)
        changed: dict[str, Any] = {
            "attributes": expected.attributes(rng) if rng.random() < 0.5 else None,
            "labels": expected.labels(rng) if rng.random() < 0.5 else None,
            "patient_key": expected.patient(rng) if rng.random() < 0.5 else None,
        }
        old = self.known.cases.get(name)
        if old is None:
            self._refused(NotFoundError, lambda: self.gates[who].revise(name, None, None, None))
            return
        agree("key of a revised case", self.gates[who].revise(name, **changed), old.key)
        self.known.cases[name] = replace(old, **{part: value for part, value in changed.items() if value is not None})
        self._look(who, drawn)

    # the index

    @rule(who=st.integers(0, 2), backend=st.sampled_from(BACKENDS), keep=st.booleans())
    def rebuild(self, who: int, backend: str, keep: bool) -> None:
        """An index whose recall is short is refused, and the live one stays."""
        try:
            name = self.gates[who].publish(backend, keep)
        except UsageError as error:
            if "nearest neighbours" not in str(error):
                raise
            return
        self.known.published(name, keep)
        self._look(who, len(name) + keep)

    @rule(who=st.integers(0, 2))
    def roll_back(self, who: int) -> None:
        if not self.known.previous:
            self._refused(NotFoundError, self.gates[who].rollback)
            return
        agree("generation gone back to", self.gates[who].rollback(), self.known.previous)
        self.known.live, self.known.previous = self.known.previous, ""
        self._look(who, 0)

    @rule(who=st.integers(0, 2))
    def restart(self, who: int) -> None:
        self.gates[who].open(self._opened)
        self._look(who - 1, who)

    # asking

    @rule(
        who=st.integers(0, 2), drawn=SEEDS, filters=st.sampled_from(OFTEN),
        same_patient=st.sampled_from(SamePatient), group=st.sampled_from(GroupBy),
    )  # fmt: skip
    def search(self, who: int, drawn: int, filters: str, same_patient: SamePatient, group: GroupBy) -> None:
        rng = np.random.default_rng(drawn)
        vector = SHARED[rng.integers(len(SHARED))] if rng.random() < 0.5 else directions(1, drawn)[0]
        study = str(rng.choice(["", f"2.25.{rng.integers(1, STUDIES)}"]))
        query = Query(Embedding(vector, vector[None, :], (0,)), expected.patient(rng), 0, (), study)
        asked = Asked(query, self._some_k(rng), filters, same_patient, group)
        if same_patient is SamePatient.ONLY and not query.patient_key and not self._of_study(study):
            self._refused(UsageError, lambda: self.gates[who].search(asked))
            return
        self._check(self.gates[who].search(asked), asked)

    @rule(
        who=st.integers(0, 2), drawn=SEEDS, filters=st.sampled_from(OFTEN),
        same_patient=st.sampled_from([SamePatient.EXCLUDE, SamePatient.INCLUDE]), group=st.sampled_from(GroupBy),
    )  # fmt: skip
    def similar(self, who: int, drawn: int, filters: str, same_patient: SamePatient, group: GroupBy) -> None:
        rng = np.random.default_rng(drawn)
        name, asked = self._some_name(rng), Asked(NOBODY, self._some_k(rng), filters, same_patient, group)
        case = self.known.cases.get(name)
        if case is None:
            self._refused(NotFoundError, lambda: self.gates[who].similar(name, asked))
            return
        row = self.known.vectors[name]
        query = Query(Embedding(row, row[None, :], (0,)), case.patient_key, case.key, (), case.study_uid)
        self._check(self.gates[who].similar(name, asked), replace(asked, query=query))

    # what the rules share

    @property
    def _opened(self) -> Place:
        if self.place is None:
            raise RuntimeError("No gallery yet: a rule came before the start.")
        return self.place

    def _some_name(self, rng: np.random.Generator) -> str:
        """One that is there; or one of those that come and go, or of those that may have been there at first."""
        what = rng.random()
        if what < 0.5 and self.known.cases:
            return list(self.known.cases)[int(rng.integers(len(self.known.cases)))]
        return f"still{rng.integers(STARTS[-1]):04d}" if what < 0.6 else f"case{rng.integers(NAMES):04d}"

    def _some_k(self, rng: np.random.Generator) -> int:
        return int(rng.choice([1, 3, 10, 50, 1000], p=[0.2, 0.3, 0.3, 0.15, 0.05]))

    def _of_study(self, study: str) -> bool:
        return any(study and case.study_uid == study for case in self.known.cases.values())

    def _refused(self, kind: type[Exception], ask: Callable[[], object]) -> None:
        try:
            answer = ask()
        except kind:
            return
        raise Divergence(f"expected {kind.__name__}, got {answer}")

    def _look(self, who: int, drawn: int) -> None:
        """The next session sees what this one did."""
        vector = SHARED[drawn % len(SHARED)]
        asked = Asked(Query(Embedding(vector, vector[None, :], (0,))), 5)
        self._check(self.gates[(who + 1) % len(self.gates)].search(asked), asked)

    def _check(self, answer: Answer, asked: Asked) -> None:
        self.tally.searches += 1
        self.tally.plans[answer.plan] += 1
        agree("size and generation", (answer.gallery_size, answer.generation), (len(self.known.cases), self.known.live))
        wanted = self.known.answer(asked)
        got = list(zip(answer.case_ids, answer.similarities, strict=True))
        if answer.exhaustive:
            agree("hits", got, wanted)
            return
        self.tally.loose += 1
        agree("number of hits", len(got), len(wanted))
        among = self.known.only(answer.case_ids)
        agree("hits that may be returned, in order", got, among.answer(asked))


NOBODY = Query(Embedding(SHARED[0], SHARED[:1], (0,)))
