"""The page in Chromium, on a desktop and on a phone: every interaction of docs/guide/serve.md."""

import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskselect.data.clips import write_video
from maskselect.ops import rle
from maskselect.serving.settings import Settings
from tests.serving.conftest import live, wait_for
from tests.serving.stub import cells_model, png, writer_model

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed; on Debian: apt-get install chromium", allow_module_level=True)

DESKTOP = {"viewport": {"width": 1280, "height": 800}, "permissions": ["clipboard-read", "clipboard-write", "camera"]}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
PROMPT = "the red cells"
SHOTS = os.environ.get("MASKSELECT_SCREENSHOTS")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with live(cells_model()) as (found, _):
        yield found


class Opened:
    """A page that fails its test on an error of the script or a request to another host."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(600_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: self.faults.append(m.text) if "Content Security" in m.text else None)
        self.page.on("request", self._note)
        self.address = address
        self.page.goto(f"{address}/")
        self.page.wait_for_selector("body[data-ready]")

    def _note(self, request: Any) -> None:
        self.asked.append(request.url)
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(request.url)

    def open(self, content: bytes | None = None, name: str = "photo.png", kind: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": content or png(0, 384, 512)})
        self.page.wait_for_selector("#stage:not([hidden])")

    def ask(self, text: str = PROMPT) -> Any:
        self.page.fill("#prompt", text)
        self.page.click("#send")
        card = self.page.locator(".card", has=self.page.get_by_role("button", name=text, exact=True))
        card.wait_for()
        return card

    def at(self, column: float, row: float) -> tuple[float, float]:
        """Pixels of the window at a place of the picture in cells of the grid of four."""
        box = self.page.locator("#view").bounding_box()
        return box["x"] + box["width"] * column / 4, box["y"] + box["height"] * row / 4

    def pixel(self, column: float, row: float) -> list[int]:
        """The colour that is drawn over the picture there: r, g, b, alpha."""
        script = """([c, r]) => { const v = document.getElementById("view");
            return [...v.getContext("2d").getImageData(c * v.width / 4, r * v.height / 4, 1, 1).data]; }"""
        return self.page.evaluate(script, [column, row])

    def until(self, script: str) -> None:
        """Wait for a condition. Playwright's own `wait_for_function` needs eval, which the page forbids."""
        wait_for(lambda: self.page.evaluate(script))

    def count(self, card: Any) -> int:
        text = card.locator(".result").inner_text()
        return int(text.split()[0]) if text[0].isdigit() else 0

    def close(self) -> None:
        self.context.close()
        assert not self.faults, self.faults


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    page = Opened(browser, address, **DESKTOP)
    page.open()
    yield page
    page.close()


@pytest.fixture
def phone(browser: Any, address: str) -> Iterator[Opened]:
    page = Opened(browser, address, **PHONE)
    page.open()
    yield page
    page.close()


def group_at(threshold: float, prompt: str = PROMPT, references: list[Any] | None = None) -> Any:
    return cells_model().select(png(0, 384, 512), prompt, references, threshold=threshold)


def test_hover_shows_the_candidate_at_once(opened: Opened) -> None:
    before = len(opened.asked)
    opened.page.mouse.move(*opened.at(1.5, 0.5))
    assert opened.page.locator("#tip").inner_text() == "candidate 1"
    assert opened.pixel(1.5, 0.5)[3] > 0 and opened.pixel(2.5, 0.5)[3] == 0
    opened.page.keyboard.press("Escape")  # from the prompt to the picture
    opened.page.keyboard.press("n")  # the next larger one at the same place is the left half
    assert opened.page.locator("#tip").inner_text() == "candidate 17"
    assert opened.pixel(0.5, 3.5)[3] > 0
    assert len(opened.asked) == before, "hovering asked the server"


def test_a_click_makes_a_reference(opened: Opened) -> None:
    opened.page.fill("#prompt", "left of ")
    opened.page.mouse.click(*opened.at(2.5, 1.5))
    assert opened.page.input_value("#prompt") == "left of [1]"
    assert opened.page.locator("#references li").inner_text().startswith("[1] candidate 6")
    opened.page.click("#send")
    card = opened.page.locator(".card")
    card.wait_for()
    mask = np.zeros((384, 512), bool)
    mask[96:192, 256:384] = True
    assert opened.count(card) == len(group_at(0.5, "left of <mask-ref>", [mask]))
    opened.page.get_by_label("Remove reference 1").click()
    assert opened.page.input_value("#prompt") == "left of" and not opened.page.locator("#references li").count()


