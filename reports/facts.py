"""How a run was made, from its manifest: the command that asks for it, and titled lists of facts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from evals.results import RunData
from reports.format import count, number, seconds, words

Facts = list[tuple[str, str]]
SEED_MODES = {
    "sample": "noise from (seed, prompt id, picture number)",
    "upstream": "set again before each prompt, pictures in series",
}


def command_of(manifest: Mapping[str, Any]) -> str:
    """The command line that made this run: `run`, `rescore` of its parent, or `score` of pictures made elsewhere."""
    config, parent = manifest["config"], manifest.get("parent")
    if isinstance(parent, Mapping) and parent.get("run"):
        judge = (manifest["judge"] or {}).get("name")
        tail = f" --judge {shlex.quote(str(judge))}" if judge else ""
        return f"blip3o-eval rescore {shlex.quote(str(parent['run']))}{tail}"
    name = str(config["model"]["name"])
    if name.startswith("images:"):
        return (
            f"blip3o-eval score --task {shlex.quote(str(config['task']))} "
            f"--images {shlex.quote(name.removeprefix('images:'))} "
            f"--judge {shlex.quote(str(config['judge']['name']))}"
        )
    return _run_command(config)


def _data_facts(data: Mapping[str, Any] | None) -> Facts:
    """Where the documents of a task that reads files came from."""
    if not data:
        return []
    origin = f"{data['repository']} at {data['revision']}" if data["repository"] else "files given by hand"
    return [("documents", f"{origin} ({len(data['files'])} file{'s' if len(data['files']) > 1 else ''})")]


def _run_command(config: Mapping[str, Any]) -> str:
    generation, model = config["generation"], config["model"]
    flags = {
        "--task": config["task"],
        "--model": model["name"],
        "--judge": None if config["judge"]["name"] == "auto" else config["judge"]["name"],
        "--revision": model["revision"],
        "--dtype": None if model["dtype"] == "auto" else model["dtype"],
        "--limit": config["limit"],
        "--num-images": config["num_images"],
        "--seed": config["seed"],
        "--seed-mode": None if config["seed_mode"] == "sample" else config["seed_mode"],
        "--batch-size": None if config["batch_size"] == "auto" else config["batch_size"],
        "--guidance-scale": generation["guidance_scale"],
        "--steps": generation["steps"],
        "--height": generation["height"],
        "--width": generation["width"],
    }
    parts = [
        f"{flag} {shlex.quote(str(value))}" for flag, value in flags.items() if value is not None
    ]
    parts += [
        f"--set {shlex.quote(f'{section}.args.{key}={json.dumps(value)}')}"
        for section in ("model", "judge")
        for key, value in config[section]["args"].items()
    ]
    return " ".join(["blip3o-eval run", *parts])


def facts(run: RunData) -> list[tuple[str, Facts]]:
    """Titled lists of (name, text); a fact without text is left out by the page."""
    manifest = run.manifest
    parts = [(role, _part(manifest[role])) for role in ("model", "judge") if manifest[role]]
    return [
        *parts,
        ("task", _task(manifest["task"])),
        ("sampling", _sampling(manifest)),
        ("machine", _machine(run)),
    ]


def _part(part: Mapping[str, Any]) -> Facts:
    return [
        ("name", f"{part['name']}, version {part['version']}"),
        ("weights sha256", part["weights_sha256"]),
        ("domain", part["domain"]),
        *((words(key), _text(value)) for key, value in part["settings"].items()),
        *((words(key), _text(value)) for key, value in part["info"].items()),
    ]


def _task(task: Mapping[str, Any]) -> Facts:
    return [
        ("name", f"{task['name']}, version {task['version']}"),
        *((words(key), text) for key, text in task["card"].items() if key != "worth"),
        ("prompts sha256", task["prompts_sha256"]),
        *_data_facts(task.get("data")),
    ]


def _sampling(manifest: Mapping[str, Any]) -> Facts:
    config, plan = manifest["config"], manifest["plan"]
    batches = [
        f"{'judge' if key.startswith('judge') else 'model'} {value}"
        for key, value in manifest["auto"].items()
    ]
    mode = SEED_MODES.get(config["seed_mode"], config["seed_mode"])
    is_ours = not str(config["model"]["name"]).startswith("images:")
    return [
        ("seed", f"{config['seed']} ({mode})" if is_ours else "pictures made elsewhere"),
        (
            "outputs",
            f"{count(plan['samples'])} prompts x {plan['per_sample']} = {count(plan['outputs'])}",
        ),
        ("batch size", ", ".join(batches) or str(config["batch_size"])),
        ("intervals", "95 %, over prompts: the pictures of one prompt are not independent"),
        ("configuration sha256", manifest["config_sha256"]),
    ]


def _machine(run: RunData) -> Facts:
    manifest, timing = run.manifest, (run.results or {}).get("timing", {})
    sessions: Sequence[Mapping[str, Any]] = manifest.get("sessions") or []
    git = manifest.get("git") or {}
    commit = git.get("commit") or "not from a repository"
    versions = manifest.get("versions") or {}
    return [
        (
            "started",
            ", ".join(str(s.get("started", "")) for s in sessions[:3])
            + " ..." * (len(sessions) > 3),
        ),
        ("sessions", str(timing.get("sessions", len(sessions)))),
        ("generating", seconds(timing.get("generate_s"))),
        ("judging", seconds(timing.get("score_s"))),
        ("outputs per second", number(timing.get("outputs_per_s"), "rate")),
        ("device", ", ".join(dict.fromkeys(str(s.get("device", "")) for s in sessions))),
        ("platform", " ".join(str(v) for v in (manifest.get("platform") or {}).values())),
        ("commit", f"{commit}, with uncommitted changes" if git.get("is_dirty") else commit),
        (
            "versions",
            ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        ),
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
