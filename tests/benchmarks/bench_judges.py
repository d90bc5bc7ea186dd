"""What judging costs: batch 1 against N, questions together against one by one, beside generation against after it.

    python tests/benchmarks/bench_judges.py                      # the bundled judge, and BLIP-VQA of random weights
    python tests/benchmarks/bench_judges.py --pictures 32 --device cuda

Printed per line: processor seconds (of other programs' load they know nothing; on a GPU look at the wall seconds), wall
seconds, and per picture. BLIP-VQA has its base size at 384 pixels: its
weights are random, its costs are not. The first lines run a fake model and a fake judge that both wait for 50 ms a
picture, as for endpoints.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import evals
from evals.judges.dummy import DummyJudge
from evals.judges.dummy import _Arguments as JudgeArguments
from evals.models.dummy import DummyModel
from evals.models.dummy import _Arguments as ModelArguments

QUESTIONS = [f"is there a thing of kind {n} in the picture?" for n in range(13)]  # DPG-Bench's mean is 13.4


def timed(label: str, call: Callable[[], Any], per: int) -> None:
    call()  # once to warm up
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:<58} {cpu:8.2f} s CPU {wall:8.2f} s   {cpu / per:.3f} s CPU a picture", flush=True)


def pictures(count: int, side: int) -> list[Any]:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def stickers(count: int, device: str) -> None:
    from evals.api import ModelOptions
    from evals.judges.stickers import create

    judge, seen = create("", ModelOptions(device=device)), pictures(4 * count, 96)
    judge.load()
    for size in (1, 8, 4 * count):
        parts = [seen[start : start + size] for start in range(0, len(seen), size)]

        def detect(parts: list[Any] = parts) -> None:
            for part in parts:
                judge.detect(part, [()] * len(part))

        timed(f"stickers, {len(seen)} pictures, batch {size}", detect, len(seen))


def questions(name: str, judge: Any, count: int) -> None:
    judge.load()
    seen = pictures(count, 384)

    def ask(together: int, one_by_one: bool = False) -> None:
        for start in range(0, count, together):
            part: Sequence[Any] = seen[start : start + together]
            pairs = [(picture, question) for picture in part for question in QUESTIONS]
            if one_by_one:
                for picture, question in pairs:
                    judge.ask([picture], [question])
            else:
                judge.ask([p for p, _ in pairs], [q for _, q in pairs])

    timed(f"{name}, {count} pictures, 13 questions one by one", lambda: ask(1, one_by_one=True), count)
    timed(f"{name}, {count} pictures, 13 questions together", lambda: ask(1), count)
    timed(f"{name}, {count} pictures, all together", lambda: ask(count), count)


def blip_vqa(device: str, folder: Path, layers: int) -> Any:
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForQuestionAnswering,
        BlipImageProcessorPil,
    )

    from evals.api import ModelOptions
    from evals.judges.blip_vqa import create

    marks, plain = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "is there a thing of kind in the picture ?"
    words = [*marks, *plain.split(), *map(str, range(13))]
    torch.manual_seed(0)
    text = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "num_hidden_layers": layers}
    config = BlipConfig(text_config=text, vision_config={"image_size": 384, "num_hidden_layers": layers})
    BlipForQuestionAnswering(config).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 384, "width": 384}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return create(str(folder), ModelOptions(device=device))


def beside() -> None:
    for when in ("after", "beside"):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            evals.evaluate(
                "geneval", DummyModel(ModelArguments(size=16, seconds=0.05)),
                judge=DummyJudge(JudgeArguments(seconds=0.05)), output=Path(folder) / "run", limit=50, judge_when=when,
                quiet=True, report=False, tracking__enabled=False,
            )  # fmt: skip
            seconds = time.perf_counter() - began
            print(f"200 pictures, 50 ms each in model and judge, judged {when:<6} {seconds:6.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", type=int, default=12, help="of BLIP-VQA's networks; the published model has 12")
    options = parser.parse_args()
    beside()
    stickers(options.pictures, options.device)
    with tempfile.TemporaryDirectory() as folder:
        questions("blip-vqa", blip_vqa(options.device, Path(folder), options.layers), options.pictures)


if __name__ == "__main__":
    main()
