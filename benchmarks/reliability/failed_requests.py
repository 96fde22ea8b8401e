"""Uploads, corrections, deletions and rebuilds over HTTP while calls of the service fail: see ``failed_calls``."""

from __future__ import annotations

import errno
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.reliability.failed_steps import Point
from benchmarks.reliability.failing_calls import Calls, Fault, Faults, spread
from benchmarks.reliability.faulty_service import go, obeyed
from benchmarks.reliability.pictures import noise
from indexer.kept_names import kept_names
from indexer.originals import KEPT
from retrieval.catalog import Catalog
from retrieval.privacy import Secret
from retrieval.verify import verify
from tests.processes import serving

KINDS = ("upload", "correct", "delete", "rebuild")
STILL = 6  # cases that are only searched for
MEANWHILE_SECONDS = 1.0  # a job whose end can't be noted while everything fails is not waited for longer
SECONDS = 60.0


@dataclass(slots=True)
class Requests:
    """A service with a gallery of ``STILL`` cases, and those that came since."""

    client: httpx.Client
    faults: Faults
    home: Path
    size: int = 0
    others: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _first: str = ""
    _job: str = ""
    _right: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Some cases and an index, and the right answer to a question about them."""
        added = [self._upload(source="still").json()["files"][0]["case_id"] for _ in range(STILL)]
        self.size, self._first = STILL, added[0]
        self._right = self._similar()
        self._rebuild()

    def measure(self, kind: str, fault: Fault, count: int) -> Iterator[Point]:
        """Points of one kind of request, ``count`` at most."""
        calls, point = self.point(kind, fault, 0)
        if point.wrong or point.refused:
            raise SystemExit(f"{point.step} fails with no fault at all: {point.wrong or 'it was refused'}")
        for nth in spread(calls, count):
            yield self.point(kind, fault, nth)[1]

    def point(self, kind: str, fault: Fault, nth: int) -> tuple[int, Point]:
        """One request of which the ``nth`` call fails; how many calls it made."""
        self._prepare(kind)
        live, before = self._gallery()["generation"], self._left_over()
        with self.faults.armed(self.home, fault, nth):
            acked, wrong = self._ask(kind, fault)
            seen = self.faults.seen
            wrong += self._serving(fault if self.faults.failed and fault.lasting else None)
        wrong += self._afterwards(kind, fault, acked, live)
        until = time.monotonic() + 1  # what a request came with goes just after its answer
        while (left := self._left_over() - before) > 0 and time.monotonic() < until:
            time.sleep(0.02)
        if left < 0 or (left and Calls.REMOVING not in fault.calls):
            wrong.append(f"{left} files are left over")
        return seen, Point(f"HTTP {kind}", fault, nth, int(not acked), "; ".join(wrong))

    # one request

    def _prepare(self, kind: str) -> None:
        if kind in {"correct", "delete"} and not self.others:
            self.others.append(self._upload().json()["files"][0]["case_id"])
            self.size += 1

    def _ask(self, kind: str, fault: Fault) -> tuple[bool, list[str]]:
        """Whether it was acknowledged, and what was wrong with the reply."""
        reply = self._send(kind)
        if reply.status_code == 202:
            self._job = reply.headers["location"]
            return self._ended(self._job, MEANWHILE_SECONDS)["state"] == "done", []
        if reply.status_code in {200, 201}:
            return True, []
        problem = reply.json() if "problem+json" in reply.headers["content-type"] else {"detail": reply.text}
        if reply.status_code not in {503, 507} or not problem["detail"].endswith("."):
            return False, [f"answered {reply.status_code}: {problem['detail']}"]
        if not _names_the_reason(problem["detail"], fault):
            return False, [f"of a full disk it only says: {problem['detail']}"]
        return False, []

    def _send(self, kind: str) -> httpx.Response:
        if kind == "upload":
            return self._upload(check=False)
        if kind == "rebuild":
            return self.client.post("/v1/rebuilds", json={})
        if kind == "delete":
            return self.client.delete(f"/v1/cases/{self.others[-1]}")
        return self.client.patch(f"/v1/cases/{self.others[-1]}", json={"report": f"corrected {next(self._numbers)}"})

    def _ended(self, where: str, seconds: float = SECONDS) -> dict[str, str]:
        """The job, once it has ended; or as it is by then."""
        until = time.monotonic() + seconds
        while True:
            reply = self.client.get(where)
            if reply.status_code == 200:
                job: dict[str, str] = reply.json()
                if job["state"] != "running" or time.monotonic() > until:
                    return job
            elif time.monotonic() > until:
                return {"state": "unknown", "message": reply.json()["detail"]}
            time.sleep(0.02)

    # what must be true meanwhile and afterwards

    def _serving(self, lasting: Fault | None) -> list[str]:
        """Searches go on, and readiness says what does not: ``lasting``, the fault that all writing meets."""
        wrong = []
        if (found := self._similar()) != self._right:
            wrong.append(f"a search answered {found}, right is {self._right}")
        ready = self.client.get("/readyz")
        if ready.status_code != 200 and not ready.json().get("detail"):
            wrong.append(f"not ready ({ready.status_code}), without a reason")
        if ready.status_code == 200 and lasting:
            told = ready.json()["writes"]
            if not told or not _names_the_reason(told, lasting):
                wrong.append(f"ready, and of writing it says '{told}'")
        return wrong

    def _afterwards(self, kind: str, fault: Fault, acked: bool, live: str) -> list[str]:
        """All is well again: what was said must be so, and the next request must be taken."""
        wrong, gallery = [], self._gallery()
        if kind == "rebuild" and self._job:  # there may have been no way to say before how it ended
            job, self._job = self._ended(self._job), ""
            acked = job["state"] == "done"
            if not acked and (job["state"] == "running" or not _names_the_reason(job["message"], fault)):
                wrong.append(f"the job is told as {job}")
        if kind == "upload":
            self.size += acked
        if kind == "delete" and acked:
            self.size -= 1
            gone = self.others.pop()
            if self.client.get(f"/v1/cases/{gone}").status_code != 404:
                wrong.append("a case that was deleted is there")
        if gallery["size"] != self.size:
            wrong.append(f"{gallery['size']} cases are on file, expected {self.size}")
            self.size = gallery["size"]
        if kind == "rebuild" and (gallery["generation"] != live) != acked:
            wrong.append(f"{gallery['generation']} is live, was {live}; acknowledged: {acked}")
        ready = self.client.get("/readyz")
        if ready.status_code != 200 or ready.json()["writes"]:
            wrong.append(f"readiness afterwards: {ready.text}")
        again = self._send(kind) if kind != "delete" else self._upload(check=False)
        if again.status_code not in {200, 201, 202}:
            wrong.append(f"afterwards answered {again.status_code}: {again.text}")
        elif kind in {"upload", "delete"}:
            self.size += 1
            self.others.append(again.json()["files"][0]["case_id"])
        elif kind == "rebuild" and (job := self._ended(again.headers["location"]))["state"] != "done":
            wrong.append(f"afterwards a rebuild ended with {job}")
        return wrong

    # small ones

    def _upload(self, source: str = "", *, check: bool = True) -> httpx.Response:
        files = [("files", ("a.png", noise(next(self._numbers))))]
        reply = self.client.post("/v1/cases", files=files, data={"source": source})
        return reply.raise_for_status() if check else reply

    def _rebuild(self) -> None:
        reply = self.client.post("/v1/rebuilds", json={}).raise_for_status()
        if self._ended(reply.headers["location"])["state"] != "done":
            raise SystemExit("a rebuild fails with no fault at all")

    def _similar(self) -> list[str]:
        """The cases that nobody touches, by likeness to the first of them."""
        asked = {"k": STILL, "filters": '{"source": "still"}', "group": "none"}
        reply = self.client.get(f"/v1/cases/{self._first}/similar", params=asked)
        return [hit["case_id"] for hit in reply.json()["hits"]] if reply.status_code == 200 else [reply.text]

    def kept(self) -> set[str]:
        return {path.name for path in (self.home / KEPT).iterdir()}

    def _left_over(self) -> int:
        """Kept files beyond one a case, and bodies of requests."""
        return len(self.kept()) - self.size + len(list((self.home / "uploads").glob("*/request-*")))

    def _gallery(self) -> dict[str, object]:
        found: dict[str, object] = self.client.get("/v1/gallery").raise_for_status().json()
        return found


def _names_the_reason(told: str, fault: Fault) -> bool:
    return fault.error != errno.ENOSPC or "space" in told


@contextmanager
def requests() -> Iterator[Requests]:
    """A service under orders; at the end, once it has stopped, what it leaves must be sound."""
    with tempfile.TemporaryDirectory(prefix="precedent-faults-") as folder:
        home, orders = Path(folder) / "home", Path(folder) / "orders"
        faults = Faults.make(orders)
        command = [sys.executable, "-m", "benchmarks.reliability.faulty_service", str(orders), "serve"]
        with serving(home, Path(folder) / "log", command=command) as served:
            found = Requests(served.client, faults, home)
            found.begin()
            go(orders).touch()
            while not obeyed(orders).exists():
                time.sleep(0.02)
            yield found
        with Catalog.open(f"sqlite:///{home / 'catalog.sqlite3'}") as catalog:
            wrong = "; ".join(check.sentence for check in verify(catalog, home).findings)
            lost = kept_names(catalog, Secret.open(home / "secret.key")) - found.kept()
        if wrong or lost or "Traceback" in served.log.read_text():
            raise SystemExit(f"At the end: {wrong} {len(lost)} kept files are lost. {served.log.read_text()[-3000:]}")
