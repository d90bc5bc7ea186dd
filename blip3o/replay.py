"""How each kind of recorded file is computed anew; every size comes from the file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blip3o.backbone import PictureInputs
from blip3o.config import Blip3oConfig, FlowConfig, TokenConfig
from blip3o.dit import DiT, DiTConfig
from blip3o.errors import DataError
from blip3o.flow.path import sigma_to_timestep
from blip3o.flow.sampler import sampling_sigmas
from blip3o.flow.timesteps import train_sigmas
from blip3o.layers import rope_table_2d
from blip3o.parity import Recording, Replay
from blip3o.queries import collate_with_queries
from blip3o.released import map_names
from blip3o.unified import Blip3oModel
from blip3o.vision.encoders import EvaConfig, EvaEncoder, grid_to_tokens, pool_grid

Computed = dict[str, Tensor]


def _suffixed(weights: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    """Weights under the first prefix that any of them has, without it. Raises: DataError."""
    for prefix in prefixes:
        found = {
            key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)
        }
        if found:
            return found
    raise DataError(f"no weights under {' or '.join(prefixes)}")


# Diffusion transformer


def dit_config(
    values: Mapping[str, Any], weights: Mapping[str, Tensor], input_size: int
) -> DiTConfig:
    """Sizes from the recorded configuration; widths that it leaves to a rule are read off the weights."""
    heads = values["n_heads"]
    return DiTConfig(
        input_size=input_size,
        patch_size=values.get("patch_size", 1),
        in_channels=values["in_channels"],
        dim=values["dim"],
        num_layers=values["n_layers"],
        num_heads=heads,
        num_kv_heads=values.get("n_kv_heads") or heads,
        condition_dim=weights["caption_projection.linear_1.weight"].shape[1],
        ffn_dim=weights["layers.0.feed_forward.linear_1.weight"].shape[0],
        temb_dim=weights["time_caption_embed.timestep_embedder.linear_2.weight"].shape[0],
        norm_eps=values.get("norm_eps", 1e-5),
        qk_norm="layers.0.attn1.norm_q.weight" in weights,
    )


def _record_outputs(module: nn.Module, prefix: str, into: Computed) -> list[Any]:
    """Keep the output of every submodule under its name, in the spelling of recorded files, too."""
    handles = []
    for name, child in module.named_modules():
        if not name:
            continue
        names = {name, re.sub(r"\b(layer|block)s\.(\d+)", r"\1\2", name)}
        for full, short in (
            ("patch_embedder", "patch_embed"),
            ("time_caption_embed", "temb"),
            ("time_caption_embed.time_proj", "time_sinusoid"),
        ):
            names |= {short} if name == full else set()
        names |= {
            re.sub(r"attn1$", "self_attn", n)
            if n.endswith("attn1")
            else re.sub(r"attn2$", "cross_attn", n)
            for n in names
        }

        def keep(_: nn.Module, __: Any, output: Any, names: set[str] = names) -> None:
            if isinstance(output, Tensor):
                into.update({prefix + n: output.detach() for n in names})

        handles.append(child.register_forward_hook(keep))
    return handles


def replay_dit(recording: Recording) -> Computed:
    """The transformer alone: activations, output, and gradients of the mean squared output."""
    tensors = recording.tensors
    weights = _suffixed(recording.weights(), "w.model.dit.model.", "w.dit.model.", "w.model.", "w.")
    weights.pop("pad_token", None)
    x, timestep, condition = tensors["in.x"], tensors["in.timestep"], tensors["in.z_latents"]
    mask = tensors.get("in.mask", tensors.get("in.encoder_mask"))
    if "rng.drop" in tensors:
        condition = condition * (1 - tensors["rng.drop"])[:, None, None]
    model = DiT(
        dit_config(recording.config, weights, recording.config.get("input_size", x.shape[-1]))
    )
    model.load_state_dict(weights)
    model.eval()
    out: Computed = {}
    handles = _record_outputs(model, "act.", out)
    with torch.no_grad():
        out["out.pred"] = model(x, timestep, condition, mask)
    for handle in handles:
        handle.remove()
    out["out.mean_sq"] = out["out.pred"].square().mean()
    x, condition = x.clone().requires_grad_(), condition.clone().requires_grad_()
    model(x, timestep, condition, mask).square().mean().backward()
    for name, parameter in [*model.named_parameters(), ("in.x", x), ("in.z_latents", condition)]:
        if parameter.grad is None:
            continue
        for spelled in (name, f"model.{name}", f"model.dit.model.{name}", name.removeprefix("in.")):
            out[f"grad.{spelled}"] = out[f"out.grad.{spelled}"] = parameter.grad
    for part in ("real", "imag"):
        key = f"aux.rope_{part}"
        if key in tensors:
            height, width, half = tensors[key].shape
            table = rope_table_2d(height, width, 2 * half)
            out[key] = getattr(table, part)
    out["aux.velocity"] = out["out.pred"]
    return out


# Target encoder


def replay_eva(recording: Recording) -> Computed:
    """The EVA tower and the pooling of its patch tokens."""
    tensors, values = recording.tensors, recording.config
    weights = _suffixed(
        recording.weights(),
        "w.model.gen_vision_tower.vision_tower.model.",
        "w.vision_tower.model.",
        "w.",
    )
    width = weights["cls_token"].shape[-1]
    hidden = weights["blocks.0.mlp.fc1.weight"].shape[0]
    config = EvaConfig(
        image_size=values.get("image_size", tensors["in.images"].shape[-1]),
        patch_size=weights["patch_embed.proj.weight"].shape[-1],
        width=width,
        layers=values["layers"],
        head_width=values["head_width"],
        mlp_ratio=(hidden + 0.5) / width,  # int(width * ratio) is the hidden width again
        qkv_bias="blocks.0.attn.qkv.bias" in weights,
        postnorm=values.get("postnorm", True),
    )
    model = EvaEncoder(config)
    model.load_state_dict(weights)
    model.eval()
    out: Computed = {}
    handles = _record_outputs(model, "act.", out)
    with torch.no_grad():
        grid = model(tensors["in.images"])
    for handle in handles:
        handle.remove()
    out["out.patch_tokens_no_cls"] = grid_to_tokens(grid)
    pooling = values.get("gen_pooling")
    recorded = tensors.get("out.pooled_nchw")
    if pooling is None and recorded is not None:
        pooling = f"early_pool2d_{grid.shape[-1] // recorded.shape[-1]}"
    pooled = pool_grid(grid, pooling or "early_pool2d_4")
    out["out.pooled_nchw"], out["out.pooled_tokens"] = pooled, grid_to_tokens(pooled)
    return out


# Collator


def replay_collator(recording: Recording) -> Computed:
    """Batches of sequences closed by the query placeholders; ``trunc.`` holds a batch of one that is cut."""
    tensors, values = recording.tensors, recording.config
    tokens = TokenConfig()
    out: Computed = {}
    for prefix in ("", "trunc."):
        rows = [
            (match[1], tensors[key])
            for key in sorted(tensors, key=lambda k: (len(k), k))
            if (match := re.fullmatch(re.escape(prefix) + r"in\.ids(\d*)", key))
        ]
        if not rows:
            continue
        labels = [
            tensors.get(f"{prefix}in.labels{number}", torch.full_like(ids, -100))
            for number, ids in rows
        ]
        num_queries = values.get("n_query")
        if num_queries is None:
            recorded = tensors.get(f"{prefix}out.input_ids")
            num_queries = 64 if recorded is None else int((recorded[0] == tokens.query).sum())
        batch = collate_with_queries(
            [ids for _, ids in rows],
            labels,
            tokens=tokens,
            num_queries=num_queries,
            max_length=values["model_max_length"],
            pad_token_id=values["pad_token_id"],
        )
        out[f"{prefix}out.input_ids"], out[f"{prefix}out.labels"] = batch.input_ids, batch.labels
        out[f"{prefix}out.attention_mask"] = batch.attention_mask
        out[f"{prefix}out.i_s_pos"] = batch.query_start
    return out


# Unified model


def build_model(recording: Recording) -> Blip3oModel:
    """The whole model with the recorded weights; embeddings of tokens that do not occur stay as they are."""
    values, weights = recording.config, recording.weights()
    if "llm" not in values:
        other = recording.beside("weights")
        values = other.config if other is not None else values
    dit_weights = _suffixed(weights, "w.model.dit.model.")
    queries = weights["w.model.latent_queries"]
    shift = values.get("scheduler", {}).get("shift", 1.0)
    config = Blip3oConfig(
        backbone_config={
            **values["llm"],
            "vision_config": values["vision"],
            "model_type": "qwen2_5_vl",
        },
        num_queries=queries.shape[1],
        dit_config=dit_config(values["dit"], dit_weights, values["dit"]["input_size"]),
        flow_config=FlowConfig(sigma_shift=shift, sampling_shift=shift),
        compat="released",
    )
    model = Blip3oModel(config).eval()
    state = model.state_dict()
    names = map_names(key[2:] for key in weights if key.startswith("w."))
    for name, ours in names.items():
        if ours not in state:
            raise DataError(f"w.{name} is not a parameter of this configuration")
        if state[ours].shape != weights[f"w.{name}"].shape:
            raise DataError(
                f"w.{name} has shape {tuple(weights[f'w.{name}'].shape)}, the configuration asks for "
                f"{tuple(state[ours].shape)}"
            )
        state[ours].copy_(weights[f"w.{name}"])
    embeddings = "backbone.vlm.model.language_model.embed_tokens.weight"
    if "w_rows.ids" in weights:
        state[embeddings][weights["w_rows.ids"]] = weights["w_rows.embed_tokens"]
    given = {*names.values(), "backbone.vlm.lm_head.weight", embeddings}
    # The text head takes no part in a picture; the vision tower only where there is a picture.
    lacking = [
        k for k in state if k not in given and not k.startswith("backbone.vlm.model.visual.")
    ]
    if lacking:
        raise DataError(f"the weights lack {lacking[0]} and {len(lacking) - 1} more")
    return model


def _pictures(tensors: Mapping[str, Tensor]) -> PictureInputs:
    """Understanding pictures in either spelling, as patch rows and grids."""
    for pixels, grid in (("in.und_image", "in.grid_thw"), ("in.pixel_values", "in.image_grid_thw")):
        if pixels in tensors:
            return {
                "pixel_values": tensors[pixels].flatten(0, -2),
                "image_grid_thw": tensors[grid].reshape(-1, 3),
            }
    return {}


def replay_train(recording: Recording) -> Computed:
    """One training forward with the recorded random draws, and the gradient of the queries."""
    model = build_model(recording)
    tensors = dict(recording.tensors)
    batch, target_file = recording.beside("batch"), recording.beside("target")
    if batch is not None:
        for name in ("input_ids", "labels", "attention_mask", "i_s_pos"):
            if f"out.{name}" in batch.tensors:
                tensors.setdefault(f"in.{name}", batch.tensors[f"out.{name}"])
    if "in.clip_target_nchw" not in tensors and target_file is not None:
        tensors["in.clip_target_nchw"] = target_file.tensors["out.pooled_nchw"]
    target, ids = tensors["in.clip_target_nchw"], tensors["in.input_ids"]
    labels = tensors.get("in.labels")
    places = ids == model.config.tokens.query
    if labels is not None:
        places &= labels != -100
    starts = tensors.get("in.i_s_pos")
    starts = places.int().argmax(dim=1) if starts is None else starts
    mask = tensors.get("in.attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    # The prompt is what stands before the image start token, which is just before the first query.
    before = torch.arange(ids.shape[1]) < starts[:, None] - 1
    pictures = _pictures(tensors)
    draws = {
        "u": tensors["rng.u"],
        "noise": tensors["rng.noise"],
        "drop": tensors.get("rng.drop", torch.zeros(len(ids))),
    }
    out: Computed = {}
    prompt_mask = mask * before
    with torch.no_grad():
        out["act.inputs_embeds"] = model.embed_inputs(ids, **pictures, query_mask=places)
        condition = model.encode_condition(ids, prompt_mask, **pictures)
        result = model(target=target, condition=condition, **draws)
    out["act.query_hidden"] = out["aux.query_hidden"] = condition
    out["act.dit_condition_after_drop"] = result.condition
    out["act.timesteps"] = out["aux.timesteps"] = result.timestep
    out["act.sigmas"] = out["aux.sigmas"] = result.timestep / 1000
    out["act.noisy_latents"], out["act.dit_pred"] = result.x_sigma, result.prediction
    out["act.target"] = out["aux.target"] = draws["noise"] - target
    out["out.loss"], out["out.dit_pred"] = result.loss, result.prediction
    model(ids, prompt_mask, target, **pictures, **draws).loss.backward()
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    for key in recording.recorded():
        match = re.fullmatch(r"(?:out\.)?grad\.(.*)", key)
        if match:
            gradient = next((ours[own] for own in _gradient_names(match[1]) if own in ours), None)
            if gradient is not None:
                out[key] = gradient
    return out


def _gradient_names(name: str) -> Iterator[str]:
    """What our parameter may be called for the name of a recorded gradient, with or without its upstream prefix."""
    for prefix in ("", "model.", "model.dit.model.", "model.dit."):
        yield from _try_map(prefix + name)
    yield f"dit.{name}"


def _try_map(name: str) -> list[str]:
    from blip3o.errors import WeightsError

    try:
        return list(map_names([name]).values())
    except WeightsError:
        return []


def replay_generate(recording: Recording) -> Computed:
    """Prompt ids -> query states -> the sampler with guidance, from the recorded noise."""
    model = build_model(recording)
    tensors, values = recording.tensors, recording.config
    ids, noise = tensors["in.input_ids_before_img_token"], tensors["rng.init_noise"]
    mask = tensors.get("in.attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask[:, : ids.shape[1]]
    pictures = _pictures(tensors)
    levels = tensors.get("aux.sigmas", torch.empty(31))
    steps = values.get("num_inference_steps", len(levels) - 1)
    scale = values.get("guidance_scale", 3.0)
    before: list[Tensor] = []
    velocities: list[Tensor] = []

    def keep(step: int, x: Tensor, velocity: Tensor) -> None:
        before.append(x)
        velocities.append(velocity)

    out: Computed = {}
    with torch.no_grad():
        condition = model.encode_condition(ids, mask, **pictures)
        start = torch.full((len(ids), 1), model.config.tokens.image_start)
        prefix = model.backbone.embed(torch.cat([ids, start], dim=1), **pictures)
        out["act.inputs_embeds"] = torch.cat([prefix, model.queries(len(ids))], dim=1)
    sample = model.sample_features(
        condition, noise=noise, num_inference_steps=steps, guidance_scale=scale, on_step=keep
    )
    sigmas = sampling_sigmas(steps, model.config.flow.sampling_shift)
    out["act.query_hidden"] = out["aux.query_hidden"] = condition
    out["out.sample_nchw"], out["out.clip_tokens"] = sample, grid_to_tokens(sample)
    out["aux.sigmas"], out["aux.timesteps"] = sigmas, sigma_to_timestep(sigmas[:-1])
    out["aux.dit_timestep_as_long"] = out["aux.timesteps"].long()
    out["aux.first_step_pred_uncond_cond"] = velocities[0]
    for key in recording.recorded():
        if match := re.fullmatch(r"aux\.latents_before_step_(\d+(?:_\d+)*)", key):
            out[key] = torch.cat([before[int(number) - 1] for number in match[1].split("_")])
    return out


# Schedulers


def replay_schedulers(recording: Recording) -> Computed:
    """Tables of the flow schedulers (``shiftS``) and of the decoder's scheduler (``decoder_eulerN``)."""
    from blip3o.latent_decoder import SCHEDULER_CONFIG, build_scheduler

    out: Computed = {}
    for key in recording.recorded():
        if match := re.fullmatch(r"shift([\d.]+)\.train_(sigmas|timesteps)", key):
            sigmas = train_sigmas(float(match[1]))
            out[key] = sigmas if match[2] == "sigmas" else sigma_to_timestep(sigmas)
        elif match := re.fullmatch(
            r"shift([\d.]+)\.infer(\d+)_(sigmas|timesteps|dit_timestep_long)", key
        ):
            sigmas = sampling_sigmas(int(match[2]), float(match[1]))
            timesteps = sigma_to_timestep(sigmas[:-1])
            table = {
                "sigmas": sigmas,
                "timesteps": timesteps,
                "dit_timestep_long": timesteps.long(),
            }
            out[key] = table[match[3]]
        elif match := re.fullmatch(r"decoder_euler(\d+)\.(sigmas|timesteps|init_noise_sigma)", key):
            scheduler = build_scheduler(SCHEDULER_CONFIG)
            scheduler.set_timesteps(int(match[1]))
            out[key] = torch.as_tensor(getattr(scheduler, match[2]))
    return out


REPLAYS: dict[str, Replay] = {
    "dit": replay_dit,
    "eva": replay_eva,
    "collator": replay_collator,
    "train": replay_train,
    "generate": replay_generate,
    "schedulers": replay_schedulers,
}
