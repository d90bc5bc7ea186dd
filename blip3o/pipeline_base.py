"""What a pipeline does beside its modes: devices, precision, progress, callbacks, files, the hub.

Names and meanings are those of diffusers' pipelines, so that scripts written for them work.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.utils import PushToHubMixin
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from blip3o.card import CARD_NAME, PipelineCard, Understanding, write_digests
from blip3o.decoder import PixelDecoder
from blip3o.errors import ConfigError, WeightsError
from blip3o.flow.sampler import AfterStep
from blip3o.model_card import write_model_card
from blip3o.prompts import Prompts
from blip3o.storage import make_readable, quiet_transformers, read_json, write_json
from blip3o.unified import Blip3oModel
from blip3o.vision.autoencoder import Autoencoder
from blip3o.vision.targets import Target, autoencoder_target, load_target

logger = logging.getLogger(__name__)

TARGET_FOLDER = "target_encoder"
TOKENIZER_CONFIG = "tokenizer_config.json"
# (pipeline, step, timestep, {"latents": (B, C, h, w)}) -> the same dict, changed or not
StepCallback = Callable[[Any, int, Tensor, dict[str, Any]], dict[str, Any] | None]


class PipelineBase(PushToHubMixin):
    """Parts of a pipeline and where they are; see ``Blip3oPipeline`` for what they do."""

    model: Blip3oModel
    tokenizer: PreTrainedTokenizerBase
    decoder: PixelDecoder | None
    card: PipelineCard
    prompts: Prompts
    understanding: Understanding
    _target: Target | None = None
    _target_source: Path | None = None
    _null_features: Tensor | None = None
    _offload_device: torch.device | None = None
    _is_dispatched = False
    _interrupt = False

    # Parts

    @property
    def components(self) -> dict[str, Any]:
        """The parts by the names of the constructor's arguments."""
        return {"model": self.model, "tokenizer": self.tokenizer, "decoder": self.decoder}

    @property
    def device(self) -> torch.device:
        """Where inputs go; for a model spread over devices the one that runs its first layers."""
        return self._offload_device or self.model.execution_device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def image_size(self) -> int | None:
        """Side of the pictures in pixels; None where only the decoder's weights know it."""
        return getattr(getattr(self.decoder, "config", None), "image_size", None)

    @property
    def target_encoder(self) -> Target | None:
        """The encoder whose features the model learned to make; loaded when first asked for, None if there is none."""
        if self._target is None and self._target_source is not None:
            self._target = load_target(self._target_source).eval().to(self.device)
        if self._target is None and isinstance(self.decoder, Autoencoder):
            return autoencoder_target(self.decoder)  # the VAE that draws is the one that encodes
        return self._target

    @target_encoder.setter
    def target_encoder(self, target: Target | None) -> None:
        self._target, self._target_source = target, None

    def require_decoder(self) -> PixelDecoder:
        """Raises: WeightsError if the loaded parts cannot make pictures."""
        if self.decoder is None:
            raise WeightsError(
                "this model has no pixel decoder (folder decoder/), so it makes no pictures; it answers questions, and "
                "output_type='latent' gives the image features"
            )
        return self.decoder

    def weights_changed(self) -> None:
        """Forget what was made with other weights: the features of the empty prompt."""
        self._null_features = None

    # Devices and precision

    def to(
        self,
        *target: str | torch.device | torch.dtype,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Move all parts to a device, a precision, or both: ``.to("cuda", torch.bfloat16)``. Returns the pipeline.

        Raises: ConfigError for a pipeline under ``enable_model_cpu_offload`` or with a device map, which place their
        parts themselves.
        """
        wanted = [value for value in (*target, device, dtype) if value is not None]
        moves = [value for value in wanted if not isinstance(value, torch.dtype)]
        if moves and (self._offload_device is not None or self._is_dispatched):
            how = "a device map" if self._is_dispatched else "enable_model_cpu_offload"
            raise ConfigError(
                f"this pipeline's parts are placed by {how} and cannot be moved to {moves[0]}; load it again without"
            )
        for value in wanted:
            _move(self.model, value)
            if self._target is not None:
                self._target.to(value)
            if self.decoder is not None:
                # An SDXL-type VAE overflows in float16; its weights were published in bfloat16.
                is_latent = value is torch.float16 and self.decoder.kind == "latent_unet"
                self.decoder.to(torch.bfloat16 if is_latent else value)
        self.weights_changed()
        return self

    def enable_model_cpu_offload(self, device: str | torch.device | None = None) -> None:
        """Keep the parts in memory and bring only the one that works to the device: backbone, generator, decoder.

        A picture then needs device memory for the largest part alone, and one transfer per part and call.
        Args: device: default the accelerator of this machine. Raises: ConfigError if there is none.
        """
        if device is None:
            if torch.accelerator.is_available():
                device = torch.accelerator.current_accelerator()
            if device is None:
                raise ConfigError(
                    "enable_model_cpu_offload found no accelerator on this machine: everything already is in memory; "
                    "leave the call out, or name a device"
                )
        self.to("cpu")
        self._offload_device = torch.device(device)

    def use_part(self, name: str) -> torch.device:
        """Bring a part ("backbone", "generator", "decoder" or "target") to the device, if parts are offloaded.

        Returns: the device.
        """
        if self._offload_device is not None:
            for other, modules in self._parts().items():
                for module in modules:
                    module.to(self._offload_device if other == name else "cpu")
        return self.device

    def _parts(self) -> dict[str, list[nn.Module]]:
        children = dict(self.model.named_children())
        reading = [children.pop("backbone"), children.pop("queries")]
        return {
            "backbone": reading,
            "generator": list(children.values()),
            "decoder": [] if self.decoder is None else [self.decoder],
            "target": [self._target] if self._target is not None else [],
        }

    # Progress and callbacks

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """Arguments of tqdm for the bar of the sampling steps, ``disable=True`` to switch it off.

        By default it shows where stderr is a terminal.
        """
        self._progress_bar_config = kwargs

    def progress_bar(self, total: int) -> Any:
        from tqdm.auto import tqdm

        return tqdm(total=total, **getattr(self, "_progress_bar_config", {"disable": None}))

    @property
    def interrupt(self) -> bool:
        """Set ``pipe._interrupt = True`` in a callback to end sampling with the features as they are."""
        return self._interrupt

    def _step_hook(
        self, callback: StepCallback | None, tensor_inputs: Sequence[str], bar: Any
    ) -> AfterStep:
        """The sampler's hook that moves the bar and calls the user's function. Raises: ConfigError."""
        for name in tensor_inputs:
            if name != "latents":
                raise ConfigError(
                    f"callback_on_step_end_tensor_inputs knows latents only, got {name!r}"
                )
        self._interrupt = False

        def after_step(step: int, timestep: Tensor, x: Tensor) -> Tensor | None:
            bar.update()
            if callback is not None:
                given = {"latents": x} if "latents" in tensor_inputs else {}
                returned = callback(self, step, timestep, given)
                if not isinstance(returned, (dict, type(None))):
                    raise ConfigError(
                        f"callback_on_step_end must return its dict or None, got {type(returned).__name__}"
                    )
                x = (returned or {}).get("latents", x)
            return None if self._interrupt else x

        return after_step

    # Files and the hub

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that ``from_pretrained`` and the hub take: safetensors, JSON, tokenizer, a model card.

        Args: dtype: precision of the files; float16 halves them, the model stays as it is.
        Raises: ConfigError for a model spread over devices by a device map, whose weights may not be in memory.
        """
        if self._is_dispatched:
            raise ConfigError(
                "a model loaded with a device map is not saved from its parts; load it without one, or copy its folder"
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        # Of tied weights one is kept: cast, they no longer share their memory and would be written twice.
        tied = self.model.all_tied_weights_keys
        state = {
            name: tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
            for name, tensor in self.model.state_dict().items()
            if name not in tied
        }
        with quiet_transformers():
            self.model.save_pretrained(folder, state_dict=state)
            self.tokenizer.save_pretrained(folder)
        _forget_origin(folder / TOKENIZER_CONFIG)
        make_readable(folder)
        if self.decoder is not None:
            self.decoder.save_pretrained(folder / "decoder", dtype)
        self._save_target(folder / TARGET_FOLDER, dtype)
        write_json(folder / CARD_NAME, self.card_values())
        write_model_card(folder, self)
        write_digests(folder)

    def card_values(self) -> dict[str, Any]:
        """``blip3o.json``: the card, and beside it what readers without torch want to know of the model."""
        config, size = self.model.config, self.image_size
        # A regressor makes its features in one pass, without noise or guidance.
        is_flow = getattr(config, "objective", "flow") != "mse"
        return {
            **asdict(self.card),
            "format": 1,
            "prompts": self.prompts.to_dict(),
            "understanding": asdict(self.understanding),
            "num_inference_steps": config.flow.num_inference_steps if is_flow else 1,
            "guidance_scale": config.flow.guidance_scale if is_flow else 1.0,
            "height": size,
            "width": size,
            "compat": config.compat,
        }

    def _save_target(self, folder: Path, dtype: torch.dtype | None) -> None:
        source = self._target_source
        if source is not None and source.resolve() != folder.resolve():
            shutil.copytree(source, folder, dirs_exist_ok=True)
        elif source is None and self._target is not None:
            self._target.save_pretrained(folder, dtype)

    def push_to_hub(  # type: ignore[override]  # saved in a precision, without a working folder
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        dtype: torch.dtype | None = None,
    ) -> str:
        """Save into a temporary folder and upload it whole, model card included. Returns: the commit's URL."""
        from huggingface_hub import create_repo

        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype)
            url: str = self._upload_folder(
                folder,
                repo_id,
                token=token,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                create_pr=create_pr,
            )
        return url


def _forget_origin(path: Path) -> None:
    """transformers keeps how a tokenizer was loaded among its settings; another user's hub cannot be told by that."""
    values = read_json(path)
    write_json(path, {k: v for k, v in values.items() if k not in ("is_local", "local_files_only")})


def _move(module: nn.Module, to: str | torch.device | torch.dtype) -> None:
    """``module.to``, but tables that are computed and not loaded (rotary frequencies) keep their precision, as in
    transformers' ``from_pretrained``: rounded to half precision they turn position 1000 by up to a radian."""
    if not isinstance(to, torch.dtype):
        module.to(to)
        return
    saved = set(module.state_dict())
    tables = {name: table for name, table in module.named_buffers() if name not in saved}
    module.to(to)
    for name, table in tables.items():
        owner, _, own_name = name.rpartition(".")
        setattr(module.get_submodule(owner), own_name, table)
