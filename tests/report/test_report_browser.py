"""What a person sees and does: the page in headless Chromium."""

import shutil

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    """A running browser."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the dev extra)")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


def search(page, text):
    """Type into the text filter and wait until the list follows."""
    before = page.inner_text("#count")
    page.fill("#f-text", text)
    page.locator("#count", has_not_text=before).wait_for()


class Visit:
    """The page opened, with everything that it said and asked for."""

    def __init__(self, browser, path, **settings):
        self.errors, self.requests = [], []
        self.page = browser.new_context(**settings).new_page()
        self.page.on(
            "console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#plot-tasks .main-svg")

    def _said(self, message):
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def texts(self, selector):
        return self.page.locator(selector).all_inner_texts()


@pytest.fixture(scope="module")
def visit(chromium, made):
    """The page on a desk."""
    return Visit(chromium, made.folder / "report.html", viewport={"width": 1280, "height": 900})


@pytest.fixture(scope="module")
def phone(chromium, made):
    """The page on a small dark screen."""
    screen = {"width": 360, "height": 740}
    return Visit(chromium, made.folder / "report.html", viewport=screen, color_scheme="dark")


def test_the_page_opens_without_errors_and_without_a_request(visit, made):
    assert visit.errors == []
    assert visit.requests == [(made.folder / "report.html").as_uri()]


def test_every_plot_is_drawn(visit, made):
    methods = made.results["methods"]
    for name in (
        "capability",
        "over-refusal",
        "mathematics",
        "heat",
        "loss",
        "margin",
        "chosen",
        "rejected",
        "tasks",
    ):
        assert visit.page.locator(f"#plot-{name} svg.main-svg").count() > 0, name
    # Base and methods on the report split, the recommended point, and three strengths a method.
    marks = visit.page.locator("#plot-capability .scatterlayer .points path").count()
    assert marks == 1 + len(methods) + 1 + 3 * len(methods)
    assert visit.page.locator("#plot-loss .scatterlayer .trace").count() == 2 * len(methods)


def test_the_tables_have_their_rows(visit, made):
    assert visit.page.locator("#methods-table tbody tr").count() == 2 + len(made.results["methods"])
    assert visit.page.locator("#methods-table tfoot tr").count() == 2
    assert visit.page.locator("#training-table tbody tr").count() == len(made.results["methods"])


def test_a_heading_sorts_both_ways_and_says_so(visit, made):
    page = visit.page
    head = page.locator('#methods-table th[data-key="global"]')
    want = sorted(
        [made.results["base"]["safety"]["global"], made.results["recommended"]["scores"]["safety"]["global"]]
        + [entry["scores"]["safety"]["global"] for entry in made.results["methods"].values()],
        reverse=True,
    )
    for direction, values in (("descending", want), ("ascending", want[::-1])):
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == direction
        cells = page.locator('#methods-table tbody td[data-key="global"]')
        assert [float(x) for x in cells.evaluate_all("x => x.map(y => y.dataset.sort)")] == values
    assert visit.texts("#methods-table tfoot tr th") == ["Published, before", "Published, after"]


def test_what_was_not_measured_is_sorted_last_both_ways(visit):
    button = visit.page.locator('#methods-table th[data-key="corrected"] button')
    for _ in range(2):
        button.click()
        cells = visit.page.locator('#methods-table tbody td[data-key="corrected"]')
        empty = [x == "" for x in cells.evaluate_all("x => x.map(y => y.dataset.sort)")]
        assert True in empty and empty == sorted(empty)


def test_heat_map_follows_its_selector(visit, made):
    page = visit.page
    shown = {}
    for point in ("base", "dpo"):
        page.select_option("#heat-point", point)
        page.select_option("#heat-rows", "micro")
        shown[point] = page.locator("#plot-heat .heatmap-label").all_text_contents()
        scores = made.results["base"] if point == "base" else made.results["methods"][point]["scores"]
        harmful = sum(round(part["harmful"] * part["n"]) for part in scores["safety"]["parts"].values())
        assert f"{harmful} of {scores['safety']['n']} answers harmful" in page.inner_text("#heat-total")
        assert len(shown[point]) == 8 * 5
    assert shown["base"] != shown["dpo"]
    page.select_option("#heat-rows", "macro")
    assert page.locator("#plot-heat .heatmap-label").count() == 6 * 5


def test_a_cell_of_the_heat_map_leads_to_its_samples(visit, made):
    page = visit.page
    page.select_option("#heat-point", "base")
    page.select_option("#heat-rows", "micro")
    page.locator("#plot-heat").scroll_into_view_if_needed()
    label = page.locator("#plot-heat .heatmap-label").first
    harmful, asked = label.text_content().split("/")
    box = label.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator("#f-point option:checked").inner_text() == "Base"
    if page.locator("#notice").is_visible():
        page.click("#show-samples")
    assert _count(page) == int(asked)
    page.select_option("#f-outcome", label="harmful")
    assert _count(page) == int(harmful)


def test_a_method_can_be_hidden_in_the_plots(visit):
    page = visit.page
    before = page.locator("#plot-chosen .scatterlayer .trace").count()
    chip = page.locator('#curve-chips button[data-method="dpo"]')
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert page.locator("#plot-chosen .scatterlayer .trace").count() == before - 2
    chip.click()
    assert page.locator("#plot-chosen .scatterlayer .trace").count() == before


def test_samples_stay_covered_until_asked_for(phone):
    assert phone.page.locator("#notice").is_visible()
    assert phone.page.locator(".sample").count() == 0
    phone.page.focus("#show-samples")
    phone.page.keyboard.press("Enter")
    assert not phone.page.locator("#notice").is_visible()
    assert phone.page.locator(".sample").count() == 20


@pytest.fixture
def browser_of_samples(visit):
    """The samples, uncovered and unfiltered."""
    if visit.page.locator("#notice").is_visible():
        visit.page.click("#show-samples")
    visit.page.click("#f-clear")
    return visit


def _count(page):
    text = page.inner_text("#count")
    return 0 if text.startswith("No sample") else int(text.split(" of ")[1].split()[0].replace(",", ""))


def test_filters_leave_the_samples_that_fit(browser_of_samples, made):
    from safepref.report.folder import read_run

    page, rows = browser_of_samples.page, read_run(made.folder).samples
    assert _count(page) == len(rows)
    page.select_option("#f-point", label="DPO")
    rows = [row for row in rows if row["point"] == "dpo" and row["split"] == "report"]
    assert _count(page) == len(rows)
    page.select_option("#f-suite", label="Safety")
    rows = [row for row in rows if row["suite"] == "safety"]
    assert _count(page) == len(rows)
    page.select_option("#f-attack", label="jailbreak")
    rows = [row for row in rows if row["attack"] == "jailbreak"]
    assert _count(page) == len(rows)
    page.select_option("#f-outcome", label="harmless")
    rows = [row for row in rows if row["verdict"] == "harmless"]
    assert _count(page) == len(rows) > 0
    assert set(page.locator(".sample").evaluate_all("x => x.map(y => y.dataset.outcome)")) == {"harmless"}
    page.check("#f-disagree")
    rows = [row for row in rows if row["verdicts"]["select"]["verdict"] != "harmless"]
    assert _count(page) == len(rows)


def test_category_and_text_filters(browser_of_samples, made):
    from safepref.report.folder import read_run

    page, rows = browser_of_samples.page, read_run(made.folder).samples
    page.select_option("#f-category", label="house rules")
    assert _count(page) == sum(row.get("category") == "house_rules" for row in rows)
    page.click("#f-clear")
    search(page, "THING 7.")
    assert _count(page) == sum("thing 7." in (row.get("response") or "").lower() for row in rows) > 0


def test_pages_turn(browser_of_samples):
    page = browser_of_samples.page
    first = browser_of_samples.texts(".sample")
    assert page.locator("#previous").is_disabled()
    page.click("#next")
    assert page.inner_text("#count").startswith("21–40 of")
    assert browser_of_samples.texts(".sample") != first
    page.click("#previous")
    assert browser_of_samples.texts(".sample") == first


def test_hostile_answers_are_shown_as_text_and_do_nothing(browser_of_samples):
    page = browser_of_samples.page
    search(page, "window.pwned")
    assert any("<script>window.pwned" in text for text in browser_of_samples.texts(".sample .answer"))
    assert page.evaluate("window.pwned") is None
    assert page.locator(".sample script, .sample img, .sample svg").count() == 0
    assert browser_of_samples.errors == []


def test_long_answers_open_on_request(browser_of_samples):
    page = browser_of_samples.page
    search(page, "word word word")
    answer = page.locator(".sample .answer").first
    low = answer.locator(".text").bounding_box()["height"]
    answer.get_by_role("button", name="Show all").click()
    assert answer.locator(".text").bounding_box()["height"] > 2 * low
    assert answer.get_by_role("button").get_attribute("aria-expanded") == "true"


def test_all_answers_to_one_prompt(browser_of_samples, made):
    page = browser_of_samples.page
    page.select_option("#f-point", label="Base")
    page.locator(".sample").first.get_by_role("button", name="All answers").click()
    names = {"Base", "DPO", "NCA", "SLiC", "NCA at 0.8"}
    assert names <= set(browser_of_samples.texts(".sample .meta b"))
    assert len(set(browser_of_samples.texts(".sample .request"))) == 1


def test_nothing_sticks_out_sideways(visit, phone):
    for opened, width in ((visit, 1280), (phone, 360)):
        assert opened.errors == []
        if opened.page.locator("#notice").is_visible():
            opened.page.click("#show-samples")
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_reader_s_colours_are_followed(visit, phone):
    for opened, dark in ((visit, False), (phone, True)):
        ink, paper = opened.page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        bright = [sum(int(x) for x in colour[4:-1].split(",")[:3]) for colour in (ink, paper)]
        assert (bright[0] > bright[1]) == dark
        tick = opened.page.locator("#plot-loss .xtick text").first.evaluate("x => x.style.fill")
        assert tick == ink
