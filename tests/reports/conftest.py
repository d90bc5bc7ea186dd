"""Realistic finished runs, made through the harness itself.

`Painter` draws the sticker scene that a GenEval prompt asks for, with a seeded share of mistakes; `Onlooker` knows
what it drew. Both claim real names, so reports treat the run as an ordinary one: these are fixtures for reports,
and their figures mean nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evals.api import Detection, GenerationRequest, Identity
from evals.runner import Run, evaluate

ACCURACY = {
    "seen_easy": {
        "scenes": 2000,
        "verdict_agreement": 0.981,
        "verdict_agreement_by_tag": {"colors": 0.97, "counting": 0.96},
        "f1": 0.991,
        "color": 0.974,
        "color_by_pixels": 0.962,
        "per_class": {"dog": 0.99, "sink": 0.93},
    },
    "unseen_style": {"scenes": 2000, "verdict_agreement": 0.912, "f1": 0.95, "color": 0.941},
    "measured": {"date": "2026-01-01", "weights_sha256": "c" * 64},
}


class Painter:
    """ImageGenerator: the scene of the prompt's GenEval record, right in about `skill` of its parts."""

    def __init__(
        self, name: str = "nano", skill: float = 0.75, size: int = 64, fail_every: int = 0
    ) -> None:
        from tasks.generation.geneval import GenEval

        self.specs = {sample.id: sample.metadata for sample in GenEval().samples()}
        self.skill, self.size, self.fail_every = skill, size, fail_every
        self.drawn: dict[str, list[tuple[str, str | None, Any]]] = {}
        digest = hashlib.sha256(f"{name} {skill}".encode()).hexdigest()
        settings = {"steps": 30, "guidance_scale": 3.0, "dtype": "float32"}
        self.identity = Identity(name, "0.1", digest, "stickers", settings=settings)

    def load(self) -> None: ...

    def close(self) -> None: ...

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        return [self._one(request) for request in requests]

    def _one(self, request: GenerationRequest) -> Any:
        from PIL import Image

        from blip3o.stickers import COLORS, Scene, SceneConfig, render
        from blip3o.stickers.layout import arrange
        from blip3o.stickers.rng import Stream

        rng = random.Random(f"{request.seed} {self.skill}")
        if self.fail_every and rng.randrange(self.fail_every) == 0:
            return RuntimeError("the painter dropped its brush")
        spec = self.specs[request.sample_id]
        objects, relation = [], None
        for clause in spec["include"]:
            color = clause.get("color")
            if color and rng.random() > self.skill:
                color = rng.choice(COLORS)
            objects += [(clause["class"], color)] * clause["count"]
            if "position" in clause:
                relation = clause["position"][0]
        if relation and rng.random() > self.skill:
            relation = rng.choice(["left of", "right of", "above", "below"])
        if relation:
            objects.reverse()  # the record names the reference first, a scene the placed object
        while len(objects) > 1 and rng.random() > self.skill:
            objects.pop(rng.randrange(len(objects)))
        if spec["tag"] == "counting" and len(objects) < 4 and rng.random() > self.skill:
            objects.append(objects[0])
        kind = spec["tag"] if len(objects) > 1 or spec["tag"] == "colors" else "single_object"
        stream = Stream("painter", request.sample_id, request.seed)
        relation = relation if len(objects) == 2 else None
        kind = "two_object" if kind == "position" and relation is None else kind
        stickers, background = arrange(stream, kind, objects, relation, SceneConfig.level("easy"))
        scene = Scene("test", 0, kind, stickers, background, relation, self.size)
        drawn = render(scene)
        image = Image.fromarray(drawn.image)
        self.drawn[key_of(image)] = [
            (sticker.class_name, sticker.color, box)
            for sticker, box in zip(stickers, drawn.boxes, strict=True)
        ]
        return image


class Onlooker:
    """DetectionJudge that knows what the painter drew and now and then misreads a colour."""

    def __init__(self, painter: Painter, fail_every: int = 0) -> None:
        self.painter, self.fail_every = painter, fail_every
        self.identity = Identity("stickers", "1", "b" * 64, "stickers")

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> Mapping[str, Any]:
        return ACCURACY

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        return [self._one(image) for image in images]

    def _one(self, image: Any) -> list[Detection]:
        from blip3o.stickers import COLORS

        rng = random.Random(key_of(image))
        if self.fail_every and rng.randrange(self.fail_every) == 0:
            raise RuntimeError("the onlooker blinked")
        found = []
        for name, color, box in self.painter.drawn[key_of(image)]:
            pixel = color or "white"
            said = pixel if rng.random() < 0.95 else rng.choice(COLORS)
            logits = tuple(30.0 * (c == said) for c in COLORS)
            score = 0.91 + 0.09 * rng.random()
            found.append(
                Detection(name, tuple(map(float, box)), score, None, logits, {"pixel_color": pixel})
            )
        return found


