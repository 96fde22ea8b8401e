"""Runs benchmarks and writes what they print into docs/benchmarks.md, each into its own section.

    python -m benchmarks.report quality opening indexing encoders

A section begins with ``<!-- NAME -->`` and ends with ``<!-- end NAME -->``; the text around it is written by hand.
A benchmark that runs but misses its own target is written down as such; one that can't run leaves its section as it
was, and ends this with exit code 1.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
SECTIONS = {
    "quality": "benchmarks.evaluate_sets",
    "adapters": "benchmarks.bench_adapt",
    "evidence": "benchmarks.evaluate_evidence",
    "opening": "benchmarks.bench_open",
    "indexing": "benchmarks.bench_indexing",
    "encoders": "benchmarks.bench_encoders",
    "http": "benchmarks.bench_http",
    "volumes": "benchmarks.evaluate_volumes",
    "scaling": "benchmarks.bench_scaling",
    "search": "benchmarks.bench_search --plot docs/search.svg",
}


def machine() -> str:
    """The machine in words, without its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def measured(command: str) -> str:
    """What a benchmark prints, and whether it met its target; SystemExit when it printed nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode and "|" not in done.stdout:
        raise SystemExit(f"{command} ended with exit code {done.returncode}; its section stays as it was.")
    verdict = "\n\nThis run missed the target stated." if done.returncode else ""
    return done.stdout.strip() + verdict


def put(page: str, name: str, text: str) -> str:
    """The page with the section ``name`` replaced; SystemExit when it has none."""
    section = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", flags=re.DOTALL)
    if not section.search(page):
        raise SystemExit(f"Expected a section '<!-- {name} -->' ... '<!-- end {name} -->' in {PAGE.name}, found none.")
    return section.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=list(SECTIONS))
    for name in parser.parse_args().sections:
        command = SECTIONS[name]
        output = measured(command)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        said = f"`python -m {command}`, {today}, {machine()}.\n\n{output}"
        PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), name, said), encoding="utf-8")
        print(f"Wrote the section '{name}' of docs/{PAGE.name}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
