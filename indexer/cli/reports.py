"""An indexing report for people and for machines."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.table import Table

from indexer.cli.console import err, out
from indexer.report import CaseStatus, FileStatus, Report, brief
from indexer.sources import Rejection

SHOWN = 20  # failures and warnings printed; the rest is counted


def report_json(report: Report, *, unmatched_rows: int, generation: str, dry_run: bool) -> dict[str, Any]:
    """The report as plain data."""
    return {
        "files": {status.value: report.files[status] for status in FileStatus},
        "cases": {status.value: report.cases[status] for status in CaseStatus},
        "frames": report.frames,
        "duplicates": report.duplicates,
        "skipped_because": dict(report.skips),
        "warnings": dict(report.warnings),
        "failures": [
            {"path": str(f.source), "sha256": f.sha256, "stage": f.stage, "reason": f.reason} for f in report.failures
        ],
        "failures_not_listed": report.files[FileStatus.FAILED] - len(report.failures),
        "unmatched_label_rows": unmatched_rows,
        "generation": generation,
        "interrupted": report.interrupted,
        "dry_run": dry_run,
        "seconds": round(report.seconds, 3),
    }


def print_report(report: Report, *, unmatched_rows: int, generation: str, dry_run: bool) -> None:
    """Counts on stdout; each failed file with its reason on stderr."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for status in FileStatus:
        table.add_row(f"files {status.value.replace('_', ' ')}", f"{report.files[status]:,}")
    for case_status in CaseStatus:
        table.add_row(
            f"cases {'to add' if dry_run and case_status is CaseStatus.ADDED else case_status.value}",
            f"{report.cases[case_status]:,}",
        )
    console = out()
    console.print(table)
    if not report.files and not report.interrupted:
        console.print("No files there.")
    if report.duplicates:
        console.print(f"{report.duplicates:,} cases have the same pixels as another case on file.")
    for reason, count in report.skips.most_common(SHOWN):
        console.print(f"skipped {count:,}: {reason}")
    for sentence, count in report.warnings.most_common(SHOWN):
        console.print(f"warning for {count:,}: {sentence}")
    if unmatched_rows:
        console.print(f"{unmatched_rows:,} rows of the labels file met no file.")
    if report.seconds and report.frames:
        console.print(
            f"{report.frames:,} frames in {report.seconds:.1f} s ({report.frames / report.seconds:.1f} a second)."
        )
    if generation:
        console.print(f"Published index {generation}.")
    _print_failures(report)
    if report.interrupted:
        err().print("Interrupted. What was finished is kept; run the same command again to go on.")


def _print_failures(report: Report) -> None:
    """Each failed file with its reason; the files of one refused case in one line."""
    console = err()
    told = [list(each) for _, each in groupby(report.failures, _case)][:SHOWN]
    for failures in told:
        first = failures[0]
        more = f" and {len(failures) - 1:,} more of its case" if len(failures) > 1 else ""
        console.print(f"failed {first.source}{more} [{first.stage}] {brief(first.reason)}", markup=False)
    hidden = report.files[FileStatus.FAILED] - sum(map(len, told))
    if hidden > 0:
        console.print(f"... and {hidden:,} more failed; --failures FILE writes them all.")


def _case(failure: Rejection) -> tuple[object, str]:
    """Equal for the files of one case refused when it was committed; its reason names the case."""
    return (failure.stage if failure.stage == "commit" else failure.source), failure.reason
