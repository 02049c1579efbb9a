"""The page in a browser: switches, values, keyboard, phone and desk. Needs Chromium and selenium."""

import os
import shutil

import pytest

from dataeff.report import save_page

PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "chromedriver": ("chromedriver", "chromium.chromedriver"),
}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def needed(found, name):
    """`found`; else the test is skipped, or fails where everything must be there."""
    if not found:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        needed(None, "selenium")
    paths = {
        name: needed(next(filter(None, map(shutil.which, names)), None), name)
        for name, names in PROGRAMS.items()
    }
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(paths["chromedriver"]))
    yield driver
    driver.quit()


def run(rate, *, length, tokens):
    """Moments whose curves look different against each axis and by each metric."""
    counts = [
        {"steps": s, "samples": tokens * s**2, "tokens": tokens * s, "seconds": 90.0 * s**1.5}
        | {"flops": 10**10 * tokens * s * (s + 60)}
        for s in range(1, length + 1)
    ]
    values = [
        {
            "validation_loss": 2 + 3 * rate**s,
            "loss": 1 + 9 * rate ** (2 * s),
            "lr": 1e-3 / s,
            "pool": s / length,
        }
        | {"sequence_length": 8 * s, "kept_tokens": 4 * s, "exposures": [length - s, s]}
        for s in range(1, length + 1)
    ]
    return [count | own for count, own in zip(counts, values, strict=True)]


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    runs = {
        "baseline": run(0.96, length=60, tokens=2_000_000),
        "curriculum + random-LTD": run(0.94, length=60, tokens=1_200_000),
        "<script>alert('a run')</script>": run(0.9, length=20, tokens=1_000_000),
    }
    save_page(runs, path, title="A small GPT")
    return path


