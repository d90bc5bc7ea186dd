"""CLIPScore: the convention of torchmetrics, cut prompts counted, batches that do not matter."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from evals import evaluate
from evals.api import ModelOptions, Score, ScoreRow
from evals.errors import JudgeError, UsageError
from evals.judges.clip_similarity import create
from evals.metrics.clip_score import ClipScore, clip_score


def pictures(n):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)) for _ in range(n)]


PROMPTS = ["a cat", "two dogs", "a very long prompt that no tower reads to its end", "x"]


def test_cosines_are_the_models_own(clip_folder):
    """Each tower by itself, one pair at a time, against the judge's batch."""
    from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

    model = CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_folder)
    processor = CLIPImageProcessorPil.from_pretrained(clip_folder)
    judge = create(str(clip_folder), ModelOptions(device="cpu"))
    images = pictures(4)
    found = judge.similarity(images, PROMPTS)
    for image, prompt, one in zip(images, PROMPTS, found, strict=True):
        tokens = tokenizer([prompt], truncation=True, max_length=24, return_tensors="pt")
        with torch.no_grad():
            text = model.text_projection(model.text_model(**tokens).pooler_output)[0]
            pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
            seen = model.visual_projection(model.vision_model(pixels).pooler_output)[0]
        expected = torch.nn.functional.cosine_similarity(seen, text, dim=0).item()
        assert one.cosine == pytest.approx(expected, abs=1e-5)
    assert [one.is_cut for one in found] == [False, False, True, False]


def rows(cosines, cut=()):
    return [
        ScoreRow(str(i), 0, "all", Score(clip_score(c) / 100, details={"encoder": "e", "is_cut": i in cut}))
        for i, c in enumerate(cosines)
    ]


def test_negative_cosines_count_as_zero():
    assert clip_score(-0.3) == 0 and clip_score(0.31) == pytest.approx(31)
    figure = ClipScore().compute(rows([0.2, 0.4, -0.5], cut={1}))
    assert figure.name == "clipscore-e" and figure.value == pytest.approx(20)
    assert figure.note == "1 of 3 prompts were cut: the encoder reads no more"
    assert figure.ci95[0] <= 20 <= figure.ci95[1]
    assert ClipScore().compute([]).value is None


def test_a_run_names_the_encoder_and_counts_cut_prompts(clip_folder, tmp_path):
    lines = [json.dumps({"id": i, "prompt": p}) for i, p in enumerate(PROMPTS)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(lines))
    made = evaluate("clipscore", "dummy", judge=f"clip:{clip_folder}", output=tmp_path / "run", quiet=True,
                    report=False, tracking__enabled=False, data=str(tmp_path / "data"))  # fmt: skip
    figure = made.results["metrics"]["clipscore-tiny-clip"]
    assert figure["n"] == 4 and figure["note"].startswith("1 of 4 prompts were cut")
    details = [json.loads(line)["details"]["cosine"] for line in open(tmp_path / "run" / "scores.jsonl")]
    assert figure["value"] == pytest.approx(np.mean([clip_score(c) for c in details]))


def test_wrong_folders_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        create("/nowhere/clip", ModelOptions())
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(JudgeError, match="cannot be loaded"):
        create(str(tmp_path), ModelOptions(device="cpu")).load()
