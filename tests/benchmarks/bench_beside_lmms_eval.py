"""The command of lmms-eval and ours on the same questions with the same weights: what each costs, and why.

    python tests/benchmarks/bench_beside_lmms_eval.py                   # needs lmms-eval and decord: pip install
    python tests/benchmarks/bench_beside_lmms_eval.py --questions 320   # 'blip3o-eval[understanding]' decord

Every way is its own process, from start to results on disk, over one parquet file in VQAv2's form: yes/no questions
about sticker scenes, 8 a picture, 16 tokens at most. lmms-eval's own adapter `qwen2_5_vl` gets the backbone of nano as
an ordinary Qwen2.5-VL folder, with pictures of the size that nano reads. Each command runs twice, on few questions and
on all: the difference is what a question costs, the rest is what starting costs. Seconds are those of the processor,
since machines are shared; wall time of the longer run stands beside them. `same` counts answers equal to the first
row's (another library cuts pictures and rounds differently).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_understanding import questions_about_scenes

ROOT = Path(__file__).parents[2]
TASK = "vqav2_local"


@dataclass(frozen=True)
class Way:
    """A command. ``model``, ``args``: of lmms-eval; none of them: our own run."""

    name: str
    batch_size: int
    model: str = ""
    args: str = ""


def ways(folder: Path, largest: int) -> list[Way]:
    own = f"pretrained={folder / 'qwen'},device_map=cpu,min_pixels=784,max_pixels=50176"
    return [
        Way("lmms-eval, qwen2_5_vl", 1, "qwen2_5_vl", own),
        Way("lmms-eval, qwen2_5_vl", 16, "qwen2_5_vl", own),
        Way("lmms-eval, blip3o, pictures not shared", 1, "blip3o", "pretrained=nano,share_pictures=false"),
        Way("lmms-eval, blip3o, pictures not shared", largest, "blip3o", "pretrained=nano,share_pictures=false"),
        Way("lmms-eval, blip3o", largest, "blip3o", "pretrained=nano"),
        Way("blip3o-eval run", 1),
        Way("blip3o-eval run", largest),
    ]


def write_questions(path: Path, count: int, per_picture: int) -> None:
    """VQAv2's columns, ten equal annotators; through `datasets`, which marks the pictures as such for lmms-eval."""
    from datasets import Dataset, Image

    encoded: dict[int, tuple[int, bytes]] = {}
    rows = []
    for number, (image, text) in enumerate(zip(*questions_about_scenes(count, per_picture), strict=True)):
        if id(image) not in encoded:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            encoded[id(image)] = (len(encoded), buffer.getvalue())
        image_id, data = encoded[id(image)]
        rows.append({
            "question_id": number, "image_id": image_id, "question": text, "question_type": "is",
            "answer_type": "yes/no", "multiple_choice_answer": "yes", "image": {"bytes": data, "path": None},
            "answers": [{"answer": "yes", "answer_confidence": "yes", "answer_id": k} for k in range(10)],
        })  # fmt: skip
    Dataset.from_list(rows).cast_column("image", Image()).to_parquet(str(path))


def write_backbone(folder: Path) -> None:
    """Nano's backbone as transformers and lmms-eval's `qwen2_5_vl` read it."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    from blip3o.pipeline import Blip3oPipeline

    pipe = Blip3oPipeline.from_pretrained("nano")
    backbone, tokenizer = pipe.model.backbone, pipe.tokenizer
    vision = backbone.vision_config
    sizes = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    backbone.vlm.save_pretrained(folder)
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)


def command(way: Way, data: Path, folder: Path, output: Path) -> list[str]:
    if not way.model:
        program = [sys.executable, "-m", "evals.cli.main", "run", "--task", "vqav2", "--model", "nano", "-q"]
        given = ["--data", str(data), "--no-track", "--device", "cpu", "--output", str(output)]
        return [*program, *given, "--batch-size", str(way.batch_size)]
    from evals.lmms import catalog

    (folder / "yaml" / f"{TASK}.yaml").write_text(
        f"include: {catalog.find('vqav2_val').path}\ntask: {TASK}\ndataset_path: parquet\n"
        f"dataset_kwargs: {{data_files: {{validation: {data}}}}}\n"
    )
    program = [sys.executable, "-m", "lmms_eval", "--model", way.model, "--model_args", way.args, "--device", "cpu"]
    given = ["--tasks", TASK, "--include_path", str(folder / "yaml"), "--output_path", str(output)]
    return [*program, *given, "--batch_size", str(way.batch_size), "--log_samples"]


def answers(way: Way, output: Path) -> list[str]:
    """What was answered, in the order of the questions."""
    found: dict[int, str] = {}
    if not way.model:
        for line in (output / "outputs.jsonl").read_text().splitlines():
            row = json.loads(line)
            found[int(row["sample_id"])] = row.get("text", "")
    else:
        for file in output.rglob("*_samples_*.jsonl"):
            for line in file.read_text().splitlines():
                row = json.loads(line)
                said: Any = row.get("resps", row["filtered_resps"])  # one of them, where they are equal
                while isinstance(said, list):
                    said = said[0]
                found[int(row["doc_id"])] = said
    return [found[number].strip() for number in sorted(found)]


def measure(way: Way, data: Path, folder: Path, output: Path) -> tuple[float, float, list[str]]:
    """Processor and wall seconds of the whole command, and its answers."""
    environment = {
        "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "TQDM_DISABLE": "1",
        **os.environ, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command(way, data, folder, output), env=environment, cwd=folder, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = answers(way, output) if output.exists() else []
    if not said:
        raise SystemExit(f"{way.name} gave no answers:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, said


def table(folder: Path, counts: Sequence[int], per_picture: int, largest: int) -> list[str]:
    files = []
    for count in counts:
        files.append(folder / f"{count}.parquet")
        write_questions(files[-1], count, per_picture)
    write_backbone(folder / "qwen")
    (folder / "yaml").mkdir()
    lines = [
        "| way | batch | seconds to start | ms a question | gain | seconds of the whole | gain | wall | same |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    first: tuple[float, float, list[str]] | None = None
    for number, way in enumerate(ways(folder, largest)):
        (short, _, _), (whole, wall, said) = (
            measure(way, data, folder, folder / f"run-{number}-{data.stem}") for data in files
        )
        each = (whole - short) / (counts[1] - counts[0])
        first = first or (each, whole, said)
        same = sum(a == b for a, b in zip(said, first[2], strict=True))
        lines.append(
            f"| {way.name} | {way.batch_size} | {short - counts[0] * each:.1f} | {1000 * each:.0f} | "
            f"{first[0] / each:.1f} | {whole:.1f} | {first[1] / whole:.1f} | {wall:.0f} | {same} |"
        )
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=160)
    parser.add_argument("--few", type=int, default=16)
    parser.add_argument("--per-picture", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beside-lmms-eval-") as folder:
        counts = (options.few, options.questions)
        print("\n".join(table(Path(folder), counts, options.per_picture, options.batch_size)))


if __name__ == "__main__":
    main()
