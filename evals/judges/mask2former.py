"""Mask2Former as GenEval runs it: pictures in, instances with masks out.

The network is that of transformers, in plain PyTorch: the compiled attention kernel whose missing build for a GPU
made mmdet return empty pictures without a word does not exist here. What goes in and comes out is ours
(`mask2former_images`, `mask2former_masks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evals.errors import JudgeError
from evals.judges.mask2former_images import Prepared, prepare
from evals.judges.mask2former_masks import Instance, instances
from evals.judges.mask2former_weights import DetectorWeights

if TYPE_CHECKING:
    from PIL import Image

# In some files and not in others; no output depends on them.
_IDLE = ("criterion.empty_weight", "swin.layernorm.", "encoder.layernorm.", "relative_position_index")


class Mask2Former:
    """The loaded network. A picture's instances depend on it alone, whatever else is in the batch."""

    def __init__(self, model: Any, device: str, dtype: str = "float32", padding: str = "grey") -> None:
        self._model, self.device, self._dtype, self._padding = model, device, dtype, padding

    @classmethod
    def load(cls, weights: DetectorWeights, device: str, dtype: str, padding: str) -> Mask2Former:
        """Raises JudgeError when the files are damaged or are of another architecture."""
        from blip3o.storage import quiet_transformers

        with quiet_transformers():
            from transformers import Mask2FormerForUniversalSegmentation

            try:
                loaded: Any = Mask2FormerForUniversalSegmentation.from_pretrained(
                    weights.folder,
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
            except Exception as error:  # safetensors, transformers and the OS each have their own
                reason = " ".join(str(error).split())[:200]
                raise JudgeError(
                    f"the detector in {weights.folder} cannot be loaded ({reason}): fetch it again"
                ) from error
        model, info = loaded  # a pair, whatever transformers' annotation says
        names = [*info["missing_keys"], *info["unexpected_keys"]]
        names += [str(entry[0]) for entry in info.get("mismatched_keys", ())]
        strange = [name for name in names if not any(part in name for part in _IDLE)]
        if strange:
            raise JudgeError(
                f"the weights in {weights.folder} do not fit their config.json: {strange[0]}"
                f"{f' and {len(strange) - 1} more' if len(strange) > 1 else ''} missing, unknown or of another shape"
            )
        return cls(model.float().eval().to(device), device, dtype, padding)

    def find(
        self, images: Sequence[Image.Image], keep_masks_above: float = 0.0
    ) -> list[list[Instance]]:
        """Instances of each picture, best first, in the picture's own pixels; sizes may differ."""
        prepared = [prepare(image, self._padding, self.device) for image in images]
        # Pictures of one shape share a forward; padding them to a common one would change what is found.
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, one in enumerate(prepared):
            by_shape.setdefault(tuple(one.pixels.shape), []).append(i)
        found: dict[int, list[Instance]] = {}
        for places in by_shape.values():
            rows = self._forward([prepared[i] for i in places], keep_masks_above)
            found.update(zip(places, rows, strict=True))
        return [found[i] for i in range(len(images))]

    def _forward(self, batch: Sequence[Prepared], keep_masks_above: float) -> list[list[Instance]]:
        import torch

        pixels = torch.stack([one.pixels for one in batch])
        with torch.inference_mode(), autocast(self.device, self._dtype):
            out = self._model(pixel_values=pixels)
        with torch.inference_mode():
            return [
                instances(
                    out.class_queries_logits[i],
                    out.masks_queries_logits[i],
                    (pixels.shape[2], pixels.shape[3]),
                    one.size,
                    one.original,
                    keep_masks_above,
                )
                for i, one in enumerate(batch)
            ]


def autocast(device: str, dtype: str) -> Any:
    """Half precision where it is safe, as upstream runs its colour classifier; nothing for float32."""
    import contextlib

    import torch

    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, getattr(torch, dtype))
