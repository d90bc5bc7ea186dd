"""Run by test_distributed.py under torchrun: a whole recipe, sharded over the processes, and what it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from blip3o.train.distributed import leave
from blip3o.train.recipe import recipe_from_dict
from blip3o.train.run_recipe import run_recipe


def main(folder: Path) -> None:
    for name in ("ddp", "fsdp2"):
        recipe = recipe_from_dict(json.loads((folder / f"{name}.json").read_text()))
        run_recipe(recipe, folder / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    leave()
