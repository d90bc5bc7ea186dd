"""A run whose every name and text is an attack: the page shows them as text, and nothing of them runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.api import Detection, Identity, Sample, Score, ScoreItem
from evals.errors import EvalError, InputError
from evals.io.jsonl import read_rows
from evals.metrics.accuracy import GroupMean, MeanOfGroups
from evals.runner import evaluate
from reports.html import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
ATTACKS = (
    "<script>window.hit='script'</script>",
    "</script><script>window.hit='end of script'</script>",
    "</style><style>body{display:none}</style>",
    "<img src=x onerror=\"window.hit='image'\">",
    "\"><svg onload=window.hit='svg'>",
    "' onmouseover='window.hit=1' x='",
    "javascript:window.hit=1",
    "</title><base href='http://evil.invalid/'><iframe src='http://evil.invalid/'></iframe>",
    "<!--<script>", "]]><![CDATA[", "{{ 7*7 }}{% include '/etc/passwd' %}", "${7*7}",
    "\u202eright to left\u202c\u2066\u200f", "zero\x00byte \x1b[2J\x08\x7f", "half \ud800 pair",
    r"\1 \d \g<0> \\", r"$\frac{", "=HYPERLINK(\"http://evil.invalid\")", "&lt;b&gt;&#x3c;",
    "__proto__", "constructor", "right", "not scored", "a\u2028b\u2029c\r\nd", " ", "url(#x) href=\"#y\" id=\"z\"",
    "<script>" * 120_000,
)  # fmt: skip


class Attack:
    """A task of hostile groups, prompts, ids and reasons, judged by itself."""

    name, version, kind, num_images = "attack<b>", "1</script>", "generation", 1
    judges = {"test": "dummy"}
    card = {"measures": ATTACKS[0], "worth": ATTACKS[1], "<u>key</u>": ATTACKS[3]}
    groups = tuple(text[:80] for text in ATTACKS)

    def samples(self) -> Sequence[Sample]:
        return [
            Sample(f"{i} {text[:90]}", i, text[:80], text, metadata={"prompt": text})
            for i, text in enumerate(ATTACKS)
        ]

    def digest(self) -> str:
        return hashlib.sha256(repr(ATTACKS).encode("utf-8", "replace")).hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any) -> Sequence[Score]:
        return [self._score(item) for item in items]

    def _score(self, item: ScoreItem) -> Score:
        text = item.sample.prompt[:200]
        if item.sample.number % 5 == 4:
            return Score.unscored(text, detections={text: [[1, 2, 3, 4, 0.5]]})
        details = {
            "detections": {text: [[1, 2, 30, 40, 0.5]]},
            "colors": [{"class": text, "asked": text, "color": text, "pixel_color": text}],
            "answers": {text: text},
        }
        return Score(float(item.sample.number % 2), answer=text, reason=text, details=details)

    def metrics(self) -> Sequence[Any]:
        return [MeanOfGroups(self.groups), *(GroupMean(g, g) for g in self.groups)]


class Painter:
    """An image generator with a hostile name."""

    def __init__(self, name: str) -> None:
        settings = {"steps": ATTACKS[1], ATTACKS[3]: ATTACKS[4]}
        self.identity = Identity(name, ATTACKS[0], "a" * 64, "test", settings=settings)

    def load(self) -> None: ...

    def close(self) -> None: ...

    def generate(self, requests: Sequence[Any]) -> Sequence[Any]:
        from PIL import Image

        return [
            Image.new("RGB", (48, 48), "teal")
            if r.sample_id[0] != "7"
            else RuntimeError(ATTACKS[3])
            for r in requests
        ]


class Nobody:
    identity = Identity(ATTACKS[3], ATTACKS[1], "b" * 64, "test")

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> dict[str, Any]:
        return {ATTACKS[3]: {"scenes": 1, ATTACKS[1]: 0.5}, "measured": {"date": ATTACKS[0]}}

    def detect(self, images: Sequence[Any], wanted: Any) -> Sequence[Sequence[Detection]]:
        return [[] for _ in images]


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs."""
    runs = []
    for name in ("<img src=x onerror=window.hit=3>", "</script><script>window.hit=4</script>"):
        root = tmp_path_factory.mktemp("attack") / "ru n <b> ü"
        evaluate(Attack(), Painter(name), judge=Nobody(), output=root, quiet=True, report=False,
                 tracking__enabled=False, max_errors=1.0)  # fmt: skip
        runs.append(root)
    return runs


