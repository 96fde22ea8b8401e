"""The page in headless Chromium, over the real service: what a newcomer meets, with mouse and with keys."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from indexer.sandbox import Sandbox
from retrieval.access import AccessKeys
from retrieval.catalog import Catalog
from retrieval.settings import Settings
from tests.api_client import Seeded, seed
from tests.encoder_files import make_open_clip
from tests.studies import index_all, open_gallery, write_pictures, write_series
from tests.test_api_server import Running, running

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Seeded:
    return seed(tmp_path_factory.mktemp("page"), sandbox)


@pytest.fixture(scope="module")
def service(seeded: Seeded) -> Iterator[Running]:
    with running(Settings(home=seeded.home, workers=2)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page; anything that goes wrong in its scripts or is forbidden by its policy fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    yield opened
    context.close()
    assert wrong == []


def visit(page: Page, service: Running, fragment: str = "") -> None:
    page.goto(f"{service.url}/{fragment}")
    page.wait_for_selector("body[data-ready]")


def test_a_newcomer_sees_the_gallery_and_finds_similar_cases_with_one_click(page: Page, service: Running) -> None:
    visit(page, service)
    expect(page.get_by_text("Research and education; not a medical device.")).to_be_visible()
    expect(page.locator(".card")).not_to_have_count(0)
    page.locator("section[aria-label=CT] .face").first.click()
    expect(page.locator("#title")).to_contain_text("most similar")
    expect(page.locator(".hit .rank").first).to_have_text("1")
    expect(page.locator("#asked .pane")).to_have_attribute("data-slices", "5")


def test_dropped_files_are_searched_and_scrolled(page: Page, service: Running, tmp_path: Path) -> None:
    visit(page, service)
    page.locator("#files").set_input_files(write_series(tmp_path, 4, seed=55, patient="P8"))
    expect(page.locator("#asked .about")).to_contain_text("4 slices")
    where = page.locator("#asked .where")
    expect(where).to_contain_text("3 / 4")
    page.locator("#asked .stage").hover()
    page.mouse.wheel(0, 30)
    expect(where).to_contain_text("4 / 4")
    page.get_by_role("button", name="New search").click()
    expect(page.locator("#title")).to_have_text("Gallery")


def test_a_hit_opens_beside_the_query_and_both_scroll_together(page: Page, service: Running, seeded: Seeded) -> None:
    visit(page, service, f"#like={seeded.series[0]}")
    page.locator("#f-patient").select_option("only")
    expect(page.locator(".hit")).to_have_count(1)
    page.locator(".hit .face").click()
    panes = page.locator("#viewer .pane")
    expect(panes).to_have_count(2)
    matches = page.locator(".matches button")
    expect(matches).not_to_have_count(0)
    matches.first.click()
    before = panes.nth(0).locator(".where").inner_text()
    page.keyboard.press("j" if not before.startswith("5") else "k")
    expect(panes.nth(0).locator(".where")).not_to_have_text(before)
    source = panes.nth(1).locator(".slice").get_attribute("src")
    page.get_by_role("button", name="Lung").click()
    expect(panes.nth(1).locator(".where")).to_contain_text("W 1500")
    expect(panes.nth(1).locator(".slice")).not_to_have_attribute("src", source or "")
    page.get_by_role("button", name="Copy citation").click()
    expect(page.locator(".copied")).to_have_text("Copied")
    cited = page.evaluate("navigator.clipboard.readText()")
    assert seeded.series[1] in cited
    assert "not a medical device" in cited
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).not_to_be_visible()


def test_the_keyboard_is_enough(page: Page, service: Running) -> None:
    visit(page, service)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    case_id = page.evaluate("document.activeElement.closest('.card').dataset.case")
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).not_to_have_count(0)
    assert page.url.endswith(f"#like={case_id}")
    page.keyboard.press("/")
    page.keyboard.type("nosuchcase000000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("No case nosuchcase000000")


def test_a_link_to_a_case_opens_it(page: Page, service: Running, seeded: Seeded) -> None:
    visit(page, service, f"#case={seeded.series[2]}")
    expect(page.locator("#viewer .facts-table")).to_contain_text(seeded.series[2])
    page.get_by_role("button", name="Search from this case").click()
    expect(page.locator(".hit")).not_to_have_count(0)


def test_what_can_not_be_read_is_told_in_a_sentence(page: Page, service: Running, tmp_path: Path) -> None:
    visit(page, service)
    (tmp_path / "notes.txt").write_text("no image")
    page.locator("#files").set_input_files(tmp_path / "notes.txt")
    expect(page.get_by_role("alert")).to_contain_text("Not an image")
    page.locator("#files").set_input_files(write_pictures(tmp_path / "p", 1, seed=4))
    expect(page.locator(".hit")).not_to_have_count(0)
    expect(page.get_by_role("alert")).to_be_empty()


def test_an_error_is_seen_and_leaves_the_answer_before_marked_as_such(
    page: Page, service: Running, seeded: Seeded, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 700, "height": 500})
    visit(page, service)
    page.locator("#files").set_input_files(write_pictures(tmp_path / "p", 1, seed=4))
    expect(page.locator(".hit")).not_to_have_count(0)
    before = page.locator("#about-answer").inner_text()
    hits = page.locator(".hit").count()
    page.locator("footer").scroll_into_view_if_needed()
    (tmp_path / "notes.txt").write_text("no image")
    page.locator("#files").set_input_files(tmp_path / "notes.txt")
    alert = page.get_by_role("alert").locator(".notice")
    expect(alert).to_contain_text("notes.txt: Not an image")
    expect(alert).to_contain_text("the answer to the search before")
    expect(alert).to_be_in_viewport(ratio=1)
    expect(page.locator("#about-answer")).to_contain_text("the answer to the search before")
    assert before in page.locator("#about-answer").inner_text()
    assert page.locator(".hit").count() == hits
    page.get_by_role("button", name="Dismiss").click()
    expect(page.get_by_role("alert")).to_be_empty()
    page.locator("#filters summary").click()
    page.locator("#f-kind").select_option("image")  # narrows the answer that is shown
    expect(page.locator("#about-answer")).not_to_contain_text("the search before")
    expect(page.locator(".hit")).to_have_count(len(seeded.pictures))


def test_a_file_that_is_left_out_of_a_query_is_told(page: Page, service: Running, tmp_path: Path) -> None:
    (good,) = write_pictures(tmp_path, 1, seed=4)
    cut = tmp_path / "cut.png"
    cut.write_bytes(good.read_bytes()[:20])
    visit(page, service)
    page.locator("#files").set_input_files([good, cut])
    expect(page.locator("#about-answer")).to_contain_text("1 of the files could not be read")


def test_the_slices_named_on_a_hit_open_when_clicked(page: Page, service: Running, seeded: Seeded) -> None:
    visit(page, service, f"#like={seeded.series[0]}")
    hint = page.locator(".hit .match").first
    numbers = re.findall(r"slice (\d+)", hint.inner_text())
    assert len(numbers) == 2
    hint.click()
    expect(page.locator("#viewer .pane")).to_have_count(2)
    for pane, number in zip(page.locator("#viewer .pane").all(), numbers, strict=True):
        expect(pane.locator(".where")).to_contain_text(f"{number} / 5")


def test_filters_are_folded_where_room_is_scarce(page: Page, service: Running) -> None:
    visit(page, service)
    expect(page.locator("#f-kind")).to_be_visible()
    page.set_viewport_size({"width": 720, "height": 900})
    expect(page.locator("#f-kind")).not_to_be_visible()
    visit(page, service)
    expect(page.locator("#f-kind")).not_to_be_visible()


def test_filters_narrow_the_gallery_and_the_answer(page: Page, service: Running, seeded: Seeded) -> None:
    visit(page, service)
    page.locator("#f-kind").select_option("image")
    expect(page.locator(".card")).to_have_count(len(seeded.pictures))
    page.locator(".face").first.click()
    expect(page.locator(".hit")).to_have_count(len(seeded.pictures) - 1)


def test_markup_in_a_label_stays_text(page: Page, service: Running, seeded: Seeded) -> None:
    label = {"name": "note", "value": "<img src=x onerror=alert(1)>"}
    reply = page.request.patch(f"{service.url}/v1/cases/{seeded.pictures[0]}", data={"labels": [label]})
    assert reply.ok
    visit(page, service, f"#case={seeded.pictures[0]}")
    expect(page.locator("#viewer .chip")).to_contain_text("<img src=x")


def test_an_image_and_a_description_are_asked_together(page: Page, tmp_path: Path, sandbox: Sandbox) -> None:
    encoder = f"open_clip:local-dir:{make_open_clip(tmp_path / 'clip')}"
    write_pictures(tmp_path / "in", 6)
    with open_gallery(tmp_path / "home", encoder=encoder) as gallery:
        index_all(gallery, sandbox, tmp_path / "in")
    with running(Settings(home=tmp_path / "home", workers=1)) as server:
        visit(page, server)
        page.locator("#files").set_input_files(write_pictures(tmp_path / "q", 1, seed=8))
        expect(page.locator(".hit")).to_have_count(6)
        expect(page.locator(".hit .parts")).to_have_count(0)
        page.get_by_label("And described as").fill("a nodule in the upper lobe")
        page.get_by_role("button", name="Search with both").click()
        expect(page.locator("#subtitle")).to_contain_text("one weighted sum, 50% of it text")
        expect(page.locator(".hit .parts").first).to_contain_text("· text")
        page.locator("#also-fusion").select_option("rrf")
        expect(page.locator("#subtitle")).to_contain_text("reciprocal rank")
        expect(page.locator(".hit .parts").first).to_contain_text("(#1)")
        expect(page.get_by_label("And described as")).to_have_value("a nodule in the upper lobe")
        assert page.evaluate(UNNAMED) == 0
        page.get_by_label("And described as").fill("")
        page.keyboard.press("Enter")
        expect(page.locator(".hit .parts")).to_have_count(0)
        page.locator("#ask-text").fill("pleural effusion")
        page.keyboard.press("Enter")
        expect(page.locator("#asked .about")).to_have_text("Description")


def test_a_description_where_there_is_no_text_tower_is_refused_with_a_way_out(page: Page, service: Running) -> None:
    visit(page, service)
    expect(page.locator(".describe")).to_have_count(0)
    page.locator("#ask-text").fill("pleural effusion")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("BiomedCLIP")


def test_an_empty_gallery_says_what_to_run(page: Page, tmp_path: Path) -> None:
    with running(Settings(home=tmp_path / "home", workers=1)) as server:
        visit(page, server)
        expect(page.get_by_text("This gallery is empty")).to_be_visible()
        expect(page.get_by_text("precedent index")).to_be_visible()


def test_a_gallery_with_keys_asks_for_one_and_shows_its_images(page: Page, tmp_path: Path, sandbox: Sandbox) -> None:
    keyed = seed(tmp_path, sandbox)
    with Catalog.open(Settings(home=keyed.home).url) as catalog:
        token = AccessKeys(catalog.database).create_key("reader", "read")
    with running(Settings(home=keyed.home, workers=2)) as server:
        page.goto(f"{server.url}/#case={keyed.series[0]}")
        page.get_by_label("API key").fill(token)
        page.keyboard.press("Enter")
        expect(page.locator("#viewer .slice")).to_have_attribute("src", re.compile("^blob:"))
        page.keyboard.press("Escape")
        expect(page.locator(".card img").first).to_have_js_property("complete", True)
        page.locator(".face").first.click()
        expect(page.locator(".hit")).not_to_have_count(0)


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
def test_nothing_sticks_out_and_text_can_be_read(
    browser: Browser, service: Running, seeded: Seeded, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for fragment in ("", f"#like={seeded.series[0]}"):
        visit(page, service, fragment)
        page.reload()
        page.wait_for_selector("body[data-ready]")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for selector in ("#title", "#subtitle", ".card h3", ".who", "footer"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (selector, scheme)
        assert page.evaluate(UNNAMED) == 0
    context.close()


# Contrast of an element's text to the nearest background behind it (WCAG 2.2, 1.4.3).
CONTRAST = """selector => {
  const element = document.querySelector(selector);
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
      .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  const ground = () => getComputedStyle(behind).backgroundColor;
  while (behind.parentElement && ground() === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const [a, b] = [getComputedStyle(element).color, ground()].map(luminance).sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""

# How many controls have no name for a screen reader.
UNNAMED = """[...document.querySelectorAll("button, input, select")]
  .filter((control) => !control.ariaLabel && !control.textContent && !control.labels?.length).length"""
