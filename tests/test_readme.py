"""What README shows is what happens: every block is run, in order, on the gallery that ``precedent demo`` makes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTLE_SECONDS = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def environment() -> dict[str, str]:
    """The user's own, with the command on the PATH and no settings of this test run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRECEDENT_")}
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody has run the demo."""
    place = tmp_path_factory.mktemp("readme")
    run(["precedent", "demo", "--no-serve"], place)
    return place


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """The demo being served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    server = subprocess.Popen(["precedent", "serve", "--port", str(number)], cwd=folder, env=environment())
    try:
        for _ in range(SETTLE_SECONDS * 5):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{number}/readyz", timeout=5) as reply:
                    if reply.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield number
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", blocks("sh")[0], flags=re.MULTILINE):
        assert f"\n{target}:" in makefile


@pytest.mark.slow
def test_python_session(folder: Path) -> None:
    (session,) = blocks("python")
    (folder / "session.py").write_text(session)
    out = run([sys.executable, "session.py"], folder)
    assert [line.split()[0] for line in out.splitlines()] == ["1", "2", "3", "4", "5"]


@pytest.mark.slow
def test_command_line_session(folder: Path) -> None:
    out = run(["sh", "-e", "-c", blocks("sh")[1]], folder)
    for words in ("cases added", "similarity", "Everything agrees", "P@5", "is live"):
        assert words in out


@pytest.mark.slow
def test_curl_session(folder: Path, port: int) -> None:
    gallery, cases, search, refusal = blocks("sh")[2].replace(":8000", f":{port}").strip().splitlines()
    assert '"size":' in run(["sh", "-c", gallery], folder)
    listed = run(["sh", "-c", cases], folder)
    assert '"case_id":' in listed
    found = json.loads(run(["sh", "-c", search], folder))
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3] and found["query"]["patient_known"]
    refused = run(["sh", "-c", refusal], folder)
    assert '"status":422' in refused and "Not an image" in refused


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