def test_what_a_run_stores_is_what_it_was_given(attacked: list[Path]) -> None:
    """Half a surrogate pair could not be encoded: the batch was lost, with a traceback."""
    assert tuple(row["prompt"] for row in read_rows(attacked[0] / "outputs.jsonl")) == ATTACKS


@pytest.mark.parametrize("number_of_runs", [1, 2])
def test_no_attack_runs_in_the_page(
    attacked: list[Path], browser: Any, number_of_runs: int, tmp_path: Path
) -> None:
    page_file = write_report(attacked[:number_of_runs], tmp_path / "page.html")
    assert page_file.stat().st_size < 10_000_000
    page = browser.new_page()
    try:
        _attack(page, page_file)
    finally:
        page.close()


def _attack(page: Any, file: Path) -> None:
    heard: list[str] = []
    page.on("console", lambda m: heard.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("dialog", lambda dialog: heard.append(f"dialog {dialog.message}"))
    own = ("file:", "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(own) else heard.append(r.url))
    page.goto(file.as_uri())
    intruders = """() => {
        const all = (what) => [...document.querySelectorAll(what)];
        const shown = (nodes) => nodes.map((n) => n.outerHTML.slice(0, 80));
        const listens = (n) => [...n.attributes].some((a) => a.name.startsWith("on"));
        return {
            hit: window.hit ?? null,
            tags: shown(all("iframe, base, object, embed, form[action], u, b")),
            handlers: shown(all("*").filter(listens)),
            images: shown(all("img").filter((n) => !n.src.startsWith("data:image/"))),
            links: shown(all("a[href]").filter((n) => !/^(#|data:)/.test(n.getAttribute("href")))),
            styles: document.querySelectorAll("style").length,
            hidden: getComputedStyle(document.body).display,
            running: [...document.scripts].filter((s) => !s.type || s.type === "text/javascript").length,
        };
    }"""
    nothing = {"hit": None, "tags": [], "handlers": [], "images": [], "links": [], "styles": 1,
               "hidden": "block", "running": 1}  # fmt: skip
    assert page.evaluate(intruders) == nothing
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for field in ("f-group", "f-verdict", "f-kind"):
        options = f"[...document.getElementById('{field}').options].map((o) => o.value)"
        for value in page.evaluate(options)[:30]:
            page.evaluate(
                "([id, value]) => { const f = document.getElementById(id); f.value = value;"
                " f.form.dispatchEvent(new Event('input', {bubbles: true})); }",
                [field, value],
            )
        page.evaluate("document.getElementById('filters').reset()")
        page.wait_for_timeout(50)
    page.locator("#g-grid .thumb").first.click()
    for _ in range(len(ATTACKS) + 2):
        assert page.evaluate(intruders) == nothing
        page.keyboard.press("ArrowRight")
    assert heard == []


# -- folders that somebody else made -------------------------------------------------------------


@pytest.fixture
def copy(attacked: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(attacked[0], tmp_path / "copy"))


def change(path: Path, edit: Any) -> None:
    """Edit a JSON file, or the first line of a JSON lines file, and leave its checksum off."""
    lines = path.read_text().rstrip("\n").split("\n") if path.suffix == ".jsonl" else [path.read_text()]
    data = json.loads(lines[0])
    for key in ("content_sha256", "crc32"):
        data.pop(key, None)
    edit(data)
    path.write_text("\n".join([json.dumps(data), *lines[1:]]) + "\n")


def complaint(root: Path, out: Path) -> str:
    with pytest.raises(EvalError) as caught:
        write_report(root, out)
    assert not out.exists() and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    "elsewhere", ["../secret.png", "/etc/secret.png", "images/../../secret.png", "images/\0", 7]
)
def test_pictures_outside_the_folder_are_not_shown(
    copy: Path, elsewhere: object, tmp_path: Path
) -> None:
    """A run from somebody else could name any picture of this machine, and the page embedded it."""
    change(copy / "outputs.jsonl", lambda row: row.update(path=elsewhere))
    message = complaint(copy, tmp_path / "page.html")
    assert message.startswith(f"{copy / 'outputs.jsonl'}:1: ")


def test_a_picture_that_would_start_a_program_is_not_opened(copy: Path, tmp_path: Path) -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file's name says."""
    picture = copy / next(iter(read_rows(copy / "outputs.jsonl")))["path"]
    picture.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    text = write_report(copy, tmp_path / "page.html").read_text()
    assert "picture file" in text and "missing or damaged" in text


@pytest.mark.parametrize(
    ("file", "edit", "expected"),
    [
        ("manifest.json", lambda d: d.pop("config"), "manifest.json: config is missing"),
        ("manifest.json", lambda d: d["task"].update(groups=[]), "task.groups must be an object"),
        ("manifest.json", lambda d: d.update(model=None), "model must be an object, got null"),
        ("manifest.json", lambda d: d.update(warnings="x"), "warnings must be a list"),
        ("manifest.json", lambda d: d.update(sessions=[1]), "sessions[0] must be an object"),
        ("manifest.json", lambda d: d["plan"].update(samples=-1), "plan.samples must not be negative"),
        ("results.json", lambda d: d.pop("counts"), "results.json: counts is missing"),
        ("results.json", lambda d: d["metrics"].update(x=1), "metrics.x must be an object, got 1"),
        ("results.json", lambda d: d["metrics"]["overall"].update(value="1"), "value must be a finite"),
        ("results.json", lambda d: d["metrics"]["overall"].update(ci95=[1]), "ci95 must be a list of 2"),
        ("outputs.jsonl", lambda d: d.update(image_index=True), "outputs.jsonl:1: is no output"),
        ("outputs.jsonl", lambda d: d.update(sample_id=["a"]), "outputs.jsonl:1: is no output"),
        ("outputs.jsonl", lambda d: d.pop("prompt"), "outputs.jsonl:1: is no output"),
        ("scores.jsonl", lambda d: d.update(value="1"), "scores.jsonl:1: is no score"),
        ("scores.jsonl", lambda d: d.update(value=float("inf")), "scores.jsonl:1: is no score"),
        ("scores.jsonl", lambda d: d.update(value=None), "scores.jsonl:1: is no score"),
        ("scores.jsonl", lambda d: d.update(details=[]), "scores.jsonl:1: is no score"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_named_with_its_place(
    copy: Path, file: str, edit: Any, expected: str, tmp_path: Path
) -> None:
    """Nothing looked at the form before: the first reader that needed a key failed with a KeyError of its own."""
    change(copy / file, edit)
    message = complaint(copy, tmp_path / "page.html")
    assert expected in message and str(copy) in message


@pytest.mark.parametrize("raw", [b"", b"[" * 100_000, b"NaN", b"\xff\xfe", b'{"schema": 1, "schema": 1}'])
def test_a_manifest_that_is_no_json_is_named(copy: Path, raw: bytes, tmp_path: Path) -> None:
    (copy / "manifest.json").write_bytes(raw)
    with pytest.raises(InputError, match="manifest.json"):
        write_report(copy, tmp_path / "page.html")


def test_boxes_of_another_form_are_left_out(copy: Path, tmp_path: Path) -> None:
    """Details belong to the task and may hold anything; a text in place of a number ended the report."""
    odd: list[Any] = [{"cup": [[1, 2, 3, 4, "0.5"]]}, {"cup": [[1, 2, 3]]}, {"cup": 5}, {"cup": [None]}, [1],
                      "x", {"cup": [[1, 2, 3, 4, 10**400]]}, {"cup": [[True, 2, 3, 4, 5]]}]  # fmt: skip
    path = copy / "scores.jsonl"
    rows = list(read_rows(path))
    for row, found in zip(rows, odd, strict=False):
        row["details"]["detections"] = found
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert write_report(copy, tmp_path / "page.html").stat().st_size > 1000
