"""In which order files are written, synced, named and acknowledged, as the operating system sees it.

    python -m benchmarks.reliability.power_cut [--commits 200] [--swaps 50]

Real processes work under ``strace``: ``precedent index`` makes a gallery from nothing; a service takes uploads,
corrections and deletions; a process commits, deletes, publishes indexes of every local backend, rolls back, makes a
backup and restores it. Whenever one of them says so (a reply with 2xx, a line that says ``committed`` ...),
everything below the data directory must be out of reach of a power cut (``disk_order``):

* every file that was written is synced, the database's log before all, and so is the directory of every new name;
* what is renamed was synced before; its directory is synced before the commit that refers to it;
* a generation is removed only after the commit that forgets it is synced.

Half of the commits are requests. Exits 1 when there is a violation. PostgreSQL's own files are its server's business.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.reliability import backups
from benchmarks.reliability.disk_order import Order
from benchmarks.reliability.failed_steps import url_of
from benchmarks.reliability.pictures import noise
from benchmarks.reliability.system_calls import calls_of, scratch, traced, why_not
from indexer.kept_names import kept_files
from retrieval.backups import backup, restore
from retrieval.catalog import Catalog
from retrieval.indexes import backend_names
from retrieval.privacy import Secret
from retrieval.publish import publish, rollback
from tests.processes import COMMAND, environment, serving

BACKENDS = tuple(name for name in backend_names() if name != "milvus")  # which keeps its files on its server
REPLIES = ("HTTP/1.1 200", "HTTP/1.1 201")
LINES = ("committed", "deleted", "published", "rolled back", "backed up", "restored")
ROLLBACK_EACH = 10  # swaps


def say(word: str) -> None:
    """In one system call, so that nothing is buffered."""
    os.write(1, f"{word}\n".encode())


def act(home: Path, commits: int, swaps: int) -> None:
    """In a traced process: one thing after the other, each acknowledged when it is done."""
    secret = Secret.open(home / "secret.key")
    with Catalog.open(url_of(home)) as catalog:
        for batch in range(1, commits + 1):
            backups.add_batch(catalog, home, secret, 0, batch)
            say("committed")
            if batch % 5 == 0:
                catalog.delete(backups.batch_ids(0, batch)[1:2])
                say("deleted")
        for n in range(swaps):
            publish(catalog, home, BACKENDS[n % len(BACKENDS)])
            say("published")
            if n % ROLLBACK_EACH == ROLLBACK_EACH - 1:
                rollback(catalog, home)
                say("rolled back")
        backup(catalog, home, home.parent / "backup", secret, kept_files(secret), with_key=True)
        say("backed up")
    restore(home.parent / "backup", home.parent / "restored")
    say("restored")


def follow(trace: Path, words: tuple[str, ...], before: Order) -> Order:
    """``before`` with the calls of the trace."""
    before.words = words
    for call in calls_of(trace):
        before.follow(call)
    return before


def in_process(commits: int, swaps: int) -> Order:
    """Commits, swaps, a backup and its restore."""
    with scratch() as folder:
        top = Path(folder)
        home = top / "here" / "home"
        (top / "here").mkdir()
        backups.fill(home, url_of(home), 20)
        order = Order(str(top / "here"), LINES)
        work = [sys.executable, "-m", "benchmarks.reliability.power_cut", "--act", str(home)]
        numbers = ["--commits", str(commits), "--swaps", str(swaps)]
        subprocess.run([*traced(top / "trace"), *work, *numbers], check=True, stdout=subprocess.PIPE)
        return follow(top / "trace", LINES, order)


def over_http(requests: int) -> Order:
    """A gallery made by the command line and then served; the requests all write."""
    with scratch() as folder:
        top = Path(folder)
        home, inputs = top / "new" / "home", top / "in"
        inputs.mkdir()
        for n in range(3):
            (inputs / f"{n}.png").write_bytes(noise(n))
        order = Order(str(top / "new"), ("{",))
        index = [*traced(top / "index"), *COMMAND, "index", str(inputs), "--json"]
        subprocess.run(index, check=True, stdout=subprocess.PIPE, env=environment(home))
        follow(top / "index", ("{",), order)
        with serving(home, top / "log", command=[*traced(top / "serve"), *COMMAND, "serve"]) as served:
            _write(served.client, requests)
            children = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text()
            os.kill(int(children.split()[0]), signal.SIGTERM)  # strace itself does not listen
            served.process.wait(60)
        return follow(top / "serve", REPLIES, order)


def _write(client: httpx.Client, requests: int) -> None:
    """Requests that change something, by turns."""
    case_id = ""
    for n in range(requests):
        if n % 4 == 2:
            reply = client.patch(f"/v1/cases/{case_id}", json={"report": f"report {n}"})
        elif n % 4 == 3:
            reply = client.delete(f"/v1/cases/{case_id}")
        else:
            reply = client.post("/v1/cases", files=[("files", ("a.png", noise(1000 + n)))])
            case_id = reply.raise_for_status().json()["files"][0]["case_id"]
        reply.raise_for_status()
        time.sleep(0.02)  # what a request came with goes just after its answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--act", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.act:
        act(asked.act, asked.commits, asked.swaps)
        return 0
    if reason := why_not():
        raise SystemExit(f"System calls can't be followed: {reason}.")
    half = asked.commits // 2
    found = [in_process(half, asked.swaps), over_http(asked.commits - half)]
    print("| acknowledged by | times |\n|---|---|")
    for word, times in Counter(word for order in found for word in order.acked).items():
        print(f"| {word} | {times} |")
    violations = [sentence for order in found for sentence in order.violations]
    print(f"{sum(order.renamed for order in found)} files and generations named, {len(violations)} violations")
    print("\n".join(violations), file=sys.stderr)
    return int(bool(violations))


if __name__ == "__main__":
    raise SystemExit(main())
