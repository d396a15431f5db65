"""The review page in a real browser: keys, two tabs, hostile names, and nothing that leaves the machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_records import made
from conftest import Plant
from fakes import texture, with_scratch, with_square
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright
from review_parts import asking, audited, desk_of

from flawscope.agent.review.pictures import shown_overlay, shown_picture
from flawscope.agent.review.server import ReviewServer
from flawscope.audits.record_file import RecordWriter

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
HOSTILE = '"><img src=x onerror=alert(1)> & \u202egnp.png'
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """Chromium as Debian packs it, with an empty profile."""
    with sync_playwright() as started:
        context = started.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            headless=True,
            viewport={"width": 1280, "height": 800},
        )
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield context
        context.close()


@pytest.fixture
def server(plant: Plant, tmp_path: Path) -> Iterator[ReviewServer]:
    """Three parts of an audit and a workflow that waits."""
    from conftest import save

    images = [
        save(tmp_path / "parts", "square.png", with_square(texture(401), 40, 40)),
        save(tmp_path / "parts", HOSTILE, with_scratch(texture(402))),
        save(tmp_path / "parts", "good.png", texture(403)),
    ]
    loaded = plant.loaded(ask_human=True, max_actions=0)
    folder = audited(plant.loaded(), tmp_path / "audit", images)
    with asking(loaded, tmp_path / "t.sqlite") as (inspector, threads):
        dict(inspector.stream(plant.square, product="plate", thread_id="order 7"))
        limit = loaded.settings.max_pixels
        draw = {
            "picture": lambda item: shown_picture(item, max_pixels=limit),
            "overlay": lambda item: shown_overlay(item, inspector.deps, max_pixels=limit),
        }
        desk = desk_of(tmp_path, folder, threads=threads)
        with ReviewServer(desk, by="Kim", draw=draw, types=lambda product: ["hole", "scratch"]) as made:
            thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            yield made
            made.shutdown()
            thread.join()


class Watched:
    """A tab, with what it asked for and complained about."""

    def __init__(self, browser: BrowserContext, server: ReviewServer) -> None:
        self.page: Page = browser.new_page()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.page.goto(server.url)
        expect(self.page.locator("#name")).not_to_be_empty()
        self.settled()

    def settled(self) -> None:
        """Until the picture is there."""
        self.page.wait_for_function(
            "() => { const p = document.getElementById('picture');"
            " return p.closest('[hidden]') || !p.hasAttribute('src') || (p.complete && p.naturalWidth > 0); }"
        )

    def press(self, key: str) -> None:
        """A key, once the picture of the part that is shown is there: until then none decides."""
        expect(self.page.locator("#frame")).to_have_attribute("aria-busy", "false")
        self.page.keyboard.press(key)

    def choose(self, text: str) -> None:
        """Click the row with this text and wait until it is the one shown."""
        self.page.locator("#list button", has_text=text).click()
        expect(self.page.locator("#list [aria-current]")).to_contain_text(text)

    def shot(self, name: str) -> None:
        """A screenshot, where somebody wants to look."""
        if folder := os.environ.get("REVIEW_SCREENSHOTS"):
            self.settled()
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def tab(browser: BrowserContext, server: ReviewServer) -> Iterator[Watched]:
    watched = Watched(browser, server)
    yield watched
    watched.page.close()


def kinds(server: ReviewServer) -> list[str]:
    return [entry.kind for entry in server.desk.journal.entries()]


def test_the_queue_is_worked_through_with_keys(tab: Watched, server: ReviewServer) -> None:
    page = tab.page
    expect(page.locator("#progress")).to_have_text("4 open, 0 decided")
    expect(page.locator("#name")).to_have_text("square.png")
    expect(page.locator("#boxes rect.inner")).not_to_have_count(0)
    tab.shot("first")
    page.keyboard.press("v")
    expect(page.locator("#view")).to_have_attribute("aria-pressed", "true")
    page.wait_for_function("() => document.getElementById('picture').src.includes('/overlay/')")
    tab.shot("map")
    page.keyboard.press("v")
    tab.press("n")
    expect(page.locator("#kind")).to_be_visible()
    tab.shot("types")
    page.keyboard.type("Burnt Edge")
    page.keyboard.press("Enter")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    expect(page.locator("#name")).to_have_text(HOSTILE)
    tab.shot("hostile")
    tab.press("s")
    expect(page.locator("#name")).to_have_text("good.png")
    page.keyboard.press("/")
    page.keyboard.type("only dust & <b>light</b>")
    page.keyboard.press("Escape")
    tab.press("o")
    expect(page.locator("#progress")).to_have_text("2 open, 2 decided")
    tab.press("u")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    expect(page.locator("#name")).to_have_text("good.png")
    expect(page.locator("#said")).to_have_text("good.png: open again.")
    decisions = [entry.data["decision"] for entry in server.desk.journal.entries() if entry.kind == "decided"]
    assert [(d["verdict"], d["defect_type"], d["note"]) for d in decisions] == [
        ("NG", "burnt_edge", ""),
        ("OK", None, "only dust & <b>light</b>"),
    ]
    assert kinds(server) == ["decided", "decided", "undone"]
    page.locator("[data-filter=decided]").click()
    expect(page.locator("#list li")).to_have_count(2)  # the decided one, and the one that is shown
    page.locator("#list button").first.click()
    expect(page.locator("#facts")).to_contain_text("NG · burnt edge by Kim")
    expect(page.locator("#ok")).to_be_disabled()
    tab.shot("decided")
    assert tab.complaints == []
    assert all(url.startswith((server.url, "data:")) for url in tab.asked), tab.asked


def test_a_workflow_goes_on_and_asks_again(tab: Watched, server: ReviewServer) -> None:
    page = tab.page
    tab.choose("a workflow waits")
    tab.shot("workflow")
    tab.press("n")
    page.keyboard.press("1")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    assert kinds(server) == ["decided", "resumed"]
    tab.press("u")
    expect(page.locator("#progress")).to_have_text("4 open, 0 decided")
    assert kinds(server) == ["decided", "resumed", "undone", "reopened"]
    assert tab.complaints == []


def test_a_second_tab_cannot_decide_twice(tab: Watched, browser: BrowserContext, server: ReviewServer) -> None:
    other = Watched(browser, server)
    other.press("o")
    expect(other.page.locator("#progress")).to_have_text("3 open, 1 decided")
    expect(tab.page.locator("#name")).to_have_text("square.png")
    tab.page.locator("#ok").click()
    expect(tab.page.locator("#said")).to_contain_text("Somebody was quicker: OK by Kim.")
    expect(tab.page.locator("#progress")).to_have_text("3 open, 1 decided")
    tab.shot("conflict")
    assert kinds(server) == ["decided"]
    other.page.close()


def test_a_decision_is_confirmed_and_both_are_taken_back(tab: Watched, server: ReviewServer) -> None:
    page = tab.page
    expect(page.locator("#confirm")).to_be_hidden()
    tab.press("c")  # nothing is decided that could be confirmed
    tab.press("o")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    page.locator("[data-filter=decided]").click()
    page.locator("#list button").first.click()
    expect(page.locator("#name")).to_have_text("square.png")
    expect(page.locator("#confirm")).to_be_enabled()
    tab.shot("to-confirm")
    tab.press("c")
    expect(page.locator("#said")).to_have_text("square.png: OK confirmed.")
    expect(page.locator("#facts")).to_contain_text("OK by Kim, confirmed by Kim")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided, 1 of them confirmed")
    expect(page.locator("#confirm")).to_be_hidden()
    assert kinds(server) == ["decided", "confirmed"]
    tab.press("u")
    expect(page.locator("#said")).to_have_text("square.png: no longer confirmed.")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    page.locator("#confirm").click()
    expect(page.locator("#said")).to_have_text("square.png: OK confirmed.")
    page.locator("[data-filter=open]").click()
    page.locator("#list button", has_text="good.png").click()
    expect(page.locator("#name")).to_have_text("good.png")
    for told in ("square.png: no longer confirmed.", "square.png: open again."):  # the last, step by step
        page.locator("#undo").click()
        expect(page.locator("#said")).to_have_text(told)
    assert kinds(server) == ["decided", "confirmed", "unconfirmed", "confirmed", "unconfirmed", "undone"]
    assert tab.complaints == []


def test_somebody_else_confirms_where_the_setting_asks_so(tab: Watched, server: ReviewServer) -> None:
    server.desk._second_person = True
    tab.press("o")
    expect(tab.page.locator("#progress")).to_have_text("3 open, 1 decided")
    tab.page.locator("[data-filter=decided]").click()
    tab.page.locator("#list button", has_text="OK by Kim").click()
    expect(tab.page.locator("#name")).to_have_text("square.png")
    tab.press("c")
    expect(tab.page.locator("#said")).to_contain_text("may not confirm it too")
    assert kinds(server) == ["decided"]
    server.by = "Ada"
    tab.press("c")
    expect(tab.page.locator("#facts")).to_contain_text("OK by Kim, confirmed by Ada")


def test_a_picture_that_could_not_be_read_has_no_ok(tab: Watched, server: ReviewServer, tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "audit" / "records.jsonl") as writer:
        writer.append([made(9, error="input", image="torn.png")])
    page = tab.page
    page.reload()
    page.locator("#list button", has_text="torn.png").click()
    expect(page.locator("#facts")).to_contain_text("Take the picture again and inspect it")
    expect(page.locator("#ok")).to_be_disabled()
    tab.shot("unread")
    tab.press("o")
    expect(page.locator("#said")).to_contain_text("could not be read, so it cannot be OK")
    assert kinds(server) == []
    page.locator("#ng").click()
    page.keyboard.press("Enter")
    expect(page.locator("#progress")).to_have_text("4 open, 1 decided")


def test_names_are_text(tab: Watched) -> None:
    assert tab.page.locator("#list img").count() == 0
    assert tab.page.locator("#list .what").all_text_contents()[1] == HOSTILE
    tab.page.locator("#list button").nth(1).click()
    expect(tab.page.locator("#name")).to_have_text(HOSTILE)
    assert tab.page.locator("aside img, aside script").count() == 0
    assert tab.complaints == []


def test_it_can_be_used_without_a_mouse_and_in_the_dark(tab: Watched) -> None:
    page = tab.page
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.evaluate("() => [document.activeElement.tagName, document.activeElement.textContent.trim()]")
        assert focused[0] in ("BUTTON", "TEXTAREA", "BODY"), focused
    unnamed = "() => [...document.querySelectorAll('button')].filter((b) => !b.textContent.trim()).length"
    assert page.evaluate(unnamed) == 0
    assert page.locator("#picture").get_attribute("alt")
    page.emulate_media(color_scheme="dark")
    tab.shot("dark")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    page.set_viewport_size({"width": 420, "height": 800})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    tab.shot("narrow")


def test_what_was_asked_for_last_is_shown_whatever_answer_comes_last(tab: Watched, server: ReviewServer) -> None:
    page, held = tab.page, []

    def hold_first(route: Any) -> None:
        held.append(route)
        if len(held) > 1:
            route.continue_()

    page.route("**/item/*", hold_first)
    page.locator("#list button").nth(1).click()
    page.locator("#list button", has_text="good.png").click()
    expect(page.locator("#name")).to_have_text("good.png")
    with page.expect_response("**/item/*"):
        held[0].continue_()
    page.evaluate("() => new Promise((done) => setTimeout(done, 200))")  # the page has taken the late answer
    expect(page.locator("#name")).to_have_text("good.png")
    tab.press("o")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    (entry,) = server.desk.journal.entries()
    assert entry.data["item"]["image"].endswith("good.png")
    page.unroute("**/item/*")


@pytest.mark.parametrize("late", ["item", "picture"])
def test_nothing_is_decided_while_another_picture_is_on_its_way(late: str, tab: Watched, server: ReviewServer) -> None:
    page, held = tab.page, []

    def hold(route: Any) -> None:  # the method of a list cannot take the attribute that Playwright sets
        held.append(route)

    page.route(f"**/{late}/*", hold)
    page.locator("#list button", has_text="a workflow waits").click()
    if late == "picture":
        expect(page.locator("#list [aria-current]")).to_contain_text("a workflow waits")
    for button in ("#ok", "#ng", "#skip"):
        expect(page.locator(button)).to_be_disabled()
    for key in "onsu":
        page.keyboard.press(key)
    expect(page.locator("#kind")).to_be_hidden()
    while not held:  # the browser has asked; this process hears of it later
        page.wait_for_timeout(10)
    held[0].continue_()
    expect(page.locator("#frame")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#list [aria-current]")).to_contain_text("a workflow waits")
    expect(page.locator("#progress")).to_have_text("4 open, 0 decided")
    assert kinds(server) == []
    page.unroute(f"**/{late}/*")
    tab.press("o")
    expect(page.locator("#progress")).to_have_text("3 open, 1 decided")
    assert kinds(server) == ["decided", "resumed"]
    assert tab.complaints == []


def test_a_picture_that_changed_is_not_shown(tab: Watched, server: ReviewServer, tmp_path: Path) -> None:
    (tmp_path / "parts" / "good.png").write_bytes((tmp_path / "parts" / "square.png").read_bytes())
    tab.page.locator("#list button").nth(2).click()
    expect(tab.page.locator("#missing")).to_contain_text("has changed since it was inspected")
    tab.press("o")
    expect(tab.page.locator("#said")).to_contain_text("has changed since it was inspected")
    tab.shot("changed")
    assert kinds(server) == []


def test_a_server_that_ended_is_said(tab: Watched, server: ReviewServer, monkeypatch: Any) -> None:
    tab.page.context.set_offline(True)
    tab.press("o")
    expect(tab.page.locator("#said")).to_contain_text("does not answer")
    tab.page.context.set_offline(False)
    tab.press("o")
    expect(tab.page.locator("#progress")).to_have_text("3 open, 1 decided")
