"""Jobs and API keys, on both databases."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.access import AccessKeys, Scope
from retrieval.catalog import Catalog
from retrieval.errors import ConflictError, NotFoundError, UsageError
from retrieval.jobs import Jobs, JobState


def test_a_job_runs_its_course(catalog: Catalog) -> None:
    jobs = Jobs(catalog.database)
    job = jobs.create("rebuild", total=10)
    assert (job.state, job.progress, job.total) == (JobState.QUEUED, 0, 10)
    assert jobs.claim(["index"]) is None
    claimed = jobs.claim(["rebuild", "index"])
    assert claimed is not None
    assert (claimed.id, claimed.state) == (job.id, JobState.RUNNING)
    assert jobs.claim(["rebuild"]) is None
    assert jobs.progress(job.id, 4, message="four").progress == 4
    done = jobs.finish(job.id, result='{"count": 10}')
    assert (done.state, done.progress, done.result) == (JobState.DONE, 4, '{"count": 10}')
    assert jobs.list_jobs() == [done]
    with pytest.raises(ConflictError, match=f"Job {job.id} is done, expected one that is running"):
        jobs.progress(job.id, 5)
    with pytest.raises(ConflictError, match=f"Job {job.id} is done, expected one that is queued"):
        jobs.start(job.id)


def test_a_job_may_fail_and_a_missing_one_is_told(catalog: Catalog) -> None:
    jobs = Jobs(catalog.database)
    first, second = jobs.create("index"), jobs.create("index")
    jobs.start(second.id)
    failed = jobs.fail(second.id, "The folder went away.")
    assert (failed.state, failed.message) == (JobState.FAILED, "The folder went away.")
    assert [job.id for job in jobs.list_jobs()] == [second.id, first.id]
    assert [job.id for job in jobs.list_jobs(limit=1)] == [second.id]
    with pytest.raises(NotFoundError, match="No job 99"):
        jobs.job(99)


RUNNER = """
import sys, time
from retrieval.catalog import Catalog
from retrieval.jobs import Jobs
with Catalog.open(sys.argv[1]) as catalog:
    print(Jobs(catalog.database).claim(["rebuild"]).id, flush=True)
    time.sleep(600)
"""


def test_a_job_whose_process_died_is_told_as_interrupted(catalog: Catalog, database_url: str) -> None:
    jobs = Jobs(catalog.database)
    job = jobs.create("rebuild")
    root = Path(__file__).parent.parent
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, database_url], stdout=subprocess.PIPE, cwd=root)
    with runner:
        assert runner.stdout is not None
        assert int(runner.stdout.readline()) == job.id
        assert jobs.job(job.id).state is JobState.RUNNING
        os.kill(runner.pid, signal.SIGKILL)
        os.waitid(os.P_PID, runner.pid, os.WEXITED | os.WNOWAIT)  # dead, but still a zombie
        interrupted = jobs.job(job.id)
    assert interrupted.state is JobState.INTERRUPTED
    assert "start it again" in interrupted.message
    assert jobs.list_jobs() == [interrupted]


@pytest.mark.parametrize(
    ("owner", "heard", "state"),
    [
        ("elsewhere 1 boot/1", "2020-01-01T00:00:00.000+00:00", JobState.INTERRUPTED),
        ("elsewhere 1 boot/1", "2999-01-01T00:00:00.000+00:00", JobState.RUNNING),
    ],
)
def test_a_job_on_another_host_is_given_up_after_a_silence(
    catalog: Catalog, owner: str, heard: str, state: JobState
) -> None:
    jobs = Jobs(catalog.database)
    job = jobs.start(jobs.create("rebuild").id)
    with catalog.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE jobs SET owner = '{owner}', updated_at = '{heard}'")
    assert jobs.job(job.id).state is state


def claim_all(url: str) -> list[int]:
    with Catalog.open(url) as catalog:
        jobs, mine = Jobs(catalog.database), []
        while (job := jobs.claim(["work"])) is not None:
            mine.append(job.id)
            jobs.finish(job.id)
        return mine


def test_no_job_is_claimed_twice(catalog: Catalog, database_url: str) -> None:
    jobs = Jobs(catalog.database)
    made = [jobs.create("work").id for _ in range(20)]
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        claimed = pool.map(claim_all, [database_url] * 3, chunksize=1)
    assert sorted(job for mine in claimed for job in mine) == made


def test_a_key_opens_until_it_is_revoked_and_its_token_is_stored_nowhere(catalog: Catalog) -> None:
    keys = AccessKeys(catalog.database)
    token, other = keys.create_key("ward 3", "read"), keys.create_key("pacs", "admin")
    assert token != other
    assert keys.check(token) is Scope.READ
    assert keys.check(other) is Scope.ADMIN
    for wrong in ("", "precedent_", token[:-1], token + "x", token.upper(), "\ud800", "precedent_\x00"):
        assert keys.check(wrong) is None
    with catalog.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT * FROM api_keys").all()
    assert token.removeprefix("precedent_") not in str(rows)
    keys.revoke("ward 3")
    assert keys.check(token) is None
    assert keys.check(other) is Scope.ADMIN
    assert [(key.name, key.scope, bool(key.revoked_at)) for key in keys.list_keys()] == [
        ("ward 3", Scope.READ, True),
        ("pacs", Scope.ADMIN, False),
    ]


def test_what_can_not_be_a_key_is_told(catalog: Catalog) -> None:
    keys = AccessKeys(catalog.database)
    with pytest.raises(UsageError, match="Expected a scope of read, write, admin, got 'root'"):
        keys.create_key("a", "root")
    with pytest.raises(UsageError, match="Expected a key name"):
        keys.create_key("", "read")
    keys.create_key("a", "read")
    with pytest.raises(ConflictError, match="There is or was a key named 'a'"):
        keys.create_key("a", "write")
    with pytest.raises(NotFoundError, match="No working key"):
        keys.revoke("b")


def test_scopes_include_those_before() -> None:
    assert Scope.ADMIN.allows(Scope.READ)
    assert Scope.WRITE.allows(Scope.WRITE)
    assert not Scope.READ.allows(Scope.WRITE)