def test_shift_and_click_adds_and_removes(opened: Opened) -> None:
    card = opened.ask()
    before = opened.count(card)
    chosen = {
        tuple(mask.any(0).nonzero()[0][[0, -1]]) + tuple(mask.any(1).nonzero()[0][[0, -1]]) for mask in group_at(0.5)
    }
    row, column = next(
        (r, c) for r in range(4) for c in range(4) if (c * 128, c * 128 + 127, r * 96, r * 96 + 95) not in chosen
    )
    opened.page.keyboard.down("Shift")
    opened.page.mouse.click(*opened.at(column + 0.5, row + 0.5))
    assert opened.count(card) == before + 1 and opened.pixel(column + 0.5, row + 0.2)[3] > 0
    opened.page.mouse.click(*opened.at(column + 0.5, row + 0.5))
    opened.page.keyboard.up("Shift")
    assert opened.count(card) == before and not opened.page.locator("#references li").count()


def test_a_selection_needs_no_prompt(opened: Opened) -> None:
    opened.page.get_by_text("Add / remove").click()
    opened.page.mouse.click(*opened.at(0.5, 0.5))
    opened.page.mouse.click(*opened.at(3.5, 3.5))
    card = opened.page.locator(".card")
    assert card.locator("h2").inner_text().strip() == "selection" and opened.count(card) == 2
    for _ in range(2):
        opened.page.click("#undo")
    assert not card.count()


def test_a_drag_is_a_box(opened: Opened) -> None:
    opened.page.mouse.move(*opened.at(0.5, 0.5))
    opened.page.mouse.down()
    opened.page.mouse.move(*opened.at(1.5, 1.0))
    opened.page.mouse.move(*opened.at(2.0, 1.5))
    opened.page.mouse.up()
    chip = opened.page.locator("#references li")
    chip.wait_for()
    numbers = [int(one) for one in re.findall(r"\d+", chip.inner_text())[1:]]
    assert np.abs(np.array(numbers) - [64, 48, 256, 144]).max() <= 2
    assert opened.page.input_value("#prompt") == "[1]"


def test_a_point_is_a_reference(opened: Opened) -> None:
    opened.page.keyboard.down("Alt")
    opened.page.mouse.click(*opened.at(3.5, 2.5))
    opened.page.keyboard.up("Alt")
    opened.page.locator("#references li", has_text="point").wait_for()
    assert opened.pixel(3.1, 2.1)[3] > 0, "the mask of the point is not shown"


def test_several_prompts_stand_side_by_side(opened: Opened) -> None:
    first, second = opened.ask(), opened.ask("the blue cells")
    assert opened.page.locator(".card canvas").count() == 2
    assert "active" in second.get_attribute("class") and "active" not in first.get_attribute("class")
    opened.ask()  # again: no third card
    assert opened.page.locator(".card").count() == 2
    second.get_by_label("Show or hide").click()
    assert second.get_by_label("Show or hide").get_attribute("aria-pressed") == "false"
    second.get_by_label("Remove").click()
    assert opened.page.locator(".card").count() == 1


def test_the_slider_asks_nothing(opened: Opened) -> None:
    card = opened.ask()
    before = len(opened.asked)
    for threshold in (0.2, 0.65, 0.9):
        card.get_by_role("slider").evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }",
            threshold,
        )
        assert opened.count(card) == len(group_at(threshold))
    assert len(opened.asked) == before
    opened.page.click("#undo")
    assert card.locator("output").inner_text() == "0.65"
    opened.page.keyboard.press("Control+z")
    assert card.locator("output").inner_text() == "0.20"


def test_undo_goes_back_to_the_start(opened: Opened) -> None:
    opened.page.mouse.click(*opened.at(0.5, 0.5))
    opened.ask("left of [1]")
    assert opened.page.locator(".card").count() == 1
    opened.page.click("#undo")
    assert opened.page.locator(".card").count() == 0 and opened.page.locator("#references li").count() == 1
    opened.page.click("#undo")
    assert opened.page.locator("#references li").count() == 0 and opened.page.locator("#undo").is_disabled()


