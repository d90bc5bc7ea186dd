"""Training speed: the loader alone, and every stage of a recipe with each lever on and off.

    python tests/benchmarks/bench_training.py [--seconds 20] [--shards 2000] [--only loader|levers|stages]

Prints one JSON object a row. The model is `nano`; on a GPU take a released one: `--model BLIP3o/BLIP3o-Model-4B
--batch 64`, and the rows say which share of the device's peak is reached. Without a GPU the rows of real sizes are
counted, not measured: `blip3o train blip3o-4b-pretrain --dry-run`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from blip3o.data.loader import LoaderConfig, RecordLoader
from blip3o.data.mixture import Ingredient
from blip3o.data.records import Reading
from blip3o.data.sources import WebDatasetSource
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.checkpoint import TrainState
from blip3o.train.distributed import Processes
from blip3o.train.hardware import peak_tflops
from blip3o.train.loop import fast_cpu_attention, train_step
from blip3o.train.optimizers import make_optimizers
from blip3o.train.phases import PhaseTimes
from blip3o.train.recipe import TrainRecipe, recipe_from_dict
from blip3o.train.recipe_cache import TargetCache
from blip3o.train.records_stage import learn_only
from blip3o.train.run_recipe import load_parts, make_stage, prepare
from blip3o.train.stage import StageModule


def write_shards(folder: Path, shards: int, each: int, size_px: int) -> str:
    """Archives of JPEG pictures of noise with captions; all shards but the first ten are links to those."""
    rng = np.random.default_rng(0)
    for shard in range(shards):
        path = folder / f"{shard:05d}.tar"
        if shard >= 10:
            path.symlink_to(folder / f"{shard % 10:05d}.tar")
            continue
        with tarfile.open(path, "w") as archive:
            for i in range(each):
                small = rng.integers(0, 256, (size_px // 16, size_px // 16, 3), dtype=np.uint8)
                picture = Image.fromarray(small).resize((size_px, size_px), Image.Resampling.BICUBIC)
                file = io.BytesIO()
                picture.save(file, "JPEG", quality=90)
                for name, content in ((f"{i:05d}.jpg", file.getvalue()), (f"{i:05d}.txt", b"a photo")):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return str(folder / f"{{00000..{shards - 1:05d}}}.tar")


def bench_loader(shards: int, seconds: float, workers: int, size_px: int) -> dict[str, object]:
    """Seconds to the first batch of 16 over many shards, then pictures a second."""
    with tempfile.TemporaryDirectory() as folder:
        pattern = write_shards(Path(folder), shards, 64, size_px)
        start = time.perf_counter()
        config = LoaderConfig(batch_size=16, workers=workers, block=256)
        source = WebDatasetSource([pattern])
        batches = iter(RecordLoader([Ingredient(source, Reading().caption)], config))
        next(batches)
        first = time.perf_counter() - start
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            count += len(next(batches))
        rate = count / (time.perf_counter() - start)
        batches.close()
    return {
        "what": "loader",
        "shards": shards,
        "picture_px": size_px,
        "workers": workers,
        "first_batch_s": round(first, 2),
        "pictures_per_s": round(rate, 1),
    }


def bench_step(seconds: float, batch: int, *, query_only: bool, math_attention: bool) -> dict[str, object]:
    """Samples a second of nano's generation training: condition, DiT, backward."""
    model = Blip3oPipeline.from_pretrained("nano").model.train()
    learn_only(model, ["queries.*", "{head}.*"])
    ids = torch.randint(10, 900, (batch, 48))
    features = torch.randn(batch, *model.feature_shape)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            condition = model.encode_condition(ids, query_only_backward=query_only)
            model(target=features, condition=condition, generator=generator).loss.backward()
        model.zero_grad(set_to_none=True)

    with fast_cpu_attention() if math_attention else contextlib.nullcontext():
        step()
        count, start = 0, time.process_time()
        while count < 2 or time.process_time() - start < seconds:
            step()
            count += 1
    return {
        "what": "generation step of nano",
        "batch": batch,
        "query_only_backward": query_only,
        "math_attention": math_attention,
        "cpu_s_per_step": round((time.process_time() - start) / count, 3),
        "samples_per_cpu_s": round(batch * count / (time.process_time() - start), 1),
    }