def key_of(image: Any) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def make_run(
    output: Path,
    *,
    name: str = "nano",
    skill: float = 0.75,
    size: int = 64,
    fail_every: int = 0,
    blink_every: int = 0,
    **settings: Any,
) -> Run:
    """A finished GenEval run without report or tracking; `limit` and the like go to the harness."""
    painter = Painter(name, skill, size, fail_every)
    return evaluate(
        "geneval",
        painter,
        judge=Onlooker(painter, blink_every),
        output=output,
        quiet=True,
        report=False,
        tracking__enabled=False,
        max_errors=1.0,
        **settings,
    )


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 prompts x 2 pictures, some outputs failed, some unscored. Copy before changing it."""
    root = tmp_path_factory.mktemp("runs") / "small"
    make_run(root, limit=30, num_images=2, fail_every=20, blink_every=20)
    return root


@pytest.fixture(scope="session")
def double_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fake model judged by the fake judge."""
    root = tmp_path_factory.mktemp("runs") / "double"
    evaluate(
        "geneval",
        "dummy",
        output=root,
        quiet=True,
        report=False,
        tracking__enabled=False,
        limit=6,
        num_images=1,
    )
    return root


@pytest.fixture
def run_copy(small_run: Path, tmp_path: Path) -> Path:
    """A copy of `small_run` that a test may change."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database as `reports.tracking_db` builds it; copied, as building one takes seconds."""
    from reports import tracking, tracking_db

    tracking.import_mlflow()
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with tracking_db.locked(path):
        tracking_db.ensure(path)
    return path


@pytest.fixture
def database(mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A complete, empty database at the default place of a fresh working directory.

    Databases that a test makes the tracker build are copies too: `mlflow_template` is the one that is really built.
    """
    from reports import tracking_db

    monkeypatch.setattr(
        tracking_db, "_build", lambda path, artifacts: shutil.copy(mlflow_template, path)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = tmp_path / "runs" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(mlflow_template, path)
    return path


@pytest.fixture
def mlflow_server(
    mlflow_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A server with an empty database (`mlflow_server.Server`), started; requests to it are not tried again."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(mlflow_template, tmp_path / "server.db")
    server = _sibling("mlflow_server").Server(tmp_path)
    server.start()
    yield server
    server.kill()


def _sibling(name: str) -> Any:
    """A module beside this file (tests are no packages)."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sweep_folders = _sibling("sweep_folders")


@pytest.fixture(scope="session")
def sweeps() -> Any:
    """The generator of sweep folders (`sweep_folders.py`)."""
    return sweep_folders


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of 24 prompts with a picture each, and one of 40 questions: what generated sweeps are copies of."""
    root = tmp_path_factory.mktemp("templates")
    make_run(root / "geneval", limit=24, num_images=1)
    evaluate(
        "vqa_stickers",
        "dummy",
        output=root / "vqa_stickers",
        quiet=True,
        report=False,
        tracking__enabled=False,
        limit=40,
    )
    return {"geneval": root / "geneval", "vqa_stickers": root / "vqa_stickers"}


@pytest.fixture(scope="session")
def sweep(templates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study's six cells, two seeds each, finished. Copy before changing it."""
    wanted = sweep_folders.Wanted(templates, seeds=(0, 1), checkpoints=(0.5,))
    return sweep_folders.make_sweep(tmp_path_factory.mktemp("sweeps") / "ablation", wanted)


@pytest.fixture
def sweep_copy(sweep: Path, tmp_path: Path) -> Path:
    """A copy of `sweep` that a test may change."""
    return Path(shutil.copytree(sweep, tmp_path / "sweep"))


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; skips where playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Open a page and watch it: what it logs and whom it asks. Both lists must stay empty."""
    contexts = []

    def opened(path: Path, *, width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.heard, page.asked = [], []
        page.on("console", lambda m: page.heard.append(m.text) if m.type in ("error", "warning") else None)  # fmt: skip
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        own = ("file:", "data:", "blob:")
        page.on("request", lambda r: page.asked.append(r.url) if not r.url.startswith(own) else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        for page in context.pages:
            assert page.heard == [] and page.asked == []
        context.close()