def test_why_shows_the_scores_of_all_candidates(opened: Opened) -> None:
    card = opened.ask()
    card.get_by_role("button", name="Why").click()
    rows = card.locator(".why button")
    scores = np.sort(group_at(0.5).candidate_scores)[::-1]
    assert rows.count() == 18
    shown = [float(text) for text in card.locator(".why button > span:nth-child(3)").all_inner_texts()]
    np.testing.assert_allclose(shown, scores, atol=6e-4)
    before, row = opened.count(card), rows.nth(17)
    number = row.get_attribute("data-number")
    row.hover()
    assert opened.page.locator("#tip").inner_text().startswith(f"candidate {number}, score")
    row.click()
    assert opened.count(card) == before + 1 and "added by hand" in card.locator(".why").inner_text()


@pytest.mark.parametrize(
    "label", ["JSON", "PNG", "PNG per mask", "Overlay", "COCO", "COCO polygons", "labelme", "YOLO", "SVG"]
)
def test_downloads(opened: Opened, label: str) -> None:
    opened.ask()
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name=label, exact=True).click()
    content = Path(download.value.path()).read_bytes()
    name = download.value.suggested_filename
    group = group_at(0.5)
    if label == "JSON":
        assert name == "photo.json"
        assert json.loads(content) == json.loads(json.dumps(group.to_json("photo.png", "cells")))
    elif label == "PNG":
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))) > 0, group.mask)
    elif label == "SVG":
        assert content.decode() == group.to_svg()
    elif label == "Overlay":
        assert Image.open(io.BytesIO(content)).width >= 512
    else:
        assert name.endswith(".zip") and zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_the_python_call_gives_the_same(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.page.mouse.click(*opened.at(2.5, 1.5))
    card = opened.ask("left of [1]")
    opened.page.click("#python")
    opened.page.get_by_text("Copied", exact=True).wait_for()
    text = opened.page.evaluate("navigator.clipboard.readText()")
    (tmp_path / "photo.png").write_bytes(png(0, 384, 512))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskselect.load", lambda name: cells_model(), raising=False)
    names: dict[str, Any] = {}
    exec(text, names)
    assert len(names["group"]) == opened.count(card) and names["group"].prompt == "left of <mask-ref>"
    mask = np.zeros((384, 512), bool)
    mask[96:192, 256:384] = True
    np.testing.assert_array_equal(names["group"].references, mask[None])


def test_the_keyboard_reaches_everything(opened: Opened) -> None:
    page = opened.page
    page.locator("#view").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text() == "candidate 0"
    page.keyboard.press("ArrowRight")
    second = page.locator("#tip").inner_text()
    assert second != "candidate 0"
    page.keyboard.press("Enter")
    assert second in page.locator("#references li").inner_text()
    page.keyboard.press("b")
    page.locator("#references li", has_text="box").wait_for()
    page.keyboard.press("p")
    page.locator("#references li", has_text="point").wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.fill("#prompt", PROMPT)
    page.keyboard.press("Enter")
    card = page.locator(".card")
    card.wait_for()
    before = opened.count(card)
    page.locator("#view").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Enter")
    assert abs(opened.count(card) - before) == 1
    page.keyboard.press("?")
    assert page.locator("#about").is_visible()
    page.keyboard.press("Escape")
    for _ in range(30):  # Tab goes through every control, and never gets stuck
        page.keyboard.press("Tab")
    missed = "[...document.querySelectorAll('button, input, canvas')].filter(e => e.offsetParent && e.id !== 'photo'"
    assert page.evaluate(f"{missed} && e.tabIndex < 0 && !e.closest('.card')).length") == 0
    unnamed = "[...document.querySelectorAll('button')].filter(e => !e.textContent.trim() && !e.ariaLabel).length"
    assert page.evaluate(unnamed) == 0


def test_drop_and_paste_open_pictures(browser: Any, address: str) -> None:
    opened = Opened(browser, address, **DESKTOP)
    script = """([name, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "x.png", { type: "image/png" }));
        const event = name === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event); }"""
    for name, size in (("drop", (40, 60)), ("paste", (60, 40))):
        opened.page.evaluate(script, [name, list(png(0, *size))])
        wide = f"document.getElementById('view').width === {size[1]}"
        opened.until(wide)
    assert opened.page.locator("#count").inner_text() == "18 candidates"
    opened.close()


def test_the_camera_takes_a_picture(browser: Any, address: str) -> None:
    opened = Opened(browser, address, **DESKTOP)
    opened.page.click("#camera")
    opened.until("document.querySelector('#lens video').videoWidth > 0")
    opened.page.click("#shoot")
    opened.page.wait_for_selector("#stage:not([hidden])")
    assert opened.page.locator("#count").inner_text() == "18 candidates"
    opened.close()


def test_a_sample_comes_with_prompts(browser: Any, address: str) -> None:
    opened = Opened(browser, address, **DESKTOP)
    opened.page.click("#sample")
    opened.page.wait_for_selector("#stage:not([hidden])")
    opened.page.locator("#suggestions button").first.click()
    opened.page.locator(".card").wait_for()
    assert opened.page.input_value("#prompt") == opened.page.locator("#suggestions button").first.inner_text()
    opened.close()


def test_a_tap_is_a_point_on_a_phone(phone: Opened) -> None:
    phone.page.touchscreen.tap(*phone.at(3.5, 2.5))
    phone.page.locator("#references li", has_text="point").wait_for()
    phone.page.get_by_text("Add / remove").tap()
    phone.page.touchscreen.tap(*phone.at(0.5, 0.5))
    assert phone.count(phone.page.locator(".card")) == 1


def test_the_page_fits_a_phone(phone: Opened) -> None:
    card = phone.ask()
    card.get_by_role("button", name="Why").tap()
    width = phone.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page is wider than the phone"
    small = """[...document.querySelectorAll('button, input:not([type=file]):not([type=radio])')]
        .filter(e => e.offsetParent && e.getBoundingClientRect().height < 28).map(e => e.outerHTML)"""
    assert phone.page.evaluate(small) == []
    assert float(phone.page.evaluate("parseFloat(getComputedStyle(document.querySelector('#prompt')).fontSize)")) >= 16


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_is_readable_in_dark_and_light(browser: Any, address: str, scheme: str) -> None:
    opened = Opened(browser, address, **DESKTOP, color_scheme=scheme)
    opened.open()
    opened.ask()
    for switched in (False, True):
        ratios = opened.page.evaluate(CONTRAST)
        assert min(ratios.values()) >= 4.5, (switched, ratios)
        opened.page.click("#theme")
    opened.close()


CONTRAST = """() => {
    const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((v) => { v /= 255;
        return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const back = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
        if (!/rgba\\(.*, 0\\)/.test(c)) return c; } return "rgb(255, 255, 255)"; };
    const names = ["h1", "#model", "#open", ".result", "#count", "#keys", ".card h2", "#python", "#undo"];
    return Object.fromEntries(names.map((s) => {
        const e = document.querySelector(s), [a, b] = [light(getComputedStyle(e).color), light(back(e))];
        return [s, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })); }"""


def test_errors_are_shown_and_the_page_goes_on(opened: Opened) -> None:
    message = opened.page.locator("#message")
    opened.page.fill("#prompt", "explode")
    opened.page.click("#send")
    message.wait_for()
    assert message.inner_text() == "this prompt is refused"
    opened.page.fill("#prompt", "left of [3]")
    opened.page.click("#send")
    opened.until("document.getElementById('message').textContent.includes('reference 3')")
    opened.page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"nothing"})
    opened.until("document.getElementById('message').textContent.includes('not an image')")
    assert opened.count(opened.ask()) and message.is_hidden()


