"""``precedent evaluate`` in full: the page, its JSON, two galleries side by side, bounds that fail the command."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from indexer.demo.phantoms import generate
from tests.processes import run


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = generate(tmp_path_factory.mktemp("scans"), size="tiny")
    home = table.parent.parent / "home"
    run("index", table.parent, "--labels", table, "--workers", "1", home=home)
    return table


class Seen(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    VOID = ("meta", "img", "br", "link", "input", "line", "circle", "polyline", "polygon")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.refers: list[str] = []
        self.tags: set[str] = set()
        self.without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.refers += [value or "" for name, value in attrs if name in {"src", "href"}]
        self.without_alt += tag == "img" and not dict(attrs).get("alt")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def seen(page: str) -> Seen:
    parser = Seen()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_complete_in_itself_and_says_what_the_json_says(scans: Path, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    home = scans.parent.parent / "home"
    done = run("evaluate", "--labels", scans, "--label", "organ", "--html", place, "--json", home=home)
    figures = json.loads(done.stdout)
    page = place.read_text(encoding="utf-8")
    found = seen(page)
    assert "script" not in found.tags
    assert found.without_alt == 0
    assert all(reference.startswith(("#", "data:image/jpeg;base64,")) for reference in found.refers)
    assert "url(" not in page
    assert {"#" + anchor for anchor in re.findall(r'id="([a-z]+)"', page)} >= {r for r in found.refers if r[0] == "#"}
    assert "pictures of patients" in page
    for measure in figures["measures"]:
        assert f"<td>{measure['value']:.3f}</td>" in page
    assert figures["fingerprint"] in page
    assert figures["appraisal"]["fairness"][0]["attribute"] == "sex"
    assert figures["comparison"] is None
    without = tmp_path / "without.html"
    run("evaluate", "--labels", scans, "--label", "organ", "--html", without, "--no-pictures", home=home)
    assert "data:image" not in without.read_text(encoding="utf-8")


def test_a_bound_that_is_not_kept_fails_the_command(scans: Path) -> None:
    home = scans.parent.parent / "home"
    run("evaluate", "--labels", scans, "--label", "organ", "--fail-under", "P@1=0.1", home=home)
    broken = run(
        "evaluate", "--labels", scans, "--label", "organ", "--fail-under", "P@1=1.01", home=home, code=1
    )  # fmt: skip
    assert "P@1 is" in broken.stderr
    assert "below the 1.01 asked for" in broken.stderr
    unknown = run(
        "evaluate", "--labels", scans, "--label", "organ", "--fail-under", "F1=0.5", home=home, code=2
    )  # fmt: skip
    assert "There is no figure 'F1'" in unknown.stderr


def test_a_gallery_compared_with_itself_shows_no_difference(scans: Path, tmp_path: Path) -> None:
    home = scans.parent.parent / "home"
    place = tmp_path / "two.html"
    done = run("evaluate", "--label", "organ", "--compare", home, "--html", place, "--json", home=home)
    comparison = json.loads(done.stdout)["comparison"]
    assert comparison["only_this"] == 0
    assert {one["difference"] for one in comparison["differences"]} <= {0.0, None}
    assert "no difference shown" in place.read_text(encoding="utf-8")
