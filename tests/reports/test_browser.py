"""The page as a reader meets it: headless Chromium, pointer and keyboard, both themes, a phone, paper."""

import csv
import io
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from evals.io.jsonl import read_rows
from reports.html import write_report

HOSTILE = "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'> \u202e {{7*7}}"
CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
UNNAMED = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
  .filter((n) => n.getClientRects().length)
  .filter((n) => !(n.getAttribute("aria-label") || n.textContent.trim() || (n.labels && n.labels.length)))
  .map((n) => n.outerHTML.slice(0, 120))"""


def until(page, expression):
    """Wait until the expression holds. (Playwright's own waiting needs eval, which the page's policy forbids.)"""
    for _ in range(250):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never true: {expression}")


@pytest.fixture(scope="module")
def one(small_run, tmp_path_factory) -> Path:
    return write_report(small_run, tmp_path_factory.mktemp("one") / "one.html")


@pytest.fixture(scope="module")
def both(small_run, tmp_path_factory) -> Path:
    """The run beside one whose counting pictures are all right."""
    folder = tmp_path_factory.mktemp("both")
    root = Path(shutil.copytree(small_run, folder / "run"))
    rows = list(read_rows(root / "scores.jsonl"))
    for row in rows:
        if row["group"] == "counting" and row["value"] is not None:
            row.update(value=1.0, reason="")
    (root / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((root / "manifest.json").read_text())
    manifest.pop("content_sha256", None)
    manifest["model"]["name"] = "other"
    (root / "manifest.json").write_text(json.dumps(manifest))
    return write_report([small_run, root], folder / "both.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("which", ["one", "both"])
def test_it_opens_without_complaint_and_fits(which, width, scheme, visit, request):
    page = visit(request.getfixturevalue(which), width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    assert page.locator("#g-grid img").first.evaluate("(i) => i.decode().then(() => i.naturalWidth)") == 64  # fmt: skip
    page.locator("#g-grid .thumb").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []


def test_the_measure_of_contrast_measures(one, visit):
    page = visit(one)
    assert page.evaluate(CONTRAST) == []
    page.evaluate("document.querySelector('.fine').style.color = '#8a8a8a'")
    (found,) = page.evaluate(CONTRAST)
    assert found.startswith("P.fine")


def test_headings_and_landmarks(one, visit):
    page = visit(one)
    levels = page.eval_on_selector_all("h1, h2, h3", "(n) => n.map((h) => Number(h.tagName[1]))")
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    for selector in ("header", "nav[aria-label]", "main", "footer"):
        assert page.locator(selector).count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#results"


def test_tables_sort_by_click_and_by_keyboard(one, visit):
    page = visit(one)
    table = page.locator("table.figures.sortable").first
    head = table.locator("thead th").nth(1)

    def values():
        texts = table.locator("tbody:not(.pinned) tr td.value").all_inner_texts()
        return [float(t) for t in texts if t != "\N{EN DASH}"]

    before = values()
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(before, reverse=True)
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(before)
    name = table.locator("thead th").first
    name.locator("button").focus()
    page.keyboard.press("Space")
    assert name.get_attribute("aria-sort") == "ascending"
    assert head.get_attribute("aria-sort") == "none"
    names = table.locator("tbody:not(.pinned) th").all_inner_texts()
    assert names == sorted(names)
    assert table.locator("tbody.pinned tr").get_attribute("data-metric") == "overall"


def shown(page):
    """(outputs, prompts) that the gallery says it shows."""
    text = page.locator("#g-count").inner_text()
    if "Nothing" in text:
        return 0, 0
    found = re.match(r"([\d,]+) of [\d,]+ outputs, ([\d,]+) prompts?", text)
    return tuple(int(n.replace(",", "")) for n in found.groups())


def test_filters_show_what_they_say(one, visit):
    page = visit(one)
    data = json.loads(page.locator("#g-data").text_content())
    outputs = [(s, o) for s in data["samples"] for o in s["o"]]

    def count(fits):
        return sum(fits(s, o) for s, o in outputs)

    right = count(lambda s, o: o["v"] == 1)
    unscored = count(lambda s, o: o["v"] is None)
    assert 0 < unscored and 0 < right < len(outputs)
    page.select_option("#f-verdict", "right")
    assert shown(page)[0] == right
    page.select_option("#f-verdict", "none")
    assert shown(page)[0] == unscored
    page.select_option("#f-verdict", "")
    page.check("#f-failures")
    assert shown(page)[0] == len(outputs) - right
    page.click("text=Clear")
    until(page, f"document.querySelector('#g-count').textContent.startsWith('{len(outputs)} of')")
    page.select_option("#f-group", str(data["groups"].index("position")))
    assert shown(page)[0] == count(lambda s, o: data["groups"][s["g"]] == "position")
    page.select_option("#f-half", "unseen")
    unseen = count(lambda s, o: data["groups"][s["g"]] == "position" and s["h"] is True)
    assert shown(page)[0] == unseen
    page.click("text=Clear")
    word = data["samples"][0]["p"].split()[-1]
    page.fill("#f-text", word.upper())
    until(page, f"!document.querySelector('#g-count').textContent.startsWith('{len(outputs)} of')")
    expected = count(lambda s, o: word in (s["p"] + " " + str(o.get("r") or "")))
    assert shown(page)[0] >= expected > 0
    page.fill("#f-text", "no prompt says this")
    until(page, "document.querySelector('#g-count').textContent.startsWith('Nothing')")
    assert page.locator("#g-grid .card").count() == 0


def test_order_and_pages(one, visit):
    page = visit(one)
    page.select_option("#f-order", "number")
    ids = [m.split(" \u00b7 ")[1] for m in page.locator(".card .meta").all_inner_texts()]
    assert ids == sorted(ids) and len(ids) == 24
    page.click("#g-next")
    rest = [m.split(" \u00b7 ")[1] for m in page.locator(".card .meta").all_inner_texts()]
    assert len(rest) == 6 and rest[0] > ids[-1]
    assert "page 2 of 2" in page.locator("#g-count").inner_text()
    page.select_option("#f-size", "small")
    assert page.locator(".card").count() == 30


def test_a_group_and_a_kind_lead_to_their_pictures(one, visit):
    page = visit(one)
    page.locator("button[data-show-group=colors]").click()
    until(page, "document.activeElement.id === 'h-gallery'")
    assert {m.split(" \u00b7 ")[0] for m in page.locator(".card .meta").all_inner_texts()} == {"colors"}  # fmt: skip
    page.locator("button[data-show-kind=right]").click()
    until(page, "document.querySelector('#f-verdict').value === 'right'")


def test_the_viewer_by_keyboard(one, visit):
    page = visit(one)
    page.select_option("#f-verdict", "right")
    thumb = page.locator("#g-grid .thumb").first
    thumb.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.classList.contains('thumb')")
    thumb.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    assert dialog.evaluate("(d) => d.open")
    first = page.locator("#v-place").inner_text()
    assert first.startswith("1 of ")
    boxes = page.locator(".v-frame .box")
    assert boxes.count() >= 1
    frame, box = page.locator(".v-frame").bounding_box(), boxes.first.bounding_box()
    assert frame["x"] - 2 <= box["x"] and box["x"] + box["width"] <= frame["x"] + frame["width"] + 2
    page.keyboard.press("b")
    assert boxes.count() == 0
    page.keyboard.press("ArrowRight")
    assert page.locator("#v-place").inner_text().startswith("2 of ")
    page.keyboard.press("End")
    assert page.locator("#v-next").is_disabled()
    page.keyboard.press("Home")
    before = page.locator(".v-frame").bounding_box()["width"]
    page.keyboard.press("z")
    assert page.locator(".v-frame").bounding_box()["width"] > 2 * before
    page.keyboard.press("Escape")
    assert not dialog.evaluate("(d) => d.open")
    assert thumb.evaluate("(t) => t === document.activeElement")


def test_the_focus_is_not_lost_at_either_end(one, visit):
    page = visit(one)
    page.locator("#g-next").focus()
    page.keyboard.press("Enter")
    assert page.locator("#g-next").is_disabled()
    assert page.evaluate("document.activeElement.id") == "g-prev"
    page.fill("#f-text", json.loads(page.locator("#g-data").text_content())["samples"][0]["id"])
    until(page, "document.querySelector('#g-count').textContent.includes('1 prompt')")
    page.locator(".thumb").first.click()
    page.locator("#v-next").focus()
    page.keyboard.press("Enter")  # the second of two pictures
    assert page.evaluate("document.activeElement.id") == "v-prev"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#v-place").inner_text() == "1 of 2"
    assert page.evaluate("document.activeElement.id") == "v-next"


def test_definitions_on_hover_focus_and_tap(one, visit):
    page = visit(one)
    info = page.locator("[data-metric=counting] .info")
    assert page.locator("#tip").is_hidden()
    info.hover()
    assert "Share of the scored pictures of the group counting" in page.locator("#tip").inner_text()
    assert "n = " in page.locator("#tip").inner_text()
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()
    info.focus()
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    described = info.get_attribute("aria-describedby")
    assert "Share of the scored pictures" in page.locator(f"#{described}").inner_text()
    phone = visit(one, width=390, has_touch=True)
    phone.locator("[data-metric=counting] .info").tap()
    assert phone.locator("#tip").is_visible()
    place = phone.locator("#tip").bounding_box()
    assert place["x"] >= 0 and place["x"] + place["width"] <= 390


@pytest.mark.parametrize("which", ["one", "both"])
def test_figures_and_data_are_saved_from_the_page(which, visit, request):
    page = visit(request.getfixturevalue(which), scheme="dark")
    figures = page.locator("figure[data-figure]")
    assert figures.count() >= (7 if which == "one" else 2)
    for i in range(figures.count()):
        figure = figures.nth(i)
        assert figure.locator(".tools button").all_inner_texts() == ["SVG", "PNG", "CSV"]
    for i in (0, figures.count() - 1):
        content = {}
        for kind in ("SVG", "PNG", "CSV"):
            with page.expect_download() as caught:
                figures.nth(i).locator(f".tools button:has-text('{kind}')").click()
            content[kind] = Path(caught.value.path()).read_bytes()
            assert caught.value.suggested_filename.endswith(kind.lower())
        svg = content["SVG"].decode()
        ElementTree.fromstring(svg)
        assert "var(" not in svg and "#ffffff" in svg
        assert content["PNG"].startswith(b"\x89PNG") and len(content["PNG"]) > 3000
        assert len(list(csv.DictReader(io.StringIO(content["CSV"].decode())))) >= 1
    for i in range(page.locator("[data-file]").count()):
        with page.expect_download() as caught:
            page.locator("[data-file]").nth(i).click()
        text = Path(caught.value.path()).read_text()
        if caught.value.suggested_filename.endswith(".json"):
            json.loads(text)
        else:
            assert len(list(csv.reader(io.StringIO(text)))) > 1


def test_runs_side_by_side_in_the_gallery_and_the_viewer(both, visit):
    page = visit(both)
    page.select_option("#f-runs", "differ")
    metas = page.locator(".card .meta").all_inner_texts()
    assert metas and all(m.startswith("counting") for m in metas)
    card = page.locator(".card").first
    names = card.locator(".run-name").all_inner_texts()
    assert len(names) == 2
    card.locator(".thumb").first.click()
    assert page.locator(".v-run h3").all_inner_texts() == names
    seeds = page.locator(".v-run dl div:has(dt:text-is('seed')) dd").all_inner_texts()
    assert len(set(seeds)) <= 1
    verdicts = page.locator(".v-run .verdict").all_inner_texts()
    assert len(verdicts) == 2
    page.keyboard.press("ArrowRight")
    assert page.locator(".v-run").count() == 2


def test_nothing_is_injected(run_copy, visit):
    rows = list(read_rows(run_copy / "outputs.jsonl"))
    for row in rows:
        row["prompt"] = HOSTILE
    (run_copy / "outputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = list(read_rows(run_copy / "scores.jsonl"))
    for row in rows:
        if row["value"] is not None:
            row.update(value=0.0, reason=HOSTILE)
            row["details"]["detections"] = {HOSTILE: [[0, 0, 9, 9, 0.5]]}
    (run_copy / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = visit(write_report(run_copy))
    page.locator(".thumb").first.click()
    assert page.locator("#v-prompt").inner_text().startswith("</script><script>")
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.images.length") == page.locator("img[src^='data:']").count()
    page.keyboard.press("Escape")
    page.fill("#f-text", "<script>")
    assert page.evaluate("window.hit") is None


def test_paper_is_white_and_leaves_out_what_cannot_be_pressed(one, visit):
    page = visit(one, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    for selector in (".toc", ".filters", ".tools", ".info", "#data"):
        assert page.locator(selector).first.is_hidden()
    assert page.locator(".big-value").is_visible()
    assert page.evaluate(CONTRAST) == []
    assert len(page.pdf(format="A4")) > 20_000


def test_motion_is_left_out_when_asked(one, visit):
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit(one).evaluate(behaviour) == "smooth"
    assert visit(one, reduced_motion="reduce").evaluate(behaviour) == "auto"


def test_it_reads_without_a_script(one, visit):
    page = visit(one, java_script_enabled=False)
    assert page.locator(".big-value").is_visible()
    assert page.locator("table.figures").first.is_visible()
    assert page.locator("#definitions").is_visible()
    assert "needs JavaScript" in page.locator("noscript").first.text_content()


def test_questions_about_a_picture_form_a_tree(visit, tmp_path):
    """A question below the one it rests on; a yes whose parent does not hold does not count."""
    import evals
    from evals.judges.dummy import DummyJudge

    class Judge(DummyJudge):
        """No to what has no parent and is about a thing, yes to everything else."""

        def ask(self, images, questions):
            return ["no" if str(q).startswith("Is there a") else "yes" for q in questions]

    evals.evaluate("dpg_stickers", "dummy", judge=Judge(), output=tmp_path / "run", limit=3, num_images=1,
                   quiet=True, tracking__enabled=False)  # fmt: skip
    page = visit(tmp_path / "run" / "report.html")
    page.evaluate("() => document.querySelector('button:has(.mark)').click()")
    until(page, "() => document.querySelector('.q-tree li')")
    lines = page.evaluate(
        "() => [...document.querySelectorAll('.q-tree li')].map((n) => [n.querySelector('b').textContent, "
        "n.parentElement.parentElement.tagName, n.querySelector('.q-mark').textContent])"
    )
    below = [line for line in lines if line[1] == "LI"]
    assert below and len(below) < len(lines)
    assert any(told.startswith("yes, but 1 does not hold") and mark == "\u2715" for told, _, mark in below)
    summary = page.evaluate("() => document.querySelector('.q-box summary').textContent")
    held = sum(mark == "\u2713" for _, _, mark in lines)
    assert summary == f"{held} of {len(lines)} questions hold"
