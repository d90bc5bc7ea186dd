"""The benchmark scripts run as documented."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(monkeypatch, capsys, name: str, *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return capsys.readouterr().out


def test_stages_are_timed_apart(monkeypatch, capsys) -> None:
    out = run(monkeypatch, capsys, "bench_stages.py", "--model", "tiny", "--batch-sizes", "1", "2", "--repeats", "1")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line[:1] == "|"]
    assert rows[0] == ["model", "batch", "prefill", "sampler", "decoder", "vae", "host", "all"]
    for row in rows[2:]:
        parts = [float(cell) for cell in (*row[2:5], row[6])]
        assert row[5] == "-" and min(parts) > 0
        assert float(row[7]) == pytest.approx(sum(parts), abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_cannot_run_here_is_not_measured(monkeypatch, capsys) -> None:
    out = run(monkeypatch, capsys, "bench_stages.py", "--model", "blip3o-4b", "--device", "cuda", "--batch-sizes", "4")
    assert "| blip3o-4b | 4 | - | - | - | - | - | not measured (no CUDA device) |" in out


def test_a_model_of_random_weights_goes_through_every_stage(recorded_weights, released_decoder) -> None:
    """What the script does with the released sizes on a GPU, on the CPU and small."""
    from blip3o.decoder import load_decoder
    from blip3o.released import config_from_released
    from blip3o.unified import Blip3oModel

    bench = runpy.run_path(str(BENCHMARKS / "bench_stages.py"))
    sizes, _ = recorded_weights
    config = config_from_released(
        {**sizes["llm"], "vision_config": sizes["vision"], "model_type": "blip3o_qwen", "gen_vision_tower": "eva",
         "gen_hidden_size": 16}
    )  # fmt: skip
    config.dit_config |= {"dim": 32, "num_layers": 2, "num_heads": 4, "in_channels": 16}
    device = torch.device("cpu")
    model = bench["on_device"](lambda: Blip3oModel(config), device)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    decoder = load_decoder(released_decoder, torch.bfloat16)
    ids = torch.randint(0, 1000, (1, 9))
    seconds = bench["stages"](model, decoder, ids, 2, device, 1)
    assert set(seconds) == {"prefill", "sampler", "decoder", "vae", "host"}
    assert all(value > 0 for value in seconds.values())
    assert sum(bench["bounds"]("blip3o-8b", 125).values()) / 1e12 == pytest.approx(695.4, abs=0.1)


@pytest.mark.slow
def test_loading_peaks_near_the_size_of_the_weights(monkeypatch, capsys) -> None:
    import json

    found = json.loads(run(monkeypatch, capsys, "bench_loading.py"))
    assert found["weights"] > 300
    assert found["peak_to_weights"] < 1.35
