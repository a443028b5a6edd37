"""The gallery in a real headless Chromium, from ``file://``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from msdm_engine.gallery import write_gallery
from msdm_engine.gallery.build import page_of
from msdm_engine.gallery.manifest import read_header, records
from msdm_engine.gallery.measure import measure

pytest.importorskip("selenium", reason="selenium is not installed: pip install 'msdm[dev]'")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update", "--window-size=1200,800"),
)
#: Seconds to wait for what the page does by itself; far more than it takes, so that only its absence fails.
PATIENCE = 30
EVIL = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"

Open = Callable[[Path], "Page"]


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[webdriver.Chrome]:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    service = shutil.which("chromedriver")
    if browser is None or service is None:
        missing = "Chromium or Chrome" if browser is None else "chromedriver"
        pytest.skip(f"no {missing} on the PATH: the gallery is not tested in a browser (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A proxy in the environment would take the connection to the driver on this machine.
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "localhost,127.0.0.1"]))
    with webdriver.Chrome(options, webdriver.ChromeService(service)) as made:
        yield made


class Page:
    """A gallery that is open in the browser."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver = driver
        driver.get(path.as_uri())
        self.wait(lambda: self.all(".cell"))

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, condition: Callable[[], Any]) -> None:
        WebDriverWait(self.driver, PATIENCE).until(lambda _: condition())

    def keys(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def focus_grid(self) -> None:
        self.js("document.getElementById('grid').focus()")

    @property
    def shown(self) -> list[str]:
        """Indices of the pairs in the document, in their order there."""
        return self.js("return [...document.querySelectorAll('.cell .caption b')].map((b) => b.textContent)")

    @property
    def selected(self) -> list[str]:
        return self.js("return [...document.querySelectorAll('.cell[aria-selected=true] b')].map((b) => b.textContent)")

    @property
    def active(self) -> str:
        """Index of the pair that assistive technology is told is the active one."""
        return self.js(
            "return document.getElementById("
            "document.getElementById('grid').getAttribute('aria-activedescendant')).querySelector('b').textContent"
        )

    @property
    def status(self) -> str:
        return self.one("#status").text

    @property
    def title(self) -> str:
        return self.js("return document.getElementById('viewer-title').firstChild.textContent")


@pytest.fixture
def show(driver: webdriver.Chrome) -> Iterator[Open]:
    """Opens a gallery; afterwards the console must be silent."""
    driver.get("about:blank")
    driver.get_log("browser")
    yield lambda path: Page(driver, path)
    assert driver.get_log("browser") == []


@pytest.fixture
def five(write_set: Any) -> Path:
    """Five pairs of 1, 2, 3, 4 and 5 nuclei with falling areas; the last one's texts are hostile."""
    described = [
        {"metadata": {"description": f"{stain} nuclei"}, "agreement": agreement}
        for stain, agreement in (("violet", 0.9), ("pink", 0.5), ("violet", 0.7), ("blue", 0.8), ("blue", 0.6))
    ]
    described[4] |= {"morphology": EVIL, "metadata": {EVIL: EVIL, "description": "blue"}, EVIL: {EVIL: [EVIL]}}
    sides = ([12], [10, 10], [8, 8, 8], [6, 6, 6, 6], [4, 4, 4, 4, 4])
    return write_gallery(write_set(*zip(sides, described, strict=True)))


def test_the_page_opens_from_disk(show: Open, five: Path) -> None:
    page = show(five)
    assert page.shown == ["0", "1", "2", "3", "4"]
    assert page.status == "5 of 5 pairs"
    assert page.one("#notice").text == "Synthetic images, not for diagnosis"
    assert "0123456789ab" in page.one("#origin").text
    assert "CC0-1.0" in page.one("#origin").text
    assert "0123456789abcdef" * 4 in page.one("#about").text
    # Thumbnails are decoded: each has its size of 32 px.
    page.wait(lambda: page.js("return [...document.querySelectorAll('.cell img')].every((i) => i.naturalWidth === 32)"))
    assert page.one(".cell img").get_attribute("alt") == "Pair 0, 1 nucleus, layout round, violet nuclei"


def test_thumbnails_show_the_pictures(show: Open, five: Path, tmp_path: Path) -> None:
    page = show(five)
    page.one("[data-action=outlines]").click()
    page.one(".cell .picture").screenshot(str(tmp_path / "cell.png"))
    seen = cv2.imread(str(tmp_path / "cell.png"))
    assert seen is not None
    side = seen.shape[0]
    # The one nucleus covers pixels 1 to 12 of 32: its middle, and the middle of what is right of it. Blue first.
    inside, outside = seen[round(side * 7 / 32), round(side * 7 / 32)], seen[side // 2, round(side * 0.8)]
    # WebP at the quality of thumbnails moves flat colours by a few units.
    assert inside.astype(int) == pytest.approx([180, 50, 100], abs=12)
    assert outside.astype(int) == pytest.approx([220, 190, 210], abs=12)


def test_outlines_are_those_of_the_mask_and_toggle_and_blink(show: Open, five: Path) -> None:
    page = show(five)
    # The square of 12 from (1, 1): corners (1, 1), (13, 1), (13, 13), (1, 13).
    box = page.js("const b = document.querySelector('.cell .line').getBBox(); return [b.x, b.y, b.width, b.height]")
    assert box == [1, 1, 12, 12]
    assert page.js("return document.querySelector('.cell .line').getTotalLength()") == 48
    outlines = page.one(".cell svg.outlines")
    button = page.one(".tools [data-action=outlines]")
    assert (outlines.is_displayed(), button.get_attribute("aria-pressed")) == (True, "true")
    page.keys("o")
    assert (outlines.is_displayed(), button.get_attribute("aria-pressed")) == (False, "false")
    page.keys("b")  # blinking brings them back
    animation = "return getComputedStyle(document.querySelector('.cell svg.outlines')).animationName"
    assert (outlines.is_displayed(), page.js(animation)) == (True, "blink")
    page.keys("o")
    assert page.js(animation) == "none"
    button.click()
    assert outlines.is_displayed()
    assert page.js(animation) == "none"


def test_filters(show: Open, five: Path) -> None:
    page = show(five)
    query = page.one("#query")
    query.send_keys("VIOLET nuclei")
    page.wait(lambda: page.shown == ["0", "2"])
    assert page.status == "2 of 5 pairs"
    query.clear()
    query.send_keys("0003")  # a file name
    page.wait(lambda: page.shown == ["3"])
    page.one("#reset").click()
    page.wait(lambda: len(page.shown) == 5)
    page.one("[data-limit='nuclei from']").send_keys("2")
    page.one("[data-limit='nuclei to']").send_keys("4")
    page.wait(lambda: page.shown == ["1", "2", "3"])
    page.one("[data-limit='area to']").send_keys("64")
    page.wait(lambda: page.shown == ["2", "3"])
    page.one("[data-limit='agreement  from']").send_keys("0.75")
    page.wait(lambda: page.shown == ["3"])
    page.one("[data-limit='area from']").send_keys("50")
    page.wait(lambda: page.one("#empty").is_displayed())
    assert page.status == "0 of 5 pairs"
    page.one("#empty button").click()
    page.wait(lambda: len(page.shown) == 5)


def test_sorting(show: Open, five: Path) -> None:
    page = show(five)
    sort = Select(page.one("#sort"))
    sort.select_by_value("area")
    assert page.shown == ["4", "3", "2", "1", "0"]
    page.one("#direction").click()
    assert page.shown == ["0", "1", "2", "3", "4"]
    assert page.one("#direction").text == "Descending"
    sort.select_by_value("agreement ")
    assert page.shown == ["0", "3", "2", "4", "1"]


def test_pairs_without_a_value_come_last_either_way(show: Open, write_set: Any) -> None:
    page = show(write_gallery(write_set(([], {}), ([4], {}), ([6], {}))))
    Select(page.one("#sort")).select_by_value("area")
    assert page.shown == ["1", "2", "0"]
    page.one("#direction").click()
    assert page.shown == ["2", "1", "0"]
    page.one("[data-limit='area from']").send_keys("0")
    page.wait(lambda: page.shown == ["2", "1"])


def test_histograms_follow_the_filter(show: Open, five: Path) -> None:
    page = show(five)
    summaries = [caption.text for caption in page.all("figcaption")]
    assert summaries[0] == "5 pairs; median 3, middle half 2 to 4"
    assert summaries[1].startswith("15 whole nuclei")  # 1 + 2 + 3 + 4 + 5
    assert len(page.all(".chart")) == 7  # nuclei, area, aspect ratio, colour difference, agreement, two colours
    for chart in page.all(".chart"):
        assert chart.get_attribute("role") == "img"
        assert chart.get_attribute("aria-label").startswith("Histogram")
        names = [name.get_attribute("textContent") for name in chart.find_elements(By.CSS_SELECTOR, ".axis .name")]
        assert len(names) == 2
        assert all(names)
    assert "nuclear area (px)" in page.one("#facets").text
    bars = page.all(".bars.shown")[0].get_attribute("d")
    page.one("#query").send_keys("blue")
    page.wait(lambda: page.all("figcaption")[0].text == "2 pairs; median 4, middle half 4 to 4")
    assert page.all("figcaption")[1].text.startswith("9 whole nuclei")
    assert page.all(".bars.shown")[0].get_attribute("d") != bars
    # All nuclei are of one colour: one bin of each channel holds all pixels.
    assert "mean  100, 50, 180" in page.all("figcaption")[-2].get_attribute("textContent")


def test_keyboard_among_the_pictures(show: Open, five: Path) -> None:
    page = show(five)
    page.focus_grid()
    assert page.active == "0"
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.active == "2"
    # The ring of the active cell is drawn, not only told.
    assert page.js("return getComputedStyle(document.querySelector('.cell.active')).outlineStyle") == "solid"
    page.keys(Keys.END)
    assert page.active == "4"
    page.keys(Keys.ARROW_RIGHT)
    assert page.active == "4"
    page.keys(Keys.HOME, Keys.SPACE)
    assert page.selected == ["0"]
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT * 2).key_up(Keys.SHIFT).perform()
    assert page.selected == ["0", "1", "2"]
    assert page.status == "5 of 5 pairs, 3 selected"
    page.keys("/")
    assert page.driver.switch_to.active_element.get_attribute("id") == "query"
    page.keys("ob/?")  # text here, no commands
    assert page.one("#query").get_attribute("value") == "ob/?"
    assert page.one(".tools [data-action=outlines]").get_attribute("aria-pressed") == "true"
    page.wait(lambda: page.one("#empty").is_displayed())


def test_selection_by_mouse(show: Open, five: Path) -> None:
    page = show(five)
    marks = page.all(".check-mark")
    ActionChains(page.driver).move_to_element(marks[1]).click().perform()
    assert page.selected == ["1"]
    pictures = page.all(".picture")
    ActionChains(page.driver).key_down(Keys.SHIFT).click(pictures[3]).key_up(Keys.SHIFT).perform()
    assert page.selected == ["1", "2", "3"]
    ActionChains(page.driver).key_down(Keys.CONTROL).click(pictures[2]).key_up(Keys.CONTROL).perform()
    assert page.selected == ["1", "3"]
    page.one("#only-selected").click()
    assert page.shown == ["1", "3"]
    page.one("[data-action=select-none]").click()
    page.wait(lambda: page.one("#empty").is_displayed())


def test_the_selection_is_saved_as_a_list(show: Open, five: Path, downloads: Path) -> None:
    page = show(five)
    assert not page.one("[data-action=save-txt]").is_enabled()
    page.one("#query").send_keys("blue")
    page.wait(lambda: page.shown == ["3", "4"])
    page.focus_grid()
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    page.one("[data-action=save-txt]").click()
    text = downloads / "set-selection.txt"
    page.wait(text.exists)
    assert text.read_text() == "images/000003.png\nimages/000004.png\n"
    page.one("[data-action=save-json]").click()
    listed = downloads / "set-selection.json"
    page.wait(listed.exists)
    found = json.loads(listed.read_text())
    assert [pair["index"] for pair in found["pairs"]] == [3, 4]
    assert found["pairs"][1] == {"index": 4, "image": "images/000004.png", "mask": "masks/000004.png"}
    assert (found["licence"], found["bundle"]["name"]) == ("CC0-1.0", "tiny")
    assert "not for diagnosis" in found["notice"]


def test_full_view(show: Open, five: Path) -> None:
    page = show(five)
    page.focus_grid()
    page.keys(Keys.ARROW_RIGHT, Keys.ENTER)
    assert page.title == "Pair 1"
    image = "return document.querySelector('#sheet img')"
    page.wait(lambda: page.js(f"{image}.naturalWidth") == 32)
    assert page.js(f"{image}.src").endswith("/images/000001.png")
    assert page.js(f"{image}.alt") == "Pair 1, 2 nuclei, layout round, pink nuclei"
    conditions = page.one("#conditions").text
    for part in ("layout round", "pink nuclei", "Seed\n7", "32 × 32 px", "100 px", "masks/000001.png", "0.5"):
        assert part in conditions
    assert [cell.text.split("\n")[0] for cell in page.all(".colours td")] == ["100 50 180"] * 2 + ["210 190 220"] * 2
    page.keys(Keys.ARROW_RIGHT)
    assert page.title == "Pair 2"
    page.keys(Keys.ARROW_LEFT * 5)
    assert page.title == "Pair 0"
    page.keys(Keys.SPACE)
    assert page.one("#viewer-select").get_attribute("aria-pressed") == "true"
    page.keys(Keys.END)
    assert page.title == "Pair 4"
    page.keys(Keys.ESCAPE)
    page.wait(lambda: not page.one("#viewer").is_displayed())
    assert page.driver.switch_to.active_element.get_attribute("id") == "grid"
    assert (page.active, page.selected) == ("4", ["0"])


def test_zoom_and_mask_in_the_full_view(show: Open, five: Path) -> None:
    page = show(five)
    page.all(".picture")[2].click()
    size = "return document.getElementById('sheet').getBoundingClientRect().width"
    fitted = page.js(size)
    page.keys("+")
    # 1.25 times as large; layout works in 1/64 px.
    assert page.js(size) == pytest.approx(1.25 * fitted, abs=0.1)
    page.keys("1")
    assert page.js(size) == pytest.approx(32, abs=0.1)
    left = "return document.getElementById('sheet').getBoundingClientRect().left"
    before = page.js(left)
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    assert page.js(left) == pytest.approx(before + 60, abs=0.1)
    assert page.title == "Pair 2"
    page.keys("0")
    assert page.js(size) == pytest.approx(fitted, abs=0.1)
    assert len(page.all("#sheet .labels path")) == 0
    page.keys("m")
    assert len({path.get_attribute("fill") for path in page.all("#sheet .labels path")}) == 3
    page.keys(Keys.ARROW_RIGHT)
    assert len(page.all("#sheet .labels path")) == 4
    outlines = page.one("#sheet svg.outlines")
    page.keys("o")
    assert not outlines.is_displayed()
    page.one("#viewer [data-view=close]").click()
    page.wait(lambda: not page.one("#viewer").is_displayed())


def test_hostile_texts_are_only_text(show: Open, five: Path) -> None:
    page = show(five)
    page.focus_grid()
    page.keys(Keys.END, Keys.ENTER)
    assert page.title == "Pair 4"
    text = page.one("#conditions").text
    assert text.count(EVIL) >= 4  # morphology, name and value of a metadatum, name of another key
    page.one("#viewer [data-view=close]").click()
    page.one("#query").send_keys("onerror=window")
    page.wait(lambda: page.shown == ["4"])
    assert page.js("return window.hacked") is None
    assert page.js("return document.querySelectorAll('img[src=x]').length") == 0


def test_a_picture_that_is_gone_is_named(driver: webdriver.Chrome, five: Path) -> None:
    (five.parent / "images/000000.png").unlink()
    page = Page(driver, five)
    page.focus_grid()
    page.keys(Keys.ENTER)
    page.wait(lambda: page.one("#missing").is_displayed())
    assert "images/000000.png cannot be read" in page.one("#missing").text
    driver.get_log("browser")  # the browser itself reports the missing file there


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_dark_and_light(show: Open, five: Path, driver: webdriver.Chrome, scheme: str) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page = show(five)
    other = {"light": "dark", "dark": "light"}[scheme]
    theme = "return document.documentElement.dataset.theme"
    brightness = "return Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
    assert page.js(theme) == scheme
    assert (page.js(brightness) > 127) == (scheme == "light")
    page.keys("t")
    assert page.js(theme) == other
    assert (page.js(brightness) > 127) == (other == "light")
    # Text on its background, WCAG 2.1: at least 4.5.
    assert page.js(CONTRAST, "#origin", ".top") >= 4.5
    assert page.js(CONTRAST, "#notice", "#notice") >= 4.5
    assert page.js(CONTRAST, ".tools [aria-pressed=true]", ".tools [aria-pressed=true]") >= 4.5
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


CONTRAST = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ink = luminance(getComputedStyle(document.querySelector(arguments[0])).color);
const paper = luminance(getComputedStyle(document.querySelector(arguments[1])).backgroundColor);
return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
"""


def test_every_control_has_a_name(show: Open, five: Path) -> None:
    page = show(five)
    controls = "button, input, select, svg[role], [tabindex='0'], [role=option]"

    def check(inside: str, least: int) -> None:
        found = [control for control in page.one(inside).find_elements(By.CSS_SELECTOR, controls)]
        named = [control for control in found if control.is_displayed() and control.accessible_name]
        assert [control.get_attribute("outerHTML") for control in found if control.is_displayed()] == [
            control.get_attribute("outerHTML") for control in named
        ]
        assert len(named) >= least

    check("body", 30)
    page.focus_grid()
    page.keys(Keys.ENTER)
    check("#viewer", 11)
    page.keys(Keys.ESCAPE)
    page.keys("?")
    page.wait(lambda: page.one("#help").is_displayed())
    page.keys(Keys.ENTER)
    page.wait(lambda: not page.one("#help").is_displayed())


def test_a_part_of_a_set_says_so(show: Open, write_set: Any) -> None:
    page = show(write_gallery(write_set(([4], {}), ([5], {}), ([6], {})), first=2))
    assert page.status == "2 of 2 pairs (the first of 3 in the set)"


def test_ten_thousand_pairs_stay_fluid(show: Open, write_set: Any) -> None:
    folder = write_set(*[([side, side], {}) for side in range(4, 14)])
    few = [(record, measure(folder, record, 96)) for record in records(folder)]
    count = 10_000
    pairs = ((replace(record, index=i), measured) for i in range(count) for record, measured in [few[i % len(few)]])
    path = folder / "gallery.html"
    path.write_bytes(page_of(pairs, read_header(folder), name="many", base="", total=count))
    page = show(path)
    assert page.status == "10,000 of 10,000 pairs"
    nodes = "return document.querySelectorAll('*').length"
    # What fits 1,200 x 800 px at 168 px a cell, with a spare row on both sides, is about 40 cells of 12 elements.
    assert len(page.all(".cell")) <= 60
    at_first = page.js(nodes)
    assert at_first < 1500
    grid = "document.getElementById('grid')"
    for part in np.linspace(0.1, 1, 10):
        page.js(f"{grid}.scrollTop = {grid}.scrollHeight * {part}")
        # Drawn in the frame after: then the cells in view are those of this place.
        page.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        assert len(page.all(".cell")) <= 60
    assert page.shown[-1] == "9999"
    assert page.js(nodes) <= at_first + 60 * 12
    page.focus_grid()
    page.keys(Keys.HOME, Keys.END)
    assert page.active == "9999"
    Select(page.one("#sort")).select_by_value("area")
    page.one("#direction").click()
    assert page.shown[0] == "9"  # the first of the largest
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys("a").key_up(Keys.CONTROL).perform()
    page.one("[data-action=select-shown]").click()
    assert page.status == "10,000 of 10,000 pairs, 10,000 selected"
    page.one("[data-limit='area from']").send_keys("160")
    page.wait(lambda: page.status.startswith("1,000 of"))
    # Every pair in the page has its own picture, whichever block it came from.
    assert page.js("return new Set([...document.querySelectorAll('.cell img')].map((i) => i.src)).size") == 1
    assert {int(index) % 10 for index in page.shown} == {9}
