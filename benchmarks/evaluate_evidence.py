"""Classifying and estimating by neighbours on the labelled 2D sets: are the probabilities right on patients unseen?

    python -m benchmarks.evaluate_evidence [--sets FOLDER] [--only NAME ...] [--galleries FOLDER]

FOLDER of the sets holds one folder per set with ``labels.csv``. Each is embedded once with the default encoder, by the
ordinary pipeline, into FOLDER/NAME of ``--galleries`` (kept there; a temporary one by default). Then two questions:

* **test in five**: the test parts alone. Each fifth of the patients is asked of a gallery of the other four, and
  nothing of it is in any choice.
* **train, then test**: the test part asked of a gallery of the train part. The default encoder was fitted to the labels
  of three of these train parts (marked *): their cases lie nearer to their likes than any new case does, so that no
  calibration on them can hold. They are shown and not counted.

Nor are galleries of too few patients to be calibrated on (marked +), whose answers say so.

Nothing is tuned on what is asked. ECE: expected calibration error, ten bins, mean over values; "by chance" is what it
would be for these probabilities if each were right. Ends with 1 when the ECE of all probabilities counted together is
above 0.05 for either question.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.evaluate_sets import default_sets
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.curves import auc
from retrieval.errors import UsageError
from retrieval.evidence.classify import classify
from retrieval.evidence.estimate import estimate
from retrieval.evidence.operating import Answer
from retrieval.evidence.reliability import by_chance, calibration_error, confidence_error
from retrieval.evidence.sample import folds_of
from retrieval.evidence.types import Classification
from retrieval.gallery import Gallery
from retrieval.settings import Settings
from retrieval.types import Case, EmbeddedCase, Label, Query

LABELS = {"cxr_nih": "findings"}  # what is asked; "label" of the other sets
FITTED = frozenset({"cxr_kermany", "cxr_nih", "xray_knee_kl"})  # the default encoder knows their train parts' labels
TARGET = 0.05
LEVEL = 0.9
SETS = (
    "cxr_kermany", "cxr_nih", "derm_ham10000", "micro_bccd", "mri2d_brain_tumor", "mri2d_cardiac_sunnybrook", "us_busi",
    "xray_knee_kl",
)  # fmt: skip

Trial = tuple[list[EmbeddedCase], list[EmbeddedCase]]  # a gallery, and who is asked of it


@dataclass(frozen=True, slots=True)
class Asked:
    """Of every query and value: votes before, probabilities after, whether it is true, [n, values]; and for values with
    thresholds whether those say yes (rule in) and not no (rule out), else NaN."""

    votes: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    truth: npt.NDArray[np.bool_]
    ruled_in: npt.NDArray[np.float64]
    not_ruled_out: npt.NDArray[np.float64]
    calibrated: bool


def embedded(sets: Path, name: str, galleries: Path) -> list[EmbeddedCase]:
    """All cases of a set with their vectors; embedded unless that was done before."""
    home = galleries / name
    settings = Settings(home=home)
    done = home.exists()
    with Gallery.open(settings, create=not done) as gallery:
        if not done:
            with Sandbox(worker_count(settings), Limits.of(settings)) as sandbox:
                index(gallery, sandbox, [sets / name], Options(labels=LabelTable.read(sets / name / "labels.csv")))
        cases = gallery.catalog.list_cases(limit=100_000)
        return [EmbeddedCase(case, gallery.catalog.embedding(case.case_id)[1]) for case in cases]


def values_of(case: Case, label: str) -> set[str]:
    return {said.value for said in case.labels if said.name == label}


def trials(cases: Sequence[EmbeddedCase]) -> dict[str, list[Trial]]:
    """The two questions."""
    train = [each for each in cases if "train" in values_of(each.case, "split")]
    test = [each for each in cases if "test" in values_of(each.case, "split")]
    numbers: dict[str, int] = {}
    patients = [numbers.setdefault(each.case.patient_key or each.case.case_id, len(numbers)) for each in test]
    folds = folds_of(np.array(patients, dtype=np.int64))
    fifths = [
        ([test[n] for n in np.flatnonzero(folds != fold)], [test[n] for n in np.flatnonzero(folds == fold)])
        for fold in np.unique(folds)
    ]
    return {"test in five": fifths, "train, then test": [(train, test)]}


@contextmanager
def gallery_of(cases: Sequence[EmbeddedCase], label: str) -> Iterator[Gallery]:
    """A gallery of these cases with only this label, gone afterwards."""
    with tempfile.TemporaryDirectory() as home, Gallery.open(Settings(home=Path(home)), create=True) as gallery:
        only = [
            replace(each, case=replace(each.case, key=0, labels=tuple(s for s in each.case.labels if s.name == label)))
            for each in cases
        ]
        for start in range(0, len(only), 64):
            gallery.add(only[start : start + 64])
        yield gallery


def query_of(each: EmbeddedCase) -> Query:
    return Query(each.embedding, patient_key=each.case.patient_key)


def classified(parts: Sequence[Trial], label: str) -> Asked:
    """Everything asked of every gallery; the columns are the values that the galleries know, sorted."""
    values = tuple(sorted({value for known, _ in parts for each in known for value in values_of(each.case, label)}))
    rows: list[tuple[Classification, set[str]]] = []
    for known, asked in parts:
        with gallery_of(known, label) as gallery:
            rows += [(classify(gallery, query_of(each), label=label), values_of(each.case, label)) for each in asked]
    tables = [np.array(table) for table in zip(*(_row(found, said, values) for found, said in rows), strict=True)]
    calibrated = all(found.quality is not None for found, _ in rows)
    return Asked(tables[0], tables[1], tables[2].astype(bool), tables[3], tables[4], calibrated)


def _row(found: Classification, said: set[str], values: Sequence[str]) -> list[list[float]]:
    answers = {value.value: value for value in found.values}
    columns = []
    for value in values:
        if (of := answers.get(value)) is None:  # a value that none of this gallery's patients has
            columns.append((0.0, 0.0, value in said, np.nan, np.nan))
            continue
        known = of.answer is not Answer.UNKNOWN and of.rule_in is not None and of.rule_out is not None
        columns.append(
            (
                of.votes.share,
                of.probability,
                value in said,
                of.probability >= of.rule_in.threshold if known and of.rule_in else np.nan,
                of.probability >= of.rule_out.threshold if known and of.rule_out else np.nan,
            )
        )
    return [list(map(float, row)) for row in zip(*columns, strict=True)]


def mean_over_values(asked: Asked, measure: str) -> float:
    """A figure of each value with both outcomes, averaged; NaN where there is none."""
    found = []
    for n in range(asked.truth.shape[1]):
        truth, known = asked.truth[:, n], np.isfinite(asked.ruled_in[:, n])
        if not (truth & known).any() or not (~truth & known).any():
            continue
        if measure == "auc":
            found.append(auc(asked.probabilities[:, n], truth))
        else:
            called = asked.ruled_in[:, n] if measure.startswith("in") else asked.not_ruled_out[:, n]
            rate = (
                called[truth & known].mean() if measure.endswith("sensitivity") else 1 - called[~truth & known].mean()
            )
            found.append(float(rate))
    return float(np.mean(found)) if found else float("nan")


def told(figure: float, digits: int = 2) -> str:
    """A dash where no value has patients enough."""
    return f"{figure:.{digits}f}" if np.isfinite(figure) else "-"


def row(name: str, asked: Asked) -> str:
    columns = list(zip(asked.votes.T, asked.probabilities.T, asked.truth.T, strict=True))
    chance = [by_chance(after) for _, after, _ in columns]
    before = np.mean([calibration_error(share, true) for share, _, true in columns])
    after = np.mean([calibration_error(probability, true) for _, probability, true in columns])
    cells = [
        str(len(asked.truth)),
        str(len(columns)),
        f"{before:.3f}",
        f"{after:.3f}",
        f"{np.mean([each.mean for each in chance]):.3f}",
        f"{confidence_error(asked.probabilities, asked.truth):.3f}",
        f"{by_chance(asked.probabilities.max(axis=1)).mean:.3f}",
        told(mean_over_values(asked, "auc"), 3),
        f"{told(mean_over_values(asked, 'in sensitivity'))} / {told(mean_over_values(asked, 'in specificity'))}",
        f"{told(mean_over_values(asked, 'out sensitivity'))} / {told(mean_over_values(asked, 'out specificity'))}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def together(asked: Sequence[Asked]) -> tuple[str, float]:
    """Every probability of every set in one reliability diagram."""
    votes, after, true = (
        np.concatenate([getattr(each, name).ravel() for each in asked]) for name in ("votes", "probabilities", "truth")
    )
    error, chance = calibration_error(after, true), by_chance(after)
    line = (
        f"| **all unmarked, together** | {len(after)} | | {calibration_error(votes, true):.3f} | **{error:.3f}** | "
        f"{chance.mean:.3f} | | | | | |"
    )
    return line, error


HEAD = (
    "| set | queries | values | ECE of votes | ECE | by chance | ECE of the best value | by chance | AUC | "
    "rule in: sens. / spec. | rule out: sens. / spec. |"
)


def estimated(name: str, cases: Sequence[EmbeddedCase]) -> list[str]:
    """Age, as a label, with its interval."""
    aged = [
        replace(each, case=replace(each.case, labels=(*each.case.labels, Label("age", f"{age:g}", age))))
        for each in cases
        if (age := each.case.attributes.age) is not None
    ]
    lines = []
    for question, parts in trials(aged).items():
        inside, widths, errors, of_mean = [], [], [], []
        for known, asked in parts:
            with gallery_of(known, "age") as gallery:
                for each in asked:
                    found, age = estimate(gallery, query_of(each), label="age", level=LEVEL), each.case.attributes.age
                    if age is None or found.low is None or found.high is None:
                        continue
                    inside.append(found.low <= age <= found.high)
                    widths.append(found.high - found.low)
                    errors.append(abs(found.number - age))
                    of_mean.append(abs(found.base - age))
        lines.append(
            f"| {name} | {question} | {len(inside)} | {np.mean(inside):.3f} | {np.mean(widths):.1f} | "
            f"{np.mean(errors):.1f} | {np.mean(of_mean):.1f} |"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=default_sets())
    parser.add_argument("--only", nargs="*", default=list(SETS))
    parser.add_argument("--galleries", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = {name: embedded(options.sets, name, options.galleries or Path(folder)) for name in options.only}
    worst = 0.0
    fair = {"test in five": frozenset[str](), "train, then test": FITTED}
    for question, left_out in fair.items():
        print(f"Classified, {question}:\n\n{HEAD}\n|{'---|' * 11}")
        found = []
        for name, cases in sets.items():
            try:
                asked = classified(trials(cases)[question], LABELS.get(name, "label"))
            except UsageError as error:
                print(f"| {name} | {error} |")
                continue
            if name not in left_out and asked.calibrated:
                found.append(asked)
            mark = " *" if name in left_out else "" if asked.calibrated else " +"
            print(row(f"{name}{mark}", asked), flush=True)
        if found:
            line, off = together(found)
            print(line)
            worst = max(worst, off)
        print()
    if "cxr_nih" in sets:
        print(f"Age in years, estimated with intervals of {LEVEL:.0%}:\n")
        print(
            "| set | question | queries | within | mean width | mean error | always the mean |\n"
            "|---|---|---|---|---|---|---|"
        )
        print("\n".join(estimated("cxr_nih", sets["cxr_nih"])))
    return int(worst > TARGET)


if __name__ == "__main__":
    raise SystemExit(main())
