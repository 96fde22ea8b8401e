"""The shell blocks of the documentation, run as they stand: in order, in a folder that holds what they name.

Only what a reader must put in is put in: a folder of scans, a checkpoint, the address of a database.
``precedent serve`` does not end, so it is not run from a block; the blocks that ask a service meet one.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from indexer.demo.phantoms import generate
from retrieval import Gallery
from retrieval.filters import parse
from tests.answer_server import Stub, answer_server
from tests.databases import postgres_database
from tests.encoder_files import make_timm
from tests.processes import REPOSITORY, answer, environment, run, serving

ENDLESS = re.compile(r"^precedent serve.*$", flags=re.MULTILINE)
DATABASE = "postgresql+psycopg://user:password@db/precedent"


def blocks(page: str) -> list[str]:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    return [ENDLESS.sub("", block) for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader works: labelled scans, a study of them loose and zipped, weights, a gallery of the scans."""
    place = tmp_path_factory.mktemp("docs")
    scans = place / "scans"
    generate(scans, 7, "tiny")
    with (scans / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (scans / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], "split"])
        table.writeheader()
        table.writerows({**row, "split": "test"} for row in rows)
    shutil.copy(scans / "PHANTOM-0001" / "study-1" / "dx-1.dcm", place / "study.dcm")
    shutil.make_archive(str(place / "study"), "zip", scans / "PHANTOM-0009" / "study-1" / "ct-1")
    make_timm("mobilenetv3_small_100", place / "weights.safetensors")
    run("index", scans, "--labels", scans / "labels.csv", home=place / "gallery")
    return place


def shell(block: str, folder: Path) -> str:
    """A block's output; it must end with 0."""
    here = Path(sys.executable).parent
    told = {**environment(folder / "gallery"), "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-e", "-c", block], cwd=folder, env=told, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_no_block_is_forgotten() -> None:
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md") if blocks(page.name)}
    assert pages == {"evaluation.md", "evidence.md", "labels.md", "operations.md", "quickstart.md", "vectors.md"}


@pytest.mark.slow  # a gallery made twice, by real networks
def test_a_researchers_session(folder: Path) -> None:
    out = shell(blocks("quickstart.md")[0], folder)
    assert out.count("P@5") == 2 and out.count("cases added") == 2
    assert "mobilenetv3_small_100-" in out


@pytest.mark.slow  # a gallery made twice, by real networks
def test_a_platform_engineers_session(folder: Path, postgres_url: str) -> None:
    with postgres_database(postgres_url) as url:
        block = blocks("quickstart.md")[1]
        for shown, real in (("/srv/precedent", "srv"), (DATABASE, url), ("/archive/export", "scans")):
            assert shown in block
            block = block.replace(shown, real)
        assert "Authorization: Bearer" in shell(block, folder)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_rag_developers_request(folder: Path) -> None:
    (request,) = blocks("quickstart.md")[2:]
    with serving(folder / "gallery", folder / "log") as served:
        port = served.client.base_url.port
        out = shell(request.replace(":8000", f":{port}"), folder)
    assert out.count('"case_id":') >= 1
    for field in ("viewer_url", "no_confident_match", "report_excerpt", "intended_use"):
        assert f'"{field}":' in out


def test_evaluation_and_labels(folder: Path) -> None:
    assert "95 % interval" in shell(*blocks("evaluation.md"), folder)
    assert "similarity" in shell(*blocks("labels.md"), folder)


def test_neighbours_classify_and_estimate(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    classified, estimated = (shell(block, folder) for block in blocks("evidence.md")[:2])
    assert "base rate" in classified and "lesion_size_mm" in estimated
    page = (REPOSITORY / "docs" / "evidence.md").read_text(encoding="utf-8")
    python = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0]
    with Gallery.open(folder / "gallery") as gallery:
        case_id = gallery.catalog.list_cases(limit=1)[0].case_id
    assert 'Gallery.open("gallery")' in python
    exec(python.replace('"gallery"', repr(str(folder / "gallery"))), {"case_id": case_id})
    assert capsys.readouterr().out


def test_a_backup_restores(folder: Path) -> None:
    """The copy and the key, put into a new data directory, are a gallery that agrees with itself."""
    assert "Everything agrees" in shell(blocks("operations.md")[0], folder)
    restored = folder / "restored"
    assert answer("verify", home=restored)["ok"]
    before, after = (answer("stats", home=home)["counts"] for home in (folder / "gallery", restored))
    assert before == after
    assert answer("search", folder / "study.dcm", home=restored)["hits"]


