"""Curves of a log: one panel a stage, in the order of training."""

from __future__ import annotations

import json

from PIL import Image

from blip3o.train.plot_log import plot, read_stages


def test_a_stage_trained_twice_has_two_panels(tmp_path):
    rows = []
    for scale in (1.0, 0.1):
        rows.append({"stage": "generation", "config": {}})
        rows += [{"step": s, "loss": scale * 100 / s, "lr": 1e-3} for s in (1, 10, 20)]
        rows.append({"stage": "generation", "finished": True})
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    stages = read_stages([log])
    assert [(name, [r["loss"] for r in own]) for name, own in stages] == [
        ("generation", [100.0, 10.0, 5.0]),
        ("generation", [10.0, 1.0, 0.5]),
    ]
    plot(stages, tmp_path / "one.webp")
    plot(stages[:1], tmp_path / "two.webp")
    wide, narrow = (Image.open(tmp_path / f"{name}.webp").width for name in ("one", "two"))
    assert wide > 1.5 * narrow
