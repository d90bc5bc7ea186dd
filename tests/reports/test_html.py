import csv
import io
import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evals.errors import InputError, StoreError, UsageError
from evals.io.jsonl import read_rows
from evals.results import load
from reports.html import write_report

HOSTILE = "<script>alert(1)</script></style><img src=x onerror=alert(2)> \u202e & \" ' \ud800 {{ 7 * 191 }}"
VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Every element with its attributes, the text by element, and whether tags are balanced."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.open: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def json(self, name):
        (found,) = [text for attrs, text in self.scripts if attrs.get("id") == name]
        return json.loads(found)

    def data(self):
        return self.json("g-data")

    def pictures(self) -> list[bytes]:
        blocks = [attrs["id"] for attrs, _ in self.scripts if (attrs.get("id") or "").startswith("g-block-")]
        return [b64decode(text) for block in blocks for text in self.json(block)]

    def downloads(self) -> dict[str, str]:
        """Every file that the page carries; each of its buttons and figures names one of them."""
        files = {name: file["text"] for name, file in self.json("files").items()}
        named = {a["data-file"] for _, a in self.elements if "data-file" in a}
        named |= {a["data-csv"] for _, a in self.elements if "data-csv" in a}
        assert named <= set(files)
        return files

    @property
    def script(self) -> str:
        (found,) = [text for attrs, text in self.scripts if attrs.get("type") is None]
        return found


@pytest.fixture(scope="module")
def page(small_run, tmp_path_factory) -> Page:
    return Page(write_report(small_run, tmp_path_factory.mktemp("page") / "report.html"))


