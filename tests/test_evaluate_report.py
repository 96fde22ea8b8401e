"""``precedent evaluate`` in full: the page, its JSON, two galleries side by side, bounds that fail the command."""

from __future__ import annotations

import errno
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from indexer.cli.evaluate_command import replace_report
from indexer.demo.phantoms import generate
from indexer.evaluate import Evaluation
from indexer.reporting import Page, render
from indexer.reporting.drawings import interval_plot
from indexer.reporting.page import breakable, counted, interval, number, percent, point_name, with_interval
from retrieval.appraisal.appraise import appraise
from retrieval.appraisal.compare import compare
from retrieval.appraisal.statistics import Figure
from retrieval.appraisal.subjects import Subjects
from retrieval.errors import StorageFull
from retrieval.types import Attributes
from tests.processes import run
from tests.shared_data import shared_root


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = generate(tmp_path_factory.mktemp("scans"), size="tiny")
    home = table.parent.parent / "home"
    run("index", table.parent, "--labels", table, "--workers", "1", home=home)
    return table


class Seen(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    VOID = ("meta", "img", "br")

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

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

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
    refused = run("evaluate", "--labels", scans, "--html", tmp_path / "absent" / "x.html", home=home, code=2)
    assert "Expected a file in a folder that exists for --html" in refused.stderr
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


def test_names_that_look_like_markup_stay_names() -> None:
    """A label's values come from files of others: on the page they are text, in every place where they stand."""
    hostile = ("<script>alert(1)</script>", '"><img src=x>', "a & b")
    generator = np.random.default_rng(0)
    kinds = generator.integers(0, 3, 120)
    rows = np.eye(3, 8)[kinds] + generator.normal(size=(120, 8)) * 0.6
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    subjects = Subjects(
        vectors=rows.astype(np.float32),
        case_ids=tuple(f"case-{row}" for row in range(120)),
        patient_keys=tuple(f"p{row}" for row in range(120)),
        values=tuple((hostile[kind],) for kind in kinds),
        attributes=tuple(Attributes(source=hostile[row % 2], manufacturer=hostile[2]) for row in range(120)),
    )
    appraisal = appraise(subjects, resamples=20)
    evaluation = Evaluation(hostile[0], (hostile[1],), "encoder", "print", "gallery", 120, 0, appraisal.report)
    compared = compare(subjects, subjects, hostile[0], hostile[1], resamples=20)
    broken = ("P@5 is 0.1 <b>, below.",)
    page = render(Page(evaluation, appraisal, subjects, {}, hostile[1], hostile[0], "now", "1", compared, broken))
    found = seen(page)
    assert not {"script", "img"} & found.tags
    assert "<b>, below" not in page
    assert page.count("&lt;script&gt;") > 5
    assert "Too small" not in page
    assert page.count("<svg") >= 3 + 1 + 2  # curves, reliability, two figures by site


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (number(float("nan")), "–"), (number(None), "–"), (number(-0.5, 1), "−0.5"),
        (interval(float("nan"), 1.0), "–"), (interval(0.1, 0.25, 2), "0.10 to 0.25"),
        (with_interval(Figure("x", 0.5, 0.25, 0.75, 9), 2), "0.50 (0.25 to 0.75)"),
        (with_interval(Figure("x", float("nan"), 0, 0, 0)), "–"), (percent(0.005), "0.5 %"), (percent(0.95), "95 %"),
        (counted(1, "case"), "1 case"), (counted(1200, "case"), "1,200 cases"),
        (point_name("sensitivity>=0.90"), "sensitivity ≥ 0.90"), (breakable("a_b"), "a_\u200bb"),
    ],
)  # fmt: skip
def test_how_numbers_are_written(said: str, shown: str) -> None:
    assert said == shown


@pytest.mark.slow
def test_probabilities_on_real_radiographs_can_be_believed(tmp_path: Path) -> None:
    """Test patients of a public set: held-out probabilities are within 0.05 of what comes true, and areas are high."""
    root = shared_root()
    if root is None:
        pytest.skip("the shared real data is not here")
    labels = root / "data" / "cxr_kermany" / "labels.csv"
    bounds = ("--fail-under", "ECE=0.05", "--fail-under", "AUC=0.9", "--fail-under", "P@5=0.8")
    where = ("--where", "split=test", "--encoder", "compact")
    run("evaluate", "--labels", labels, *where, *bounds, "--html", tmp_path / "x.html", home=tmp_path, seconds=280)
    found = seen((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert sum(reference.startswith("data:") for reference in found.refers) > 8


def test_a_full_disk_leaves_the_report_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "report.html"
    replace_report(place, "first")

    def half(self: Path, text: str, **_: object) -> int:
        self.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", half)
        with pytest.raises(StorageFull, match="The report can't be written: no space is left"):
            replace_report(place, "second")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("report.html", "first")]
    replace_report(place, "third")
    assert place.read_text() == "third"


def test_long_names_beside_a_plot_stay_within_it() -> None:
    names = ["GE", "mri2d_cardiac_sunnybrook", "University Hospital of <Somewhere>, Radiology"]
    drawn = str(interval_plot([(name, Figure("P@5", 0.5, 0.4, 0.6, 50)) for name in names], "by site"))
    places = re.findall(r'class="end name" x="([\d.]+)" y="[\d.]+">([^<]+)<title>([^<]+)</title>', drawn)
    assert [unescape(whole) for _, _, whole in places] == names
    assert all(len(unescape(shown)) * 5.5 < float(right) for right, shown, _ in places)
    assert unescape(places[2][1]).endswith("Radiology") and "…" in places[2][1]
