"""Retrieval quality on every labelled 2D set: the test parts, leave-one-patient-out, as a Markdown table.

    python -m benchmarks.evaluate_sets [--sets FOLDER] [--where split=test] [--encoder classical] [--only NAME ...]

FOLDER holds one folder per set with ``labels.csv``; it defaults to ``data`` under PRECEDENT_SHARED, or under
``shared`` beside the repository. Files go through the ordinary indexing pipeline. Intervals are 95 %, over patients.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from indexer.evaluate import Evaluation, evaluate_table
from retrieval.evaluation import Measure
from retrieval.settings import Settings

MEASURES = ("P@1", "P@5", "P@10", "R@10", "mAP", "nDCG@10")


def default_sets() -> Path:
    stated = os.environ.get("PRECEDENT_SHARED")
    root = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared"
    return root / "data"


def cell(measure: Measure) -> str:
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def row(name: str, evaluation: Evaluation) -> str:
    report = evaluation.report
    cells = [name, f"{report.queries}", f"{report.patients}", f"{report.measure('P@5').chance:.3f}"]
    cells += [cell(report.measure(measure)) for measure in MEASURES]
    return f"| {' | '.join(cells)} |"


def mean_row(evaluations: list[Evaluation]) -> str:
    def mean(values: list[float]) -> str:
        return f"**{sum(values) / len(values):.3f}**"

    chance = mean([evaluation.report.measure("P@5").chance for evaluation in evaluations])
    means = [mean([evaluation.report.measure(name).value for evaluation in evaluations]) for name in MEASURES]
    return f"| **mean** | | | {' | '.join([chance, *means])} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=default_sets())
    parser.add_argument("--where", default="split=test")
    parser.add_argument("--encoder", default="classical")
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    tables = [t for t in sorted(options.sets.glob("*/labels.csv")) if not options.only or t.parent.name in options.only]
    if not tables:
        raise SystemExit(f"Expected labelled sets (FOLDER/*/labels.csv) under {options.sets}, found none.")
    print(f"encoder {options.encoder}, {options.where}\n")
    print(f"| set | queries | patients | chance P@5 | {' | '.join(MEASURES)} |")
    print("|" + "---|" * (len(MEASURES) + 4))
    evaluations, notes = [], []
    for table in tables:
        where = [options.where] if options.where else []
        evaluation = evaluate_table(table, where=where, encoder=options.encoder, settings=Settings())
        evaluations.append(evaluation)
        notes += [f"- {table.parent.name}: {note}" for note in evaluation.report.notes]
        if missing := evaluation.rows_without_case:
            notes.append(
                f"- {table.parent.name}: {missing} rows gave no case of their own (same bytes as another row)."
            )
        print(row(table.parent.name, evaluation), flush=True)
    print(mean_row(evaluations))
    print("\n" + "\n".join(notes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