def edit_rows(path: Path, change) -> None:
    rows = list(read_rows(path))
    for number, row in enumerate(rows):
        change(number, row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    value.pop("content_sha256", None)  # files without a checksum are read too
    change(value)
    path.write_text(json.dumps(value))


# --- what the page says --------------------------------------------------------------------------------------------


def test_elements_are_balanced(page):
    assert page.open == []


def test_names_of_elements_are_unique_and_targets_exist(page):
    ids = [attrs["id"] for _, attrs in page.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = {
        attrs["href"][1:] for _, attrs in page.elements if (attrs.get("href") or "").startswith("#")
    }
    assert links <= set(ids)
    links |= {attrs["data-def"] for _, attrs in page.elements if "data-def" in attrs}
    links |= {attrs["aria-describedby"] for _, attrs in page.elements if "aria-describedby" in attrs}
    assert links <= set(ids)
    assert set(re.findall(r'byId\("([\w-]+)"\)', page.script)) <= set(ids)


def test_numbers_in_the_page_are_those_of_the_results(page, small_run):
    metrics = load(small_run).results["metrics"]
    shown = dict(
        re.findall(
            r'<tr data-metric="(\w+)".*?>.*?<td class="num value">([^<]*)</td>',
            page.source,
            re.DOTALL,
        )
    )
    expected = {
        "overall",
        "single_object",
        "two_object",
        "counting",
        "colors",
        "position",
        "color_attr",
    }
    assert expected <= set(shown)
    for name, value in shown.items():
        if not name.endswith("_by_pixels"):  # whose row starts with the judge's figure
            assert value == f"{metrics[name]['value']:.3f}"
    for name in expected:
        low, high = metrics[name]["ci95"]
        assert f"{low:.3f} to {high:.3f}" in page.words
    assert f"{metrics['colors_by_pixels']['value']:.3f}" in page.words


def test_counts_of_scored_and_unscored_outputs_are_stated(page, small_run):
    counts = load(small_run).results["counts"]
    assert f"{counts['scored']} of {counts['outputs']} outputs scored" in page.words
    assert f"{counts['failed']} failed" in page.words


def test_partial_and_sticker_banners(page):
    assert "Partial run. 30 of 553 prompts were run." in page.words
    assert "do not compare with published ones" in page.words
    assert "Not a measurement" not in page.words


def test_test_doubles_get_the_red_banner(double_run, tmp_path):
    page = Page(write_report(double_run, tmp_path / "r.html"))
    levels = [
        a["class"] for t, a in page.elements if t == "li" and "banner" in (a.get("class") or "")
    ]
    assert levels[0] == "banner stop"
    assert "model 'dummy' and judge 'dummy'" in page.words
    assert "These figures mean nothing." in page.words


def test_unscored_outputs_that_did_not_fail_are_named_too(run_copy, tmp_path):
    def more(results):
        results["counts"]["unscored"] += 3

    edit(run_copy / "results.json", more)
    assert "3 not scored" in Page(write_report(run_copy)).words


def test_warnings_and_deviations_are_shown(run_copy):
    edit(
        run_copy / "manifest.json",
        lambda m: m["warnings"].append("the judge was never measured on paintings"),
    )
    words = Page(write_report(run_copy)).words
    assert "the judge was never measured on paintings" in words
    assert "2 pictures per prompt, the protocol has 4" in words


def test_the_judges_accuracy_is_shown(page):
    assert "0.981" in page.words and "0.912" in page.words
    assert "GenEval verdict is the true one" in page.words


def test_a_judge_without_figures_is_called_unknown(run_copy):
    edit(run_copy / "manifest.json", lambda m: m["judge"].update(accuracy={}))
    assert "How often its verdicts are right is unknown." in Page(write_report(run_copy)).words


def test_accuracy_on_genevals_verdicts_heads_no_other_tasks_figures(run_copy):
    assert "the sticker judge’s GenEval verdict was right on 98.1 %" in Page(write_report(run_copy)).words
    edit(run_copy / "manifest.json", lambda m: m["task"].update(name="dpg_stickers"))
    page = Page(write_report(run_copy))
    assert "the sticker judge was measured on GenEval verdicts only" in page.words
    assert "was right on" not in page.words and "too high by about" not in page.words
    assert "judge right" not in page.words and "0.981" in page.words


def test_scores_of_a_set_of_pictures_are_called_inside_and_outside(run_copy):
    edit(run_copy / "manifest.json", lambda m: m["task"].update(name="fid_stickers"))
    page = Page(write_report(run_copy))
    assert "Inside and outside the reference" in page.words and "What went wrong" not in page.words
    assert page.data()["words"]["right"] == "inside" and page.data()["words"]["wrong_mark"] == "out"
    assert "was right on" not in page.words and "are right is not known" not in page.words


def test_published_figures_stand_apart_and_rewritten_prompts_apart_from_them(page):
    section = page.source[page.source.index('id="published"') : page.source.index('id="made"')]
    assert "Not comparable with this run." in section
    plain, rewritten = section.split("prompts rewritten by a language model", 1)
    assert ">BLIP3-o 8B (open)<" in plain and ">0.83<" in plain
    assert plain.count("BAGEL") == 1 and ">0.88<" in rewritten
    before = page.source[: page.source.index('id="published"')]
    assert "Qwen-Image" not in before


def test_how_it_was_made(page, small_run):
    manifest = load(small_run).manifest
    for text in (
        manifest["model"]["weights_sha256"],
        manifest["judge"]["weights_sha256"],
        manifest["task"]["prompts_sha256"],
        manifest["config_sha256"],
        manifest["git"]["commit"] if manifest["git"] else "not from a repository",
        f"torch {manifest['versions']['torch']}",
        "blip3o-eval run --task geneval --model nano --judge stickers --limit 30 --num-images 2 --seed 42",
    ):
        assert text in page.words


def test_downloads_hold_the_results(page, small_run):
    files = page.downloads()
    run = load(small_run)
    assert json.loads(files["geneval-nano-results.json"]) == run.results
    assert json.loads(files["geneval-nano-manifest.json"]) == run.manifest
    rows = list(csv.DictReader(io.StringIO(files["geneval-nano-outputs.csv"])))
    scores = list(run.scores())
    assert [(r["sample_id"], r["value"]) for r in rows] == [
        (s["sample_id"], "" if s["value"] is None else str(s["value"])) for s in scores
    ]
    metrics = {
        r["metric"]: r for r in csv.DictReader(io.StringIO(files["geneval-nano-metrics.csv"]))
    }
    assert float(metrics["overall"]["value"]) == run.results["metrics"]["overall"]["value"]
    assert float(metrics["overall"]["ci_low"]) == run.results["metrics"]["overall"]["ci95"][0]


def test_the_gallery_holds_every_output_with_its_verdict(page, small_run):
    data = page.data()
    shown = {(s["id"], o["i"]): o["v"] for s in data["samples"] for o in s["o"]}
    assert shown == {
        (r["sample_id"], r["image_index"]): r["value"] for r in load(small_run).scores()
    }
    groups = [data["groups"][s["g"]] for s in data["samples"][:6]]
    assert len(set(groups)) == 6, "the first page shows every group"
    pictures = [o for s in data["samples"] for o in s["o"] if "t" in o]
    assert [o["t"] for o in pictures] == list(range(len(page.pictures())))
    assert all(content[:4] == b"RIFF" for content in page.pictures())
    assert {(o["w"], o["h"]) for o in pictures} == {(64, 64)}
    failed = [o for s in data["samples"] for o in s["o"] if o["v"] is None]
    assert failed and all(o["u"] for o in failed)


def test_small_pictures_keep_their_pixels(page, small_run):
    from PIL import Image

    run = load(small_run)
    path = {(r["sample_id"], r["image_index"]): r.get("path") for r in run.outputs()}
    sample = page.data()["samples"][0]
    output = next(o for o in sample["o"] if "t" in o)
    kept = Image.open(io.BytesIO(page.pictures()[output["t"]])).convert("RGB")
    with Image.open(run.root / path[sample["id"], output["i"]]) as original:
        assert kept.tobytes() == original.convert("RGB").tobytes()


# --- what the page must not do -------------------------------------------------------------------------------------


def addresses(page: Page):
    for tag, attrs in page.elements:
        for name in (
            "src",
            "href",
            "srcset",
            "action",
            "data",
            "poster",
            "xlink:href",
            "formaction",
            "background",
        ):
            if attrs.get(name) is not None:
                yield tag, name, attrs[name]


def test_the_page_asks_the_network_for_nothing(page):
    for tag, name, value in addresses(page):
        assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    style = page.source[page.source.index("<style>") : page.source.index("</style>")]
    assert "url(" not in style and "@import" not in style
    (policy,) = [
        a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none'")
    assert not re.search(
        r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|importScripts|eval)\b", page.script
    )


def test_the_policy_allows_the_pages_own_script_and_no_other(page):
    import hashlib
    from base64 import b64encode

    (policy,) = [
        a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"
    ]
    runnable = [text for attrs, text in page.scripts if attrs.get("type") != "application/json"]
    digests = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in runnable]
    assert len(digests) == 1 and f"script-src 'sha256-{digests[0]}'" in policy


def test_hostile_text_stays_text(run_copy):
    def outputs(number, row):
        row["prompt"] = HOSTILE

    def scores(number, row):
        if row["value"] is not None:
            row["reason"] = HOSTILE
            row["details"]["detections"] = {HOSTILE: [[0, 0, 1, 1, 0.5]]}
        else:
            row["unscored"] = HOSTILE

    def manifest(value):
        value["model"]["name"] = value["judge"]["name"] = HOSTILE
        value["warnings"].append(HOSTILE)
        value["task"]["card"]["worth"] = HOSTILE
        value["judge"]["accuracy"] = {HOSTILE: {HOSTILE: 0.5}, "note": HOSTILE}
        value["config"]["model"]["name"] = HOSTILE
        value["versions"][HOSTILE] = HOSTILE

    edit_rows(run_copy / "outputs.jsonl", outputs)
    edit_rows(run_copy / "scores.jsonl", scores)
    edit(run_copy / "manifest.json", manifest)
    page = Page(write_report(run_copy))
    tags = [tag for tag, _ in page.elements]
    assert [a["type"] for a, _ in page.scripts if "type" in a] == ["application/json"] * (len(page.scripts) - 1)
    assert tags.count("style") == 1 and "img" not in tags
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert page.open == []
    assert "{{ 7 * 191 }}" in page.words and "1337" not in page.words
    assert page.data()["samples"][0]["p"] == HOSTILE.replace("\ud800", "?")


def test_spreadsheets_find_no_formula(run_copy):
    edit_rows(
        run_copy / "outputs.jsonl", lambda n, row: row.update(prompt='=HYPERLINK("http://x")')
    )
    files = Page(write_report(run_copy)).downloads()
    rows = list(csv.DictReader(io.StringIO(files["geneval-nano-outputs.csv"])))
    assert {row["prompt"] for row in rows} == {'\'=HYPERLINK("http://x")'}


def test_endless_prompts_are_cut(run_copy):
    edit_rows(run_copy / "outputs.jsonl", lambda n, row: n or row.update(prompt="x" * 1_000_000))
    page = Page(write_report(run_copy))
    assert any(s["p"].endswith("... (1000000 characters)") for s in page.data()["samples"])
    assert len(page.source) < 2_000_000


# --- damage, and other shapes of runs ------------------------------------------------------------------------------


def test_missing_and_damaged_pictures_are_counted_and_left_blank(run_copy):
    paths = [run_copy / r["path"] for r in load(run_copy).outputs() if "path" in r]
    paths[0].unlink()
    paths[1].write_bytes(b"not a picture")
    page = Page(write_report(run_copy))
    assert "2 picture files are missing or damaged." in page.words
    pictures = [o for s in page.data()["samples"] for o in s["o"] if "t" in o]
    assert len(pictures) == len(paths) - 2


def test_a_run_of_questions_has_answers_in_place_of_pictures(run_copy):
    def answer(number, row):
        row.pop("path", None)
        if row["status"] == "ok":
            row["text"] = "yes"

    edit_rows(run_copy / "outputs.jsonl", answer)
    edit(
        run_copy / "manifest.json",
        lambda m: (m["task"].update(name="quiz", kind="understanding"), m.update(judge=None)),
    )
    page = Page(write_report(run_copy))
    assert 'id="published"' not in page.source and 'id="judge"' not in page.source
    assert "Answers" in page.words
    assert "rrors of the judge" not in page.words and page.data()["words"]["thing"] == "question"
    assert ">questions</th>" in page.source and ">prompts</th>" not in page.source
    assert any(o.get("x") == "yes" for s in page.data()["samples"] for o in s["o"])


def test_figures_that_this_package_never_heard_of_are_shown(run_copy):
    """Reports of tasks whose headline has no explanation used to fail."""

    def rename(results):
        metric = dict(
            results["metrics"]["overall"],
            value=12.25,
            ci95=[11.5, 13.0],
            unit="distance",
            method="magic",
        )
        results["metrics"] = {"kid_x1000": metric, "psnr": dict(metric, value=30.125, ci95=None)}

    edit(run_copy / "results.json", rename)
    edit(
        run_copy / "manifest.json",
        lambda m: m["task"].update(name="my_task", groups={"all": 30}, card={}),
    )
    words = Page(write_report(run_copy)).words
    assert "kid x1000" in words and "12.25" in words and "11.5 to 13" in words
    assert "psnr" in words and "30.12" in words


def test_figures_that_are_not_given_are_not_invented(run_copy):
    def blank(results):
        results["metrics"]["overall"].update(
            value=None, ci95=None, note="not given: no scores for position"
        )

    edit(run_copy / "results.json", blank)
    page = Page(write_report(run_copy))
    assert "not given: no scores for position" in page.words
    headline = page.source[page.source.index('class="big-value"') :][:60]
    assert ">\N{EN DASH}<" in headline


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="no run to report"):
        write_report([])


