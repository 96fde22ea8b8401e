"""Documentation that can rot is generated or checked here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import cli_reference, http_reference
from retrieval.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize(("page", "generated"), [("cli.md", cli_reference), ("http.md", http_reference)])
def test_references_are_what_the_code_says(page: str, generated: object) -> None:
    stored = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert stored == generated(), "run: python -m docs.generate"  # type: ignore[operator]


def test_every_setting_is_in_operations() -> None:
    told = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default != "" else ""
        assert f"| `PRECEDENT_{name.upper()}` | {default}" in told, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-").replace("`", "") for title in titles}, target


def test_tests_named_in_reliability_exist() -> None:
    told = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(test_\w+\.py)`", told)):
        assert (ROOT / "tests" / name).exists(), name


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_shown_exist(page: Path) -> None:
    """Every ``precedent ...`` line in a block names a command and options that are in the reference."""
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for line in re.findall(r"^precedent (\w+)(.*)$", block, flags=re.MULTILINE):
            section = reference.partition(f"## precedent {line[0]}\n")[2].partition("\n## ")[0]
            section += "".join(
                re.findall(rf"## precedent {line[0]} \w+\n(.*?)(?=\n## |\Z)", reference, flags=re.DOTALL)
            )
            assert section, f"precedent {line[0]}"
            for option in re.findall(r"(?<=\s)--[a-z-]+", line[1]):
                assert option in section, f"precedent {line[0]} {option}"


def test_the_compose_file_names_real_settings_and_the_port() -> None:
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert services["precedent"]["ports"] == ["127.0.0.1:8000:8000"]
    known = {f"PRECEDENT_{name.upper()}" for name in Settings.model_fields}
    for service in services.values():
        ours = {name for name in service.get("environment", {}) if name.startswith("PRECEDENT_")}
        assert ours <= known
    assert services["postgres"]["profiles"] == ["postgres"]
