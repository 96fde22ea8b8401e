"""Retrieval quality on every labelled 2D set: the test parts, leave-one-patient-out, as Markdown tables.

    python -m benchmarks.evaluate_sets [--sets FOLDER] [--where split=test] [--encoders SPEC ...] [--only NAME ...]

FOLDER holds one folder per set with ``labels.csv``; it defaults to ``data`` under PRECEDENT_SHARED, or under
``shared`` beside the repository. Files go through the ordinary indexing pipeline. Intervals are 95 %, over patients.
Without ``--encoders``: the default encoder, ``classical``, and the ImageNet MobileNetV2 in ``weights`` beside FOLDER
where that and ONNX Runtime are there. The first one named is shown in full, the others by their P@5.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

from indexer.evaluate import Evaluation, evaluate_table
from retrieval.evaluation import Measure
from retrieval.settings import Settings

MEASURES = ("P@1", "P@5", "P@10", "R@10", "mAP", "nDCG@10")
SHOWN = "P@5"
MOBILENET = "mobilenet_v2_1.0_imagenet.onnx"
MOBILENET_CARD = {
    "name": "mobilenet-v2-imagenet",
    "dim": 1280,
    "licence": "Apache-2.0",
    "recipe": {"size": [224, 224], "interpolation": "bilinear", "mean": [0.5], "std": [0.5]},
}

Figures = dict[str, dict[str, Evaluation]]  # encoder -> set -> what was measured


def default_sets() -> Path:
    stated = os.environ.get("PRECEDENT_SHARED")
    root = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared"
    return root / "data"


def mobilenet(sets: Path, folder: Path) -> str:
    """The spec of the ImageNet network, its card beside a link to it in ``folder``; "" where it can't be run."""
    weights = sets.parent / "weights" / MOBILENET
    if not weights.is_file() or find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return ""
    (folder / MOBILENET).symlink_to(weights.resolve())
    (folder / f"{MOBILENET}.card.json").write_text(json.dumps(MOBILENET_CARD), encoding="utf-8")
    return f"onnx:{folder / MOBILENET}"


def cell(measure: Measure) -> str:
    return f"{measure.value:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def mean(evaluations: dict[str, Evaluation], measure: str, part: str = "value") -> float:
    return sum(getattr(each.report.measure(measure), part) for each in evaluations.values()) / len(evaluations)


def told(spec: str) -> str:
    return str(MOBILENET_CARD["name"]) if spec.endswith(MOBILENET) else spec


def side_by_side(figures: Figures) -> list[str]:
    """One row a set: chance and the P@5 of each encoder."""
    first = next(iter(figures.values()))
    lines = [f"| set | chance | {' | '.join(map(told, figures))} |", "|" + "---|" * (len(figures) + 2)]
    for name, evaluation in first.items():
        cells = [cell(of_encoder[name].report.measure(SHOWN)) for of_encoder in figures.values()]
        lines.append(f"| {name} | {evaluation.report.measure(SHOWN).chance:.3f} | {' | '.join(cells)} |")
    means = [f"**{mean(of_encoder, SHOWN):.3f}**" for of_encoder in figures.values()]
    return [*lines, f"| **mean** | **{mean(first, SHOWN, 'chance'):.3f}** | {' | '.join(means)} |"]


def in_full(evaluations: dict[str, Evaluation]) -> list[str]:
    """One row a set: every measure of one encoder."""
    lines = [f"| set | queries | patients | {' | '.join(MEASURES)} |", "|" + "---|" * (len(MEASURES) + 3)]
    for name, evaluation in evaluations.items():
        report = evaluation.report
        cells = [cell(report.measure(measure)) for measure in MEASURES]
        lines.append(f"| {name} | {report.queries} | {report.patients} | {' | '.join(cells)} |")
    means = [f"**{mean(evaluations, measure):.3f}**" for measure in MEASURES]
    return [*lines, f"| **mean** | | | {' | '.join(means)} |"]


def notes(evaluations: dict[str, Evaluation]) -> list[str]:
    lines = []
    for name, evaluation in evaluations.items():
        lines += [f"- {name}: {note}" for note in evaluation.report.notes]
        if missing := evaluation.rows_without_case:
            lines.append(f"- {name}: {missing} rows gave no case of their own (same bytes as another row).")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=default_sets())
    parser.add_argument("--where", default="split=test")
    parser.add_argument("--encoders", nargs="+", default=[])
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    tables = [t for t in sorted(options.sets.glob("*/labels.csv")) if not options.only or t.parent.name in options.only]
    if not tables:
        raise SystemExit(f"Expected labelled sets (FOLDER/*/labels.csv) under {options.sets}, found none.")
    where = [options.where] if options.where else []
    with tempfile.TemporaryDirectory() as folder:
        default = str(Settings.model_fields["encoder"].default)
        specs = options.encoders or [default, "classical", mobilenet(options.sets, Path(folder))]
        figures = {
            spec: {
                table.parent.name: evaluate_table(table, where=where, encoder=spec, settings=Settings())
                for table in tables
            }
            for spec in filter(None, specs)
        }
    first = next(iter(figures))
    print(f"P@5, {options.where or 'all rows'}:\n")
    print("\n".join(side_by_side(figures)))
    print(f"\nEvery measure of `{first}`:\n")
    print("\n".join(in_full(figures[first])))
    print("\n" + "\n".join(notes(figures[first])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