def test_a_place_that_cannot_be_written_is_named(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr("reports.html.render", lambda template, context: "page")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(small_run, tmp_path / "file" / "report.html")


def test_a_run_that_was_judged_again_names_its_parent(run_copy):
    parent = {"relation": "rescored", "run": "../first", "judge": {"name": "old", "version": "3"}, "missing": 2}
    edit(run_copy / "manifest.json", lambda m: m.update(parent=parent))
    words = Page(write_report(run_copy)).words
    assert "The outputs are those of ../first, where old, version 3, judged them. 2 of them it had" in words
    assert "blip3o-eval rescore ../first --judge stickers" in words


def test_pictures_made_elsewhere_have_no_seed(run_copy):
    edit(run_copy / "manifest.json", lambda m: m["config"]["model"].update(name="images:my pictures"))
    edit(run_copy / "manifest.json", lambda m: m["config"]["judge"].update(name="stickers"))
    words = Page(write_report(run_copy)).words
    assert "pictures made elsewhere" in words
    assert "blip3o-eval score --task geneval --images 'my pictures' --judge stickers" in words


# --- several runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def changed_run(small_run, tmp_path_factory) -> Path:
    """`small_run` with every scored output of one group right, as if another model had made it."""
    root = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("changed") / "run"))

    def improve(number, row):
        if row["group"] == "color_attr" and row["value"] is not None:
            row["value"], row["reason"] = 1.0, ""

    edit_rows(root / "scores.jsonl", improve)
    edit(root / "manifest.json", lambda m: m["model"].update(name="nano-tuned"))
    return root


