"""How good answers are: whole answers, words (BLEU, ROUGE), and clinical statements with their negations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from indexer.radbench.answers import Answer, plain
from indexer.radbench.layout import Question, Task
from retrieval.clinical_terms import Terms, agreement
from retrieval.errors import MissingExtra
from retrieval.evidence.modalities import kind_of
from retrieval.resampling import Draws

Numbers = npt.NDArray[np.float64]
CLOSED = (Task.MODALITY, Task.DIAGNOSIS)


@dataclass(frozen=True, slots=True)
class Score:
    """One figure of a task with its interval, and what the most frequent answer and a random case would have.

    NaN where it does not exist. ``questions``: on how many it was taken.
    """

    name: str
    value: float
    low: float
    high: float
    majority: float
    random_case: float
    questions: int


def scores(
    task: Task,
    questions: Sequence[Question],
    given: Sequence[Answer],
    majority: Sequence[Answer],
    random_cases: Sequence[Sequence[Answer]],
    terms: Terms,
    seed: int,
) -> tuple[Score, ...]:
    """All figures of the questions of one task, answered in three ways. Intervals: bootstrap over images."""
    ours, usual = measured(task, questions, given, terms), measured(task, questions, majority, terms)
    drawn = [measured(task, questions, answers, terms) for answers in random_cases]
    images = {image: number for number, image in enumerate(dict.fromkeys(one.image for one in questions))}
    draws = Draws.of(np.array([images[one.image] for one in questions], dtype=np.int64), seed)
    out = []
    for name, values in ours.items():
        interval = draws.interval(draws.means(values))
        votes = "accuracy" in name or task is Task.VQA  # there is no most frequent report
        most = mean_of([usual[name]]) if votes else float("nan")
        random_case, count = mean_of([one[name] for one in drawn]), int(np.isfinite(values).sum())
        out.append(Score(name, mean_of([values]), interval.low, interval.high, most, random_case, count))
    return tuple(out)


def mean_of(parts: Sequence[Numbers]) -> float:
    """The mean of the numbers there are, NaN where there is none."""
    known = np.concatenate(parts)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def measured(task: Task, questions: Sequence[Question], answers: Sequence[Answer], terms: Terms) -> dict[str, Numbers]:
    """Each figure for each question, [questions]; NaN where it does not exist. No answer is a wrong answer."""
    out: dict[str, Numbers] = {}
    pairs = list(zip(questions, answers, strict=True))
    if task is Task.RATIONALE:
        out["diagnosis accuracy"] = _array(
            float(plain(question.diagnosis) == plain(said.diagnosis)) if question.diagnosis else float("nan")
            for question, said in pairs
        )
    elif task is not Task.REPORT:
        out["accuracy"] = _array(float(right(question, said)) for question, said in pairs)
    if task not in CLOSED:
        references, texts = [" ".join(question.answers) for question in questions], [" ".join(a.texts) for a in answers]
        out |= _words(texts, references, longest=1 if task is Task.VQA else 4)
        found = [agreement(text, reference, terms) for text, reference in zip(texts, references, strict=True)]
        out["clinical precision"] = _array(one.precision for one in found)
        out["clinical recall"] = _array(one.recall for one in found)
    return out


def right(question: Question, said: Answer) -> bool:
    """Whether the answer as a whole is the one wanted, whatever the order of several. DX is an X-ray, and MR is MRI."""
    name = kind_of if question.task is Task.MODALITY else str
    ours, wanted = ({name(plain(text)) for text in texts} for texts in (said.texts, question.answers))
    return bool(ours) and ours == wanted


def _words(texts: Sequence[str], references: Sequence[str], longest: int) -> dict[str, Numbers]:
    """BLEU up to ``longest``-grams by sacrebleu and ROUGE by rouge-score, 0 to 1, of each text."""
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise MissingExtra("sacrebleu and rouge-score", "radbench") from error
    bleu = BLEU(lowercase=True, max_ngram_order=longest, effective_order=True)
    rouge = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    pairs = list(zip(texts, references, strict=True))
    overlaps = [rouge.score(reference, text) for text, reference in pairs]
    return {
        f"BLEU-{longest}": _array(bleu.sentence_score(text, [reference]).score / 100 for text, reference in pairs),
        "ROUGE-1": _array(overlap["rouge1"].fmeasure for overlap in overlaps),
        "ROUGE-L": _array(overlap["rougeL"].fmeasure for overlap in overlaps),
    }


def _array(values: Iterable[float]) -> Numbers:
    return np.array(list(values), dtype=np.float64)