def test_a_forgotten_picture_is_sent_again(browser: Any) -> None:
    with live(cells_model(), Settings(port=0, pictures=1)) as (address, server):
        opened = Opened(browser, address, **DESKTOP)
        opened.open()
        server.pictures.read(png(5))
        assert opened.count(opened.ask()) == len(group_at(0.5))
        opened.close()


def test_a_server_with_a_token_asks_for_it(browser: Any) -> None:
    with live(cells_model(), Settings(port=0, token="a-long-secret")) as (address, _):
        context = browser.new_context(**DESKTOP)
        page = context.new_page()
        page.set_default_timeout(600_000)
        page.goto(address)
        page.fill("#token", "a-long-secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        page = browser.new_context(**DESKTOP).new_page()
        page.goto(f"{address}/#token=a-long-secret")
        page.wait_for_selector("body[data-ready]")
        assert "token" not in page.url
        context.close()


def test_a_system_without_candidates_has_a_page(browser: Any) -> None:
    with live(writer_model()) as (address, _):
        opened = Opened(browser, address, **DESKTOP)
        opened.open()
        assert opened.page.locator("#count").inner_text() == "masks come with the answer"
        card = opened.ask("cups")
        assert opened.count(card) == 2 and not card.get_by_role("slider").count()
        assert opened.pixel(1.5, 1.5)[3] > 0 and opened.pixel(0.5, 0.5)[3] == 0
        card.get_by_role("button", name="Why").click()
        assert "The model wrote: cells for cups" in card.inner_text()
        opened.page.mouse.click(*opened.at(1.5, 1.5))  # a mask of the answer as a reference
        assert opened.page.locator("#references li").inner_text().startswith("[1] candidate 0")
        with opened.page.expect_download() as download:
            opened.page.get_by_role("button", name="PNG", exact=True).click()
        assert np.asarray(Image.open(download.value.path())).any(0).sum() == 256
        opened.close()


def test_candidates_of_an_answer_can_be_selected(browser: Any) -> None:
    with live(cells_model(own=True)) as (address, _):
        opened = Opened(browser, address, **DESKTOP)
        opened.open()
        card = opened.ask()
        assert opened.count(card) == len(group_at(0.5)) and card.get_by_role("slider").count() == 1
        with opened.page.expect_download() as download:
            opened.page.get_by_role("button", name="JSON", exact=True).click()
        masks = json.loads(Path(download.value.path()).read_text())["masks"]
        np.testing.assert_array_equal(rle.decode(masks[0]["segmentation"]), group_at(0.5).masks[0])
        opened.close()


def test_a_model_with_other_rules_is_asked_again(browser: Any) -> None:
    with live(cells_model(best=True)) as (address, _):
        opened = Opened(browser, address, **DESKTOP)
        opened.open()
        card = opened.ask()
        assert opened.count(card) == 1
        card.get_by_role("slider").evaluate("e => { e.value = 1; e.dispatchEvent(new Event('input')); }")
        assert opened.count(card) == 1
        card.get_by_role("slider").evaluate("e => e.dispatchEvent(new Event('change'))")
        card.get_by_text("nothing answers this").wait_for()
        opened.close()


def test_clips(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "clip.mp4", [np.full((96, 128, 3), 40 * n + 20, np.uint8) for n in range(5)], 8)
    with live(cells_model(delay=0.2)) as (address, server):
        opened = Opened(browser, address, **DESKTOP)
        page = opened.page
        opened.open((tmp_path / "clip.mp4").read_bytes(), "clip.mp4", "video/mp4")
        assert page.locator("#frame").inner_text() == "1 / 5"
        page.locator("#scrub").evaluate("e => { e.value = 3; e.dispatchEvent(new Event('input')); }")
        opened.until(
            "Math.abs(document.getElementById('photo').getContext('2d').getImageData(9, 9, 1, 1).data[0] - 140) < 8"
        )
        page.mouse.click(*opened.at(2.5, 2.5))
        assert "point" in page.locator("#references li").inner_text()
        page.fill("#prompt", "left of [1]")
        page.click("#send")
        opened.until("/of 5 frames/.test(document.querySelector('#progress output').textContent)")
        card = page.locator(".card")
        card.wait_for()
        assert card.locator(".result").inner_text() == "1 object" and "in 4 of 5 frames" in card.inner_text()
        assert opened.pixel(1.5, 1.5)[3] > 0, "the object is not shown in frame 4"
        page.locator("#scrub").evaluate("e => { e.value = 0; e.dispatchEvent(new Event('input')); }")
        opened.until("document.getElementById('frame').textContent === '1 / 5'")
        page.wait_for_timeout(500)
        assert opened.pixel(1.5, 1.5)[3] == 0, "the object is shown in a frame without it"
        for label, suffix in (("JSON", "json"), ("PNG per frame", "zip"), ("Video with masks", "mp4")):
            with page.expect_download() as download:
                page.get_by_role("button", name=label, exact=True).click()
            assert download.value.suggested_filename.endswith(suffix)
        server.model.system.delay = 3
        page.fill("#prompt", "another")
        page.click("#send")
        opened.until("/of 5 frames/.test(document.querySelector('#progress output').textContent)")
        page.click("#stop")
        page.locator("#progress").wait_for(state="hidden")
        assert page.locator(".card").count() == 1
        opened.close()
