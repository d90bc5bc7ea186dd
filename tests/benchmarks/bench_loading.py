"""How much memory loading takes beside the weights themselves.

    python tests/benchmarks/bench_loading.py                 a released-layout folder of about 400 MB, float16
    python tests/benchmarks/bench_loading.py --dtype float32 the same files, widened while they load

Writes a synthetic folder in the released layout (random values, real names, a DiT of the released width and few
layers) and loads it in a process of its own. Resident memory is read before loading and at its peak (VmRSS and VmHWM
of /proc/self/status, Linux). Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHILD = """
import json, sys, torch
from blip3o.unified import Blip3oModel

def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith(key)).split()[1]) * 1024

torch.zeros(1)  # what torch itself keeps is there before
before = status("VmRSS")
model = Blip3oModel.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
size = sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in model.state_dict().values()}.values())
print(json.dumps({"weights": size, "peak": status("VmHWM") - before, "after": status("VmRSS") - before}))
"""


def write_folder(folder: Path, hidden: int, layers: int, dit_layers: int) -> None:
    """A synthetic released folder: sharded float16 files."""
    import torch

    from blip3o.config import Blip3oConfig
    from blip3o.convert import ShardWriter
    from blip3o.presets import released_config_values
    from blip3o.released import config_from_released, unmap_name
    from blip3o.storage import write_json
    from blip3o.unified import Blip3oModel

    values: dict[str, Any] = released_config_values("blip3o-4b") | {
        "hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": hidden // 128, "num_key_value_heads": 2,
    }  # fmt: skip
    values["vision_config"] |= {"depth": 4, "out_hidden_size": hidden, "fullatt_block_indexes": [3]}
    config: Blip3oConfig = config_from_released(values)
    config.dit_config["num_layers"] = dit_layers
    with torch.device("meta"):
        model = Blip3oModel(config)
    writer = ShardWriter(folder, limit=120_000_000)
    for name, tensor in model.state_dict().items():
        if not name.startswith("backbone.vlm.lm_head."):
            writer.add(unmap_name(name), torch.full(tensor.shape, 0.01, dtype=torch.float16))
    writer.close()
    write_json(folder / "config.json", values)


def measure(folder: Path, dtype: str) -> dict[str, float]:
    """Megabytes of weights and of memory at the peak of loading, in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(folder), dtype]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    row = {key: round(value / 1e6, 1) for key, value in found.items()}
    return row | {"peak_to_weights": round(found["peak"] / found["weights"], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--dit-layers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), options.hidden, options.layers, options.dit_layers)
        print(json.dumps({"dtype": options.dtype, **measure(Path(folder), options.dtype)}))


if __name__ == "__main__":
    main()