def test_runs_side_by_side_with_paired_differences(small_run, changed_run, tmp_path):
    from evals import stats

    page = Page(write_report([small_run, changed_run], tmp_path / "both.html"))
    assert page.open == []
    first, second = (
        {(r["sample_id"], r["image_index"]): r for r in load(root).scores()}
        for root in (small_run, changed_run)
    )
    shared = [k for k in first if first[k]["value"] is not None and second[k]["value"] is not None]
    expected = stats.paired_difference(
        [second[k]["value"] for k in shared],
        [first[k]["value"] for k in shared],
        [k[0] for k in shared],
        [first[k]["group"] for k in shared],
    )
    assert expected.value > 0
    assert f"{expected.value:+.3f}" in page.words
    assert f"{expected.lo:+.3f} to {expected.hi:+.3f}" in page.words
    assert page.data()["runs"] == ["nano", "nano-tuned"]
    assert {o["n"] for o in page.data()["samples"][0]["o"]} == {0, 1}


def test_the_same_run_twice_differs_by_nothing(small_run, tmp_path):
    page = Page(write_report([small_run, small_run], tmp_path / "both.html"))
    section = page.source[page.source.index('id="differences"') : page.source.index('id="gallery"')]
    assert ">p</th>" in section and ">p (Holm)</th>" in section
    assert section.count("no difference shown") == section.count("+0.000</td>") == 10
    assert "higher" not in section and "lower" not in section


