"""Training speed: the loader alone, and samples per second of a stage with each lever on and off.

    python tests/benchmarks/bench_training.py [--seconds 20] [--shards 2000]

Prints one JSON object a row. On a machine without a GPU the rows of real sizes are counted, not measured:
`blip3o train blip3o-4b-pretrain --dry-run`.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from blip3o.data.loader import LoaderConfig, RecordLoader
from blip3o.data.mixture import Ingredient
from blip3o.data.records import Reading
from blip3o.data.sources import WebDatasetSource
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.loop import fast_cpu_attention
from blip3o.train.records_stage import learn_only


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

    import contextlib

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--shards", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for workers in (0, 1):
        print(json.dumps(bench_loader(args.shards, args.seconds, workers, 512)), flush=True)
    for query_only in (True, False):
        row = bench_step(args.seconds, 48, query_only=query_only, math_attention=True)
        print(json.dumps(row), flush=True)
    row = bench_step(args.seconds, 48, query_only=True, math_attention=False)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