# stage, what is changed in its recipe, whether its frozen parts' outputs come from the cache
ROWS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("generation", "as recipes do it", {}, False),
    ("generation", "targets cached", {}, True),
    ("generation", "targets and query states cached (head alone learns)", {"learns": ["{head}.*"]}, True),
    ("generation", "head alone learns, nothing cached", {"learns": ["{head}.*"]}, False),
    ("generation", "backward through the prompt", {"query_only": False}, False),
    ("generation", "float32", {"bf16": False}, False),
    ("generation", "activation checkpointing", {"activation_checkpointing": True}, False),
    ("understanding", "as recipes do it", {}, False),
    ("joint", "as recipes do it", {}, False),
    ("joint", "targets cached", {}, True),
]


def bench_stage(
    model: str, stage: str, lever: str, changes: dict[str, Any], cached: bool, batch: int, seconds: float
) -> dict[str, object]:
    """Steps of a recipe's stage as the loop makes them, data included: seconds by phase, and CPU seconds."""
    changes = dict(changes)
    query_only, bf16 = changes.pop("query_only", True), changes.pop("bf16", True)
    pictures = {"name": "scenes", "layout": "stickers", "paths": ["easy:256"]}
    talk = {**pictures, "name": "talk", "kind": "conversations"}
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_from_dict(
            {
                "model": model, "stage": stage, "batch_size": batch, "workers": 0, "shuffle_block": batch,
                "data": {"generation": [pictures], "understanding": [talk], "joint": [pictures, talk]}[stage],
                "text_batch_size": 0 if stage == "generation" else batch, "cache": folder if cached else None,
                "loop": {"steps": 1000, "lr": 1e-4, "bf16": bf16}, **changes,
            }
        )  # fmt: skip
        assert isinstance(recipe, TrainRecipe)
        processes = Processes()
        pipeline, target = load_parts(recipe)
        prepare(pipeline, recipe)
        if target is not None:
            target.to(processes.device)
        cache = TargetCache(recipe, pipeline, target) if cached else None
        if cache is not None:
            pipeline.model.to(processes.device)
            cache.fill(processes)
        records = make_stage(recipe, pipeline, target, processes, cache)
        if not query_only:
            plain = pipeline.model.encode_condition
            pipeline.model.encode_condition = partial(plain, query_only_backward=False)
        module = processes.spread(StageModule(records)).train()
        optimizers = make_optimizers(records, module, recipe.loop)
        state, times, flops = TrainState(), PhaseTimes(synchronize=True), 0

        def count(rehearsal: Callable[[], None]) -> None:
            nonlocal flops
            with FlopCounterMode(display=False) as counter:
                rehearsal()
            flops = counter.get_total_flops()

        def step(counted: Any = None) -> None:
            train_step(records, module, optimizers, recipe.loop, state, processes, counted)
            state.step += 1

        with fast_cpu_attention():
            step(count)
            wall, cpu, first = time.perf_counter(), time.process_time(), state.step
            with times.active():
                while state.step < first + 2 or time.process_time() - cpu < seconds:
                    step()
        steps = state.step - first
        cpu, wall = (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps
    known = peak_tflops(processes.device) if processes.device.type == "cuda" else None
    samples = batch * (2 if stage == "joint" else 1)
    return {
        "what": f"stage {stage}",
        "lever": lever,
        "model": model,
        "samples": samples,
        "gflop_per_step": round(flops / 1e9, 2),
        "cpu_s_per_step": round(cpu, 3),
        "samples_per_cpu_s": round(samples / cpu, 1),
        "samples_per_s": round(samples / wall, 1),
        "share_of_peak": round(flops / wall / 1e12 / known[0], 3) if known else None,
        "device": str(processes.device),
        **{key: round(value / steps, 3) for key, value in times.take().items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--shards", type=int, default=2000)
    parser.add_argument("--only", choices=["loader", "levers", "stages"])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    rows: list[Callable[[], dict[str, object]]] = []
    if args.only in (None, "loader"):
        rows += [partial(bench_loader, args.shards, args.seconds, workers, 512) for workers in (0, 1)]
    if args.only in (None, "levers"):
        step = partial(bench_step, args.seconds, 48)
        rows += [
            partial(step, query_only=True, math_attention=True),
            partial(step, query_only=False, math_attention=True),
            partial(step, query_only=True, math_attention=False),
        ]
    if args.only in (None, "stages"):
        rows += [partial(bench_stage, args.model, *row, args.batch, args.seconds) for row in ROWS]
    for row in rows:
        print(json.dumps(row()), flush=True)


if __name__ == "__main__":
    main()
