"""The README.md beside saved weights: what a model hub shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blip3o.pipeline_base import PipelineBase

CARD = "README.md"


def write_model_card(folder: Path, pipeline: PipelineBase) -> None:
    """A card from what the parts know of themselves. A README.md that is already there is kept: people edit it."""
    path = folder / CARD
    if not path.exists():
        path.write_text(model_card(pipeline), encoding="utf-8")


def model_card(pipeline: PipelineBase) -> str:
    """Markdown with the front matter that hubs read. States nothing that was not measured or configured."""
    config, card, flow = pipeline.model.config, pipeline.card, pipeline.model.config.flow
    counts = {name: _millions(part) for name, part in pipeline.model.named_children()}
    if pipeline.decoder is not None:
        counts["decoder"] = _millions(pipeline.decoder)
    rows = "\n".join(f"| {name} | {value} |" for name, value in counts.items())
    size = f"{pipeline.image_size} px" if pipeline.image_size else "decided by the decoder"
    licence = card.licence or "not stated"
    modes = ", ".join(card.modes) or "not stated"
    note = "\n**Random weights, for tests: it draws noise.**\n" if card.is_random else ""
    return f"""---
library_name: blip3o-eval
pipeline_tag: any-to-any
tags: [blip3o, text-to-image, image-text-to-text, {card.domain}]
---
# A BLIP3-o model
{note}
One model that understands and generates pictures: an autoregressive backbone
(`{config.backbone_config["model_type"]}`), {config.num_queries} latent queries, and a diffusion transformer that
generates image features, which a pixel decoder turns into pictures.

```python
from blip3o import Blip3oPipeline

pipe = Blip3oPipeline.from_pretrained("THIS_FOLDER")
pipe("a photo of a dog").images[0].save("dog.png")
```

| part | parameters, millions |
| --- | ---: |
{rows}

* Pictures: {size}; domain `{card.domain}`; defaults {flow.num_inference_steps} steps, guidance {flow.guidance_scale}.
* Trained for: {modes}.
* Licence of the weights: {licence}.
* Version {card.version}; files are checked against `digests.json` when they are loaded.

Architecture: BLIP3-o, arXiv:2505.09568.
"""


def _millions(module: object) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}"  # type: ignore[attr-defined]
