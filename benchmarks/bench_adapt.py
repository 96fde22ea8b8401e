"""What an adapter does to retrieval on every labelled 2D set: stored vectors before and after, on patients apart.

    python -m benchmarks.bench_adapt [--sets FOLDER] [--encoder classical] [--label label] [--only NAME ...]

FOLDER as for ``benchmarks.evaluate_sets``. Each set becomes a gallery of its own, by the ordinary pipeline, and an
adapter is learned as ``precedent adapt --label LABEL --dry-run`` does: 60 % of the patients to learn from, 20 % to stop
and choose by, and the figures are of the other 20 %. Intervals are 95 %.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.evaluate_sets import default_sets
from indexer.labels import LabelTable
from indexer.limits import Limits
from indexer.pipeline import Options, index
from indexer.sandbox import Sandbox
from indexer.workers import worker_count
from retrieval.adaptation import Lesson, learn_adapter
from retrieval.adapters.report import AdaptReport
from retrieval.errors import UsageError
from retrieval.gallery import Gallery
from retrieval.settings import Settings


def learned(table: Path, encoder: str, label: str) -> AdaptReport:
    with tempfile.TemporaryDirectory(prefix="precedent-adapt-") as home:
        settings = Settings(home=Path(home), encoder=encoder)
        sandbox = Sandbox(worker_count(settings), Limits.of(settings))
        with Gallery.open(settings, create=True) as gallery, sandbox:
            index(gallery, sandbox, [table.parent], Options(labels=LabelTable.read(table)))
            return learn_adapter(gallery, Lesson(label)).report


def row(name: str, report: AdaptReport) -> str:
    test = {pair.before.name: pair for pair in report.test}
    cells = [name, str(sum(size.cases for size in report.parts)), str(report.parts[-1].cases), report.chosen]
    for measure in ("P@1", "P@5", "mAP"):
        pair = test[measure]
        cells.append(f"{pair.before.value:.3f} → {pair.after.value:.3f} (chance {pair.before.chance:.3f})")
    gain = report.test_gain
    cells.append(f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
    cells += [
        "live" if report.worth_using else "not kept" if not report.improves else "not used",
        f"{report.seconds:.0f} s",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, default=default_sets())
    parser.add_argument("--encoder", default="classical")
    parser.add_argument("--label", default="label")
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    tables = [t for t in sorted(options.sets.glob("*/labels.csv")) if not options.only or t.parent.name in options.only]
    if not tables:
        raise SystemExit(f"Expected labelled sets (FOLDER/*/labels.csv) under {options.sets}, found none.")
    print(f"encoder {options.encoder}, label {options.label}\n")
    print("| set | cases | test | chosen | P@1 | P@5 | mAP | gain in mAP | would be | learned in |")
    print("|" + "---|" * 10)
    notes = []
    for table in tables:
        try:
            print(row(table.parent.name, learned(table, options.encoder, options.label)), flush=True)
        except UsageError as error:
            notes.append(f"- {table.parent.name}: {error}")
    print("\n" + "\n".join(notes))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