@pytest.fixture(params=[(1280, 900), (360, 740)], ids=["desk", "phone"])
def opened(browser, page, request):
    """The page as it was just loaded; what went wrong, and what was asked of a network, fails the test."""
    width, height = request.param
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(page.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    asked = [entry["message"] for entry in browser.get_log("performance")]
    requests = [message for message in asked if '"Network.requestWillBeSent"' in message]
    assert len(requests) == 1  # the page itself
    assert page.name in requests[0]


def all_of(browser, selector):
    return browser.find_elements("css selector", selector)


def texts(browser, selector):
    return [one.text for one in all_of(browser, selector)]


def curves(browser):
    return [one.get_attribute("d") for one in all_of(browser, "figure.main .curve")]


def press(browser, *keys):
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def pressed(browser, kind):
    return texts(browser, f'button[data-{kind}][aria-pressed="true"]')


def test_the_axis_switch_redraws_every_curve_and_its_label(opened):
    assert pressed(opened, "axis") == ["FLOPs"]
    assert texts(opened, "figure.main .x-label") == ["Compute (EFLOPs)"]
    before = curves(opened)
    assert len(before) == 3
    labels = {"tokens": "Tokens", "steps": "Steps", "seconds": "Time (h)", "samples": "Samples"}
    for axis, label in labels.items():
        all_of(opened, f'button[data-axis="{axis}"]')[0].click()
        assert texts(opened, ".x-label") == [label] * 5
        assert all_of(opened, f'button[data-axis="{axis}"]')[0].get_attribute("aria-pressed") == "true"
        assert len(all_of(opened, 'button[data-axis][aria-pressed="true"]')) == 1
        assert curves(opened) != before
        before = curves(opened)


def test_the_metric_switch_changes_curves_tables_and_verdict(opened):
    before = curves(opened), texts(opened, ".verdict")
    assert "validation loss" in "".join(before[1])
    all_of(opened, 'button[data-metric="loss"]')[0].click()
    assert pressed(opened, "metric") == ["Training loss"]
    assert texts(opened, "figure.main .y-label") == ["training loss (nats a token)"]
    assert "training loss" in "".join(texts(opened, ".verdict"))
    assert curves(opened) != before[0]
    assert [one.is_displayed() for one in all_of(opened, "div[data-of-metric]")] == [False, True]


def test_a_run_is_hidden_and_shown_by_its_name(opened):
    names = all_of(opened, "#legend button")
    assert names[2].text == "<script>alert('a run')</script>"
    names[1].click()
    assert names[1].get_attribute("aria-pressed") == "false"
    assert len(curves(opened)) == 2
    names[1].click()
    assert len(curves(opened)) == 3
    for name in names:
        name.click()
    assert curves(opened) == []


def test_the_keyboard_moves_switches_and_reads_values(opened):
    from selenium.webdriver import Keys

    opened.execute_script("document.querySelector('button[data-axis=steps]').focus()")
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    assert pressed(opened, "axis") == ["Tokens"]
    opened.execute_script("document.querySelector('figure.main svg').focus()")
    press(opened, Keys.ARROW_LEFT)
    tip = all_of(opened, "figure.main .tip")[0]
    assert tip.text.startswith("Tokens: 57.60M")
    assert tip.text.split("\n")[1] == "curriculum + random-LTD"  # the best there
    press(opened, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert tip.text.startswith("Tokens: 62.40M")
    press(opened, Keys.ESCAPE)
    assert not tip.is_displayed()


def test_pointing_at_a_chart_shows_the_values_there(opened):
    from selenium.webdriver import ActionChains

    for picture, tip in zip(all_of(opened, "figure svg"), all_of(opened, ".tip"), strict=True):
        ActionChains(opened).scroll_to_element(picture).move_to_element(picture).perform()
        assert "FLOPs: " in tip.text
        assert "baseline" in tip.text
        right = opened.execute_script("return arguments[0].getBoundingClientRect().right", tip)
        assert right <= opened.execute_script("return document.documentElement.clientWidth")


def test_the_page_does_not_scroll_sideways(opened):
    wide = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scrolled, client = opened.execute_script(wide)
    assert scrolled <= client
    cut = """
        const edge = document.documentElement.clientWidth;
        const parts = [...document.querySelectorAll("tbody td, tbody th, figure svg, button, .bars")];
        const right = (one) => one.getBoundingClientRect().right;
        const over = (one) => one.scrollWidth > one.clientWidth + 1 || right(one) > edge;
        return parts.filter((one) => one.offsetParent && over(one)).map((one) => one.outerHTML);"""
    assert opened.execute_script(cut) == []


def test_words_in_a_chart_lie_inside_it(opened):
    outside = """return [...document.querySelectorAll("figure svg")].flatMap((picture) => {
        const frame = picture.getBoundingClientRect();
        return [...picture.querySelectorAll("text")].filter((text) => {
            const box = text.getBoundingClientRect();
            return box.left < frame.left - 1 || box.right > frame.right + 1;
        }).map((text) => text.textContent);
    })"""
    assert opened.execute_script(outside) == []


def test_dark_and_light_are_both_readable(opened):
    contrast = """
        const parse = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        const light = (color) => { const [r, g, b] = parse(color); return 0.2126*r + 0.7152*g + 0.0722*b; };
        const ground = light(getComputedStyle(document.querySelector("figure")).backgroundColor);
        const ratio = (one, kind) => {
            const own = light(getComputedStyle(one)[kind]);
            return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
        };
        const least = (selector, kind) => Math.min(
            ...[...document.querySelectorAll(selector)].map((one) => ratio(one, kind)));
        return [least("p, td b, td small, th", "color"), least("svg text", "fill"),
            least(".curve", "stroke"), ground];"""
    grounds = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        words, labels, lines, ground = opened.execute_script(contrast)
        assert min(words, labels) >= 4.5
        assert lines >= 3
        grounds.append(ground)
    assert grounds[0] > 0.9
    assert grounds[1] < 0.1


def test_without_a_script_the_tables_stand(browser, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(page.as_uri())
        shown = browser.find_element("css selector", "body").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "x less" in shown
    assert "The curves need JavaScript" in shown
    assert "Against" not in shown
