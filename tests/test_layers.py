"""One import direction: retrieval <- indexer <- api; migrations know only retrieval.schema."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"retrieval", "indexer", "api", "migrations"}
MAY_IMPORT = {"retrieval": {"retrieval"}, "indexer": {"retrieval", "indexer"}, "api": {"retrieval", "indexer", "api"}}
HEAVY = {"torch", "torchvision", "timm", "open_clip", "faiss", "SimpleITK", "gdcm"}

NETWORKS = {"retrieval.encoders.compact_network"}


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_import_direction(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = {name.split(".")[0] for name in imported(path)} & PACKAGES
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {ours - MAY_IMPORT[package]}"


def test_migrations_know_only_the_schema() -> None:
    for path in (ROOT / "migrations").rglob("*.py"):
        ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
        assert ours <= {"retrieval.schema"}, path.name


def test_heavy_libraries_load_only_when_used() -> None:
    """A network of our own is written in torch, so its module is as heavy as torch and is imported as late."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            names = imported(path, top_level_only=True)
            heavy = names & NETWORKS | {name.split(".")[0] for name in names} & HEAVY
            if ".".join(path.relative_to(ROOT).with_suffix("").parts) not in NETWORKS:
                assert not heavy, f"{path.relative_to(ROOT)} imports {heavy} at its top"


def test_the_engine_knows_no_files_formats_or_http() -> None:
    for path in (ROOT / "retrieval").rglob("*.py"):
        outside = {name.split(".")[0] for name in imported(path)} & {"pydicom", "nibabel", "fastapi", "typer", "rich"}
        assert not outside, path.name


def test_a_command_starts_without_what_only_some_commands_need() -> None:
    heavy = {"torch", "faiss", "pydicom", "nibabel", "SimpleITK", "scipy", "sklearn", "fastapi", "pyarrow", "openai"}
    code = f"import sys, indexer.cli.app; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow  # every module anew
def test_any_module_may_be_imported_first() -> None:
    """No circle of imports hides behind who happened to come first."""
    code = f"""
import importlib, sys
for name in {sorted(_modules())!r}:
    for loaded in [each for each in sys.modules if each.split(".")[0] in {PACKAGES!r}]:
        del sys.modules[loaded]
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _modules() -> set[str]:
    paths = [
        path.relative_to(ROOT).with_suffix("") for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py")
    ]
    return {".".join(path.parts).removesuffix(".__init__") for path in paths}
