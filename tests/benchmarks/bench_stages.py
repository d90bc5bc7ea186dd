"""Seconds per picture by stage - prefill, sampler, decoder, VAE, host - and by batch size.

    python tests/benchmarks/bench_stages.py                                   nano, on the CPU
    python tests/benchmarks/bench_stages.py --model blip3o-4b --device cuda   random weights of the released size

A model of a released size is built with random weights, which cost the same time as trained ones. Each stage is timed
alone, after a warm-up, with the device synchronised; the least of ``--repeats`` runs counts. With ``--peak-tflops`` of
the device the counted least time stands beside (blip3o.flops) and the share of it that was reached. Prints a Markdown
table, or JSON with ``--json``. Rows that cannot run here are "not measured".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import torch

PROMPT = "a photo of a red dog to the right of a bench"
REAL = ("blip3o-4b", "blip3o-8b")


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def least(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Least seconds of a call, after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = clock()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(clock() - began)
    return min(seconds[1:])


def on_device(build: Callable[[], torch.nn.Module], device: torch.device) -> Any:
    """A module with random weights, made on the device in bfloat16: no copy in memory, no initialisation on the CPU."""
    with torch.device("meta"):
        module = build()
    module = module.to(torch.bfloat16).to_empty(device=device)
    for parameter in module.parameters():
        parameter.data.normal_(std=0.02)
    for name, buffer in module.named_buffers():
        if name.endswith(("inv_freq", "original_inv_freq")):
            half = buffer.numel()
            buffer.copy_(1e6 ** (-torch.arange(half, device=device) / half))
    return module.eval()


def real_parts(name: str, device: torch.device) -> tuple[Any, Any]:
    """Model and latent decoder of a released size with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from blip3o import flops
    from blip3o.latent_decoder import LatentDecoder
    from blip3o.presets import released_config_values
    from blip3o.released import config_from_released
    from blip3o.unified import Blip3oModel

    config = config_from_released(released_config_values(name))
    model = on_device(lambda: Blip3oModel(config), device)
    unet = on_device(lambda: UNet2DConditionModel(**flops.RELEASED_UNET), device)
    vae = on_device(lambda: AutoencoderKL(**flops.RELEASED_VAE), device)
    return model, LatentDecoder(unet, vae).eval()


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(count)]


def to_png(images: list[Any]) -> None:
    for image in images:
        image.save(BytesIO(), "png", compress_level=1)


@torch.no_grad()
def stages(model: Any, decoder: Any, ids: Any, batch: int, device: torch.device, repeats: int) -> dict[str, float]:
    """Seconds per picture of each stage at one batch size."""
    from blip3o.vision.preprocess import to_images

    ids = ids.to(device).expand(batch, -1)
    condition = model.encode_condition(ids)
    features = model.sample_features(condition, generators=generators(batch))
    runs: dict[str, Callable[[], Any]] = {
        "prefill": lambda: model.encode_condition(ids),
        "sampler": lambda: model.sample_features(condition, generators=generators(batch)),
    }
    if decoder.kind == "latent_unet":
        side = decoder.config.image_size // decoder.vae_factor
        latents = torch.randn(batch, 4, side, side, device=device)
        pictures = decoder.pictures(latents)
        runs["decoder"] = lambda: decoder.decode(features, generators=generators(batch), null_features=features[:1])
        runs["vae"] = lambda: decoder.pictures(latents)
    else:
        pictures = decoder.decode(features, generators=generators(batch))
        runs["decoder"] = lambda: decoder.decode(features, generators=generators(batch))
    runs["host"] = lambda: to_png(to_images(pictures))
    seconds = {name: least(run, device, repeats) / batch for name, run in runs.items()}
    if "vae" in seconds:  # the decoder's call ends with it
        seconds["decoder"] -= seconds["vae"]
    return seconds


def bounds(name: str, positions: int) -> dict[str, float]:
    """Operations per picture of a released size, by stage."""
    from blip3o import flops
    from blip3o.presets import released_config_values
    from blip3o.released import config_from_released

    values = released_config_values(name)
    dit = config_from_released(values).dit
    return flops.picture_flops(values, dit, positions=positions, queries=64, steps=30, decoder_steps=50)


def table(rows: list[dict[str, Any]], columns: list[str]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(c, "-")) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a folder, or blip3o-4b or blip3o-8b (random weights)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the device, in the precision used")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall",
                        help="cpu: seconds of processor time, which other programs on the machine hardly change")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    global clock
    clock = CLOCKS[options.clock]
    device, rows = torch.device(options.device), []
    is_real = options.model in REAL
    columns = ["model", "batch", "prefill", "sampler", "decoder", "vae", "host", "all"]
    if device.type == "cuda" and not torch.cuda.is_available():
        unmeasured = {"model": options.model, "all": "not measured (no CUDA device)"}
        rows = [unmeasured | {"batch": batch} for batch in options.batch_sizes]
    else:
        if is_real:
            model, decoder = real_parts(options.model, device)
            ids = torch.randint(0, 150000, (1, 60))
        else:
            from blip3o.pipeline import Blip3oPipeline

            pipe = Blip3oPipeline.from_pretrained(options.model, device=options.device)
            model, decoder = pipe.model, pipe.decoder
            text = pipe.prompts.generation(PROMPT)
            ids = torch.tensor([pipe.tokenizer(text, add_special_tokens=False)["input_ids"]])
        for batch in options.batch_sizes:
            seconds = stages(model, decoder, ids, batch, device, options.repeats)
            row = {"model": options.model, "batch": batch, "all": sum(seconds.values())} | seconds
            if is_real and options.peak_tflops:
                least_time = sum(bounds(options.model, 125).values()) / (options.peak_tflops * 1e12)
                row |= {"bound": least_time, "reached": least_time / row["all"]}
            rows.append({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
    if is_real and options.peak_tflops:
        columns += ["bound", "reached"]
    if options.json:
        about = {"machine": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
        print(json.dumps(about | {"clock": options.clock, "load": os.getloadavg()[0], "rows": rows}))
    else:
        print(f"{'processor ' if options.clock == 'cpu' else ''}seconds per picture\n")
        print(table(rows, columns))


if __name__ == "__main__":
    main()
