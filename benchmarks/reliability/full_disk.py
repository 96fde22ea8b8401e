"""A service whose disk fills up and is freed again, time after time.

    python -m benchmarks.reliability.full_disk [--cycles 20] [--size 64m]

The data directory lies on a tmpfs. In each cycle another amount is left free, from nothing to half a megabyte, and
uploads are sent until several are refused; then a rebuild, a correction and a deletion are asked for; then space is
freed. Two clients search all the while. A cycle counts when

* what found no space was answered 507 with a sentence that says so (or the job of a rebuild does), and is not on file;
* every search was answered, and right; the service stayed ready, said that it can't write, and was never restarted;
* not a byte of the live index changed;
* an upload is taken within 5 s of the space being freed.

At the end ``verify`` must find nothing, and every kept file must belong to a case. Exits 1 when a cycle does not count.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.reliability.pictures import noise
from benchmarks.reliability.small_disk import NoSmallDisk, fill, mounted
from indexer.kept_names import kept_names
from indexer.originals import KEPT
from retrieval.catalog import Catalog
from retrieval.privacy import Secret
from retrieval.verify import verify
from tests.processes import Served, serving

LEAVE = (0, 4096, 20_000, 60_000, 150_000, 500_000)  # bytes, by turns
REFUSED = 3  # uploads, before space is made again
MOST_UPLOADS = 200
SECONDS = 5.0
STILL = 12  # cases that are searched for
CLIENTS = 2


@dataclass(slots=True)
class Cycle:
    """What happened while the disk was full. ``resumed``: seconds from space to the first upload that was taken."""

    leave: int
    refused: int = 0
    searches: int = 0
    resumed: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Trial:
    """A service on a small disk. ``size``: cases that must be on file."""

    served: Served
    disk: Path
    first: str = ""
    size: int = 0
    _number: int = 0

    @property
    def client(self) -> httpx.Client:
        return self.served.client

    @property
    def home(self) -> Path:
        return self.disk / "home"

    def begin(self) -> None:
        for _ in range(STILL):
            self.first = self.upload(source="still").raise_for_status().json()["files"][0]["case_id"]
        self.size = STILL
        if (told := self.rebuilt())["state"] != "done":
            raise SystemExit(f"A rebuild fails with space enough: {told}")

    def cycle(self, leave: int) -> Cycle:
        cycle, before, right = Cycle(leave), self.index(), self.similar(self.client)
        with self._searching(cycle, right):
            filler = fill(self.disk, leave=leave)
            self._uploads(cycle)
            self._others(cycle)
            ready = self.client.get("/readyz")
            if ready.status_code != 200 or "space" not in ready.json()["writes"]:
                cycle.wrong.append(f"readiness on a full disk: {ready.text}")
            filler.unlink()
            self._resume(cycle)
        if self.index() != before:
            cycle.wrong.append("the live index is not what it was")
        if (size := self.client.get("/v1/gallery").json()["size"]) != self.size:
            cycle.wrong.append(f"{size} cases are on file, {self.size} were acknowledged")
        self._tidy()
        if self.served.process.poll() is not None:
            cycle.wrong.append("the service has ended")
        return cycle

    # while it is full

    def _uploads(self, cycle: Cycle) -> None:
        for _ in range(MOST_UPLOADS):
            reply = self.upload()
            if reply.status_code == 201:
                self.size += 1
                continue
            cycle.refused += 1
            cycle.wrong += _unlike_507(reply)
            if cycle.refused == REFUSED:
                return
        cycle.wrong.append(f"{MOST_UPLOADS} uploads found room where {cycle.leave} bytes were left")

    def _others(self, cycle: Cycle) -> None:
        """They may still find room; if not, they must say so."""
        told = self.rebuilt()
        if told["state"] != "done" and "space" not in told["message"]:
            cycle.wrong.append(f"a rebuild on a full disk says: {told}")
        reply = self.client.patch(f"/v1/cases/{self.first}", json={"report": "r" * 100})
        if reply.status_code != 200:
            cycle.refused += 1
            cycle.wrong += _unlike_507(reply)

    def _resume(self, cycle: Cycle) -> None:
        started = time.monotonic()
        while (reply := self.upload()).status_code != 201 and time.monotonic() - started < 4 * SECONDS:
            time.sleep(0.05)
        cycle.resumed = time.monotonic() - started
        self.size += reply.status_code == 201
        if cycle.resumed > SECONDS:
            cycle.wrong.append(f"{cycle.resumed:.1f} s after space was freed, an upload is {reply.status_code}")

    @contextmanager
    def _searching(self, cycle: Cycle, right: list[str]) -> Iterator[None]:
        """Clients that search until the block ends, each at least once."""
        stop, counting = threading.Event(), threading.Lock()

        def search() -> None:
            with httpx.Client(base_url=self.client.base_url, timeout=60) as client:
                over = False
                while not over:
                    found = self.similar(client)
                    with counting:
                        cycle.searches += 1
                        if found != right:
                            cycle.wrong.append(f"a search answered {found}")
                    over = stop.wait(0.01)

        threads = [threading.Thread(target=search) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    # small ones

    def upload(self, source: str = "") -> httpx.Response:
        self._number += 1
        files = [("files", ("a.png", noise(self._number, side=128)))]
        return self.client.post("/v1/cases", files=files, data={"source": source})

    def similar(self, client: httpx.Client) -> list[str]:
        asked = {"k": STILL, "filters": '{"source": "still"}', "group": "none"}
        reply = client.get(f"/v1/cases/{self.first}/similar", params=asked)
        return [hit["case_id"] for hit in reply.json()["hits"]] if reply.status_code == 200 else [reply.text]

    def rebuilt(self) -> Mapping[str, Any]:
        """How a rebuild ended: its job, or the problem it was answered with."""
        reply = self.client.post("/v1/rebuilds", json={"dry_run": True})
        if reply.status_code != 202:
            return {"state": "refused", "message": reply.json()["detail"]}
        for _ in range(600):
            told = self.client.get(reply.headers["location"])
            if told.json()["state"] != "running":
                return dict(told.json())
            time.sleep(0.05)
        return {"state": "running", "message": "it does not end"}

    def index(self) -> dict[str, str]:
        """SHA-256 of each file of the live generation."""
        live = self.home / "generations" / self.client.get("/v1/gallery").json()["generation"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(live.iterdir())}

    def _tidy(self) -> None:
        """Make room for the next cycle: what this one has added goes."""
        page = self.client.get("/v1/cases", params={"limit": 200, "filters": '{"not": {"source": "still"}}'}).json()
        for case in page["cases"]:
            self.client.delete(f"/v1/cases/{case['case_id']}").raise_for_status()
            self.size -= 1


def _unlike_507(reply: httpx.Response) -> list[str]:
    if reply.status_code == 507 and "space" in reply.json()["detail"]:
        return []
    return [f"answered {reply.status_code} on a full disk: {reply.text[:300]}"]


def measure(cycles: int, size: str, told: Callable[[Cycle], None] = lambda cycle: None) -> list[Cycle]:
    """All cycles of one service. NoSmallDisk where none can be mounted; SystemExit when the end is not sound."""
    with (
        tempfile.TemporaryDirectory(prefix="precedent-full-") as folder,
        mounted(Path(folder) / "disk", size) as disk,
    ):
        found = []
        with serving(disk / "home", Path(folder) / "log") as served:
            trial = Trial(served, disk)
            trial.begin()
            for n in range(cycles):
                found.append(trial.cycle(LEAVE[n % len(LEAVE)]))
                told(found[-1])
        with Catalog.open(f"sqlite:///{trial.home / 'catalog.sqlite3'}") as catalog:
            wrong = [check.sentence for check in verify(catalog, trial.home).findings]
            wanted = kept_names(catalog, Secret.open(trial.home / "secret.key"))
        if {path.name for path in (trial.home / KEPT).iterdir()} != wanted:
            wrong.append("kept files and cases do not match")
        if "Traceback" in (Path(folder) / "log").read_text():
            wrong.append("the log has a traceback")
        if wrong:
            raise SystemExit(f"At the end: {' '.join(wrong)}")
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=20)
    parser.add_argument("--size", default="64m", help="of the disk")
    asked = parser.parse_args()
    print("| bytes left | refused | searches meanwhile | writes resumed after | wrong |\n|---|---|---|---|---|")

    def tell(cycle: Cycle) -> None:
        row = f"| {cycle.leave} | {cycle.refused} | {cycle.searches} | {cycle.resumed:.2f} s | {len(cycle.wrong)} |"
        print(row, flush=True)
        for sentence in cycle.wrong:
            print(sentence, file=sys.stderr)

    try:
        cycles = measure(asked.cycles, asked.size, tell)
    except NoSmallDisk as reason:
        raise SystemExit(f"Not possible here: {reason}.") from reason
    resumed, wrong = [cycle.resumed for cycle in cycles], sum(bool(cycle.wrong) for cycle in cycles)
    print(
        f"{len(cycles)} cycles, {wrong} wrong; {sum(cycle.refused for cycle in cycles)} writes refused, "
        f"{sum(cycle.searches for cycle in cycles)} searches answered; writes resumed after "
        f"{statistics.median(resumed):.2f} s ({max(resumed):.2f} s)"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
