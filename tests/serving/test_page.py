"""The page, driven as a person would in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gossamer.index import InvertedIndex
from gossamer.lsr import Bm25Encoder
from gossamer.recsys import Recommender
from gossamer.serving import Engine, RunningService, ServeSettings

sync = pytest.importorskip(
    "playwright.sync_api", reason="drives a browser: needs playwright, which is absent"
)
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="drives a browser: needs chromium, which is absent")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, service: RunningService) -> Iterator[Any]:
    yield from opened(browser, service.url)


def opened(browser: Any, url: str, **options: Any) -> Iterator[Any]:
    """A page that has connected; whatever the browser complains about fails the test."""
    complaints: list[str] = []
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(url)  # no wait_for_function after it: what it polls with, the page's security policy forbids
    sync.expect(page.locator("#service")).to_contain_text("items")
    yield page
    context.close()
    assert complaints == []


def ask(page: Any, query: str) -> None:
    page.fill("#query", query)
    with page.expect_response("**/search"):
        page.keyboard.press("Enter")
    sync.expect(page.locator("#hits")).not_to_have_attribute("aria-busy", "true")


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.locator(selector).all_inner_texts()
    return found


def test_search_shows_hits_matched_terms_and_expansion(page: Any) -> None:
    assert texts(page, "#service") == ["8 documents · bm25 · 3 users · 7 items"]
    ask(page, "join path segments")
    assert "documents in" in page.inner_text("#search-status")
    first = page.locator(".hit").first
    assert first.locator("h2").inner_text() == "join(a, *paths)"
    assert "Join one or more path segments" in first.locator(".text").inner_text()
    matched = first.locator(".matches .term").all_inner_texts()
    assert sorted(matched) == ["join", "path", "segment"]
    contributions = [float(value) for value in first.locator(".matches .value").all_inner_texts()]
    assert contributions == sorted(contributions, reverse=True)
    assert sum(contributions) == pytest.approx(float(first.locator(".score").inner_text()), abs=0.02)
    shares = first.locator(".matches .bar").evaluate_all(
        "bars => bars.map(bar => Number(bar.style.getPropertyValue('--share')))"
    )
    assert shares == pytest.approx([value / contributions[0] for value in contributions], abs=0.01)
    assert sorted(texts(page, "#expansion-terms .term")) == ["join", "path", "segment"]


def test_filters_come_from_the_collection_and_hold(page: Any) -> None:
    ask(page, "list")
    assert page.locator(".hit").count() > 2
    page.select_option("select[name=kind]", label="method (2)")
    sync.expect(page.locator(".hit")).to_have_count(2)
    assert all("kind method" in about for about in texts(page, ".hit .about"))
    page.reload()  # the question stands in the address
    page.wait_for_selector(".hit")
    assert page.input_value("#query") == "list"
    assert page.locator(".hit").count() == 2


def test_says_why_there_is_nothing(page: Any) -> None:
    ask(page, "zzzunknown")
    assert "vocabulary" in page.inner_text("#search-status")
    page.select_option("select[name=kind]", label="class (1)")
    ask(page, "json document")
    sync.expect(page.locator("#search-status")).to_contain_text("filters")
    assert page.locator(".hit").count() == 0


def test_data_is_never_markup(browser: Any, service: RunningService) -> None:
    for page in opened(browser, f"{service.url}/?q=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%20list"):
        page.wait_for_selector(".hit")
        page.click("#tab-recommend")
        page.fill("#item", "<b id=injected>bold</b>")
        page.keyboard.press("Enter")
        page.wait_for_selector(".chip.unknown")
        assert texts(page, ".chip span") == ["<b id=injected>bold</b>"]
        assert page.locator("#injected, .chips img, .hit img").count() == 0


def test_the_keyboard_is_enough(page: Any) -> None:
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.type("list")
    page.keyboard.press("Enter")
    page.wait_for_selector(".hit")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused) == texts(page, ".hit h2")[1]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "query"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.input_value("#query") == "list"
    page.focus("#tab-search")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".item")
    assert page.get_attribute("#tab-recommend", "aria-selected") == "true"


def test_recommendations_say_what_they_rest_on(page: Any) -> None:
    page.click("#tab-recommend")
    page.wait_for_selector("#source.popularity")
    assert "most popular" in page.inner_text("#source")
    page.locator(".item button").first.click()
    page.wait_for_selector("#source.history")
    assert "From the history of 1 item." in page.inner_text("#source")
    kept = texts(page, ".chip span")
    assert kept[0] not in texts(page, ".item .term")
    page.fill("#item", "never.seen")
    page.keyboard.press("Enter")
    page.wait_for_selector(".chip.unknown")
    assert "Unknown, and left out: never.seen" in page.inner_text("#source")
    page.check("#include-seen")
    sync.expect(page.locator(".item .term").get_by_text(kept[0], exact=True)).to_have_count(1)
    page.locator(".chip button").first.click()
    page.wait_for_selector("#source.popularity")


def test_recommends_to_a_user_by_id(page: Any) -> None:
    page.click("#tab-recommend")
    page.check("input[value=user]")
    page.fill("#user", "reader")
    page.keyboard.press("Enter")
    page.wait_for_selector("#source.user")
    assert {"os", "sys"}.isdisjoint(texts(page, ".item .term"))
    page.fill("#user", "nobody")
    page.keyboard.press("Enter")
    page.wait_for_selector("#source.popularity")
    assert "Nothing is known about nobody" in page.inner_text("#source")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_both_schemes(browser: Any, service: RunningService, scheme: str) -> None:
    options = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    for page in opened(browser, service.url, **options):
        ask(page, "sorted list of path segments")
        for tab in ("#tab-search", "#tab-recommend"):
            page.click(tab)
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(246, 247, 247)") == (scheme == "light")


def test_shows_only_what_is_served(
    browser: Any, empty_service: RunningService, recommender_folder: Path
) -> None:
    with RunningService(Engine(None, Recommender.open(recommender_folder))) as service:
        for page in opened(browser, service.url):
            assert not page.is_visible("#tab-search")
            page.wait_for_selector(".item")


def test_says_why_and_shows_similar_items(page: Any) -> None:
    page.click("#tab-recommend")
    page.fill("#item", "math")
    page.keyboard.press("Enter")
    page.wait_for_selector("#source.history")
    assert texts(page, ".because")[0] == "because of math"
    page.click("[aria-label='Items like statistics']")
    sync.expect(page.locator("#source")).to_have_text("Like statistics, the most similar first.")
    assert texts(page, ".item .term")[:2] == ["math", "random"]


@pytest.fixture
def many(tmp_path: Path, encoder_folder: Path) -> Iterator[RunningService]:
    """Two collections, one of 45 documents that all say the same."""
    encoder = Bm25Encoder.load(encoder_folder)
    for name, count in (("large", 45), ("small", 3)):
        texts = [f"list number {number}" for number in range(count)]
        folder = tmp_path / "collections" / name
        folder.mkdir(parents=True)
        table = pa.table({"id": [f"d{number}" for number in range(count)], "text": texts})
        InvertedIndex.build(
            folder / "index", encoder.encode_documents(texts), documents=table, encoder=encoder.info
        )
        shutil.copytree(encoder_folder, folder / "encoder")
        (folder / "collection.toml").write_text('[retrievers.words]\nindex = "index"\nencoder = "encoder"\n')
    with (folder / "collection.toml").open("a") as config:  # the small one is answered by two
        config.write('[retrievers.again]\nindex = "index"\nencoder = "encoder"\n')
    with RunningService(ServeSettings(collections=tmp_path / "collections")) as service:
        yield service


def test_further_pages_and_other_collections(browser: Any, many: RunningService) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(many.url)
    sync.expect(page.locator("#service")).to_contain_text("45 documents", timeout=20_000)
    ask(page, "list")
    assert page.locator(".hit").count() == 20
    for expected in (40, 45):
        page.click("#hits-more")
        sync.expect(page.locator(".hit")).to_have_count(expected)
    assert page.locator("#hits-more").is_hidden()
    assert len(set(texts(page, ".hit h2"))) == 45
    page.select_option("#collection", "small")
    sync.expect(page.locator("#service")).to_contain_text("3 documents")
    ask(page, "list")
    assert page.locator(".hit").count() == 3
    ranks = [f"{name} no. {rank}" for rank in (1, 2, 3) for name in ("words", "again")]
    assert texts(page, ".hit .rank") == ranks
    assert "c=small" in page.url
    context.close()