def test_a_key_can_be_made_before_anything_else(tmp_path: Path) -> None:
    """As the compose file tells: a container listens on all interfaces, so the key comes first."""
    assert answer("keys", "create", "me", "--scope", "admin", home=tmp_path / "new")["token"]
    with serving(tmp_path / "new", tmp_path / "log") as served:
        assert served.client.get("/readyz").status_code == 200
        assert served.client.get("/v1/gallery").status_code == 401


def test_a_bundle_for_a_language_model(folder: Path) -> None:
    (block,) = (block for block in blocks("evidence.md") if "precedent evidence" in block)
    assert "## [1] case" in shell(block, folder)
    told = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    assert [message["role"] for message in told["messages"]] == ["system", "user"]
    assert told["messages"][1]["content"][-1]["type"] == "image_url"
    shell("precedent evidence study.dcm --format radfm -k 2 --out radfm", folder)
    placed = json.loads((folder / "radfm.json").read_text(encoding="utf-8"))
    assert placed["images"][-1]["of"] == "query" and placed["text"].count("<image>") == len(placed["images"])
    page = (REPOSITORY / "docs" / "evidence.md").read_text(encoding="utf-8")
    (python,) = (each for each in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "import gather" in each)
    with Gallery.open(folder / "gallery") as gallery:
        case_id = gallery.catalog.list_cases(limit=1)[0].case_id
    exec(python.replace('"gallery"', repr(str(folder / "gallery"))), {"case_id": case_id})


def test_where_rag_builders_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In process and over HTTP; the service's model answers as it is told, and its key is not asked for."""
    page = (REPOSITORY / "docs" / "integrations.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    with Gallery.open(folder / "gallery") as gallery:
        case_id = gallery.catalog.list_cases(parse({"modality": "DX"}), limit=1)[0].case_id
    printed = []
    with answer_server() as model, serving_answers(folder, model) as url:
        model.says = ["Alike [1]. Be sure."]
        for snippet in snippets:
            for shown, real in (('"gallery"', folder / "gallery"), ('"study.dcm"', folder / "study.dcm")):
                snippet = snippet.replace(shown, repr(str(real)))
            exec(snippet.replace("http://127.0.0.1:8000", url), {"case_id": case_id})
            printed.append(capsys.readouterr().out.splitlines())
        configured = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL)]
        stdio, http = (each["mcpServers"]["precedent"] for each in configured)
        http["url"] = http["url"].replace("http://127.0.0.1:8000", url)
        assert (
            asyncio.run(tools_of(stdio, http, folder)) == [set(re.findall(r"^\| `(\w+_\w+)` ", page, re.MULTILINE))] * 2
        )
    langchain, llama_index, over_http, client, answered = printed
    assert len(langchain) == len(llama_index) == len(over_http) == 5
    assert [line.split()[0] for line in langchain] == [line.split()[0] for line in llama_index]
    assert all(line.split()[1] == "Case" for line in over_http)
    assert len(client) > 7 and client[-1].startswith("No case nowhere")
    assert answered == ["There is no confident match on file, so no answer is made."] or (
        answered[1] == "removed: Be sure. it cites no case" and answered[2].startswith("stub at 127.0.0.1")
    )


@contextmanager
def serving_answers(folder: Path, model: Stub) -> Iterator[str]:
    told = {"PRECEDENT_ANSWER_URL": model.url, "PRECEDENT_ANSWER_MODEL": "stub"}
    with serving(folder / "gallery", folder / "log", told) as served:
        yield str(served.client.base_url)


async def tools_of(stdio: dict[str, Any], http: dict[str, Any], folder: Path) -> list[set[str]]:
    """What a program finds that is configured so."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = StdioServerParameters(**stdio, cwd=folder, env={**environment(folder / "gallery"), "PATH": path})
    async with httpx2.AsyncClient(headers=http["headers"], timeout=60) as asking:
        found = []
        for transport in (started, streamable_http_client(http["url"], http_client=asking)):
            async with McpClient(transport) as client:
                found.append({tool.name for tool in (await client.list_tools()).tools})
        return found