def test_runs_of_two_judges_are_not_set_side_by_side(small_run, double_run, tmp_path):
    with pytest.raises(UsageError, match=r"do not compare \(.*judge: stickers and dummy; judge weights: b+ and"):
        write_report([small_run, double_run], tmp_path / "both.html")


def test_what_sets_the_runs_apart_stands_with_their_figures(small_run, changed_run, tmp_path):
    def other(manifest):
        manifest["fingerprint"]["model.guidance_scale"] = 7.5
        manifest["judge"]["accuracy"]["nano_pictures"] = {"verdict_agreement": 0.8125}

    root = Path(shutil.copytree(changed_run, tmp_path / "run"))
    edit(root / "manifest.json", other)
    words = Page(write_report([small_run, root], tmp_path / "both.html")).words
    assert "guidance scale 3.0" in words and "guidance scale 7.5" in words
    assert "right on 81.2 % of labelled pictures made by nano" in words


def test_several_runs_need_a_file(small_run):
    with pytest.raises(UsageError, match="needs a file"):
        write_report([small_run, small_run])


def test_categories_stand_in_one_table_for_both_modes(tmp_path):
    import evals

    made = evals.evaluate("dpg_stickers", "dummy", judge="dummy", output=tmp_path / "run", limit=4, num_images=2,
                          quiet=True, tracking__enabled=False)  # fmt: skip
    source = made.report_path.read_text(encoding="utf-8")
    table = source[source.index("Categories by both modes") :]
    table = table[: table.index("</table>")]
    figures = made.results["metrics"]
    rows = table.split("<tr>")[2:]
    names = [n.removeprefix("official_") for n in figures if n.startswith("official_")]
    assert len(rows) == sum(figures[n]["value"] is not None for n in names)
    entity = next(row for row in rows if 'scope="row">entity ' in row)
    assert source.count('data-title="results"') == 1  # categories of level 1 are drawn beside the headline
    assert f"{figures['entity']['value']:.1f}" in entity and f"{figures['official_entity']['value']:.1f}" in entity
    assert figures["official_entity"]["n"] < figures["entity"]["n"]
    assert "official entity" not in source[source.index("Further figures") :].split("</table>")[0]
