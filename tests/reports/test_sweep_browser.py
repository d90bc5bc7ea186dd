"""The page of a sweep as a reader meets it: headless Chromium, both themes, a phone, from file://."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from reports.sweep import build

CONTRAST = (Path(__file__).parent / "contrast.js").read_text(encoding="utf-8")
BROKEN = "() => [...document.images].filter((i) => i.complete && !i.naturalWidth).length"
UNNAMED = """() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
  .filter((n) => n.getClientRects().length)
  .filter((n) => !(n.getAttribute("aria-label") || n.textContent.trim() || (n.labels && n.labels.length)))
  .map((n) => n.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def page_file(sweep, tmp_path_factory) -> Path:
    return build(sweep, tmp_path_factory.mktemp("page") / "sweep.html")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_it_opens_without_complaint_and_fits(page_file, width, scheme, visit):
    page = visit(page_file, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    assert page.locator(".sheet img").first.evaluate("(i) => i.decode().then(() => i.naturalWidth)") == 64
    page.locator("#g-grid .thumb").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width
    assert page.evaluate(BROKEN) == 0


def test_tables_fit_a_desktop_and_shade_the_edge_beyond_which_they_go_on_a_phone(page_file, visit):
    cut = """() => [...document.querySelectorAll(".scroll")].filter((n) => n.scrollWidth > n.clientWidth + 1)
      .map((n) => n.getAttribute("aria-label"))"""
    page = visit(page_file, width=1280)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.locator(".effects").first.locator("th", has_text="seeds alone").count() == 1
    assert not {"Effect of each axis", "Effect of each axis on other figures", "Training compute"} & set(
        page.evaluate(cut)
    )
    page = visit(page_file, width=390)
    shades = "(n) => getComputedStyle(n).backgroundAttachment"
    assert "Effect of each axis" in page.evaluate(cut)
    for place in (page.locator(".scroll").first, page.locator(".toc .wrap")):
        assert place.evaluate(shades) == "local, local, scroll, scroll"


def test_the_gallery_shows_every_cell_and_seed_of_a_prompt(page_file, visit):
    page = visit(page_file)
    card = page.locator("#g-grid .card").first
    assert card.locator(".run-name").count() == 6 and card.locator(".thumb").count() == 12
    card.locator(".thumb").nth(1).click()
    assert "training seed 1" in page.locator("#v-meta").inner_text()
    assert page.locator("#v-body .v-run").count() == 6  # the same seed of every cell
    page.keyboard.press("Escape")
    page.select_option("#f-runs", "differ")
    assert 0 < page.locator("#g-grid .card").count() <= 12


def test_figures_and_their_data_are_saved(page_file, visit, tmp_path):
    page = visit(page_file, accept_downloads=True)
    figure = page.locator("figure[data-figure$='geneval-overall-steps']")
    with page.expect_download() as got:
        figure.get_by_role("button", name="as CSV").click()
    got.value.save_as(tmp_path / "curves.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "curves.csv").read_text())))
    assert {"target", "metric", "step", "train_seconds", "value", "low", "high", "seeds"} <= set(rows[0])
    with page.expect_download() as got:
        figure.get_by_role("button", name="as SVG").click()
    got.value.save_as(tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.startswith("<svg") and "var(" not in drawn and "clip, flow, sequential" in drawn


def test_tables_sort_and_definitions_open(page_file, visit):
    page = visit(page_file)
    table = page.locator("table.grid-table")
    head = table.locator("thead th").nth(2)
    head.locator("button").click()
    values = [float(v) for v in table.locator("tbody td:nth-child(3)").evaluate_all("(n) => n.map((c) => c.dataset.v)")]
    assert values == sorted(values, reverse=True) and len(values) == 6
    assert "mean" in page.locator("#tip").inner_text().lower()
