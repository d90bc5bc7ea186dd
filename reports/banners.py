"""What a reader must know before the first number."""

from __future__ import annotations

from evals.results import RunData
from reports.format import count

STICKERS = "stickers"
LEVELS = ("stop", "warn", "note")


def is_stickers(run: RunData) -> bool:
    """Whether the figures come from the sticker world's judge."""
    judge = run.manifest["judge"]
    return judge is not None and judge["domain"] == STICKERS


def banners(run: RunData) -> list[dict[str, str]]:
    """Titled sentences, gravest first; `level` is stop, warn or note."""
    manifest, results = run.manifest, run.results
    assert results is not None
    counts, plan = results["counts"], manifest["plan"]
    found: list[tuple[str, str, str]] = []
    doubles = [
        f"{role} {part['name']!r}"
        for role in ("model", "judge")
        if (part := manifest[role]) is not None and part["is_test_double"]
    ]
    if doubles or results["is_test_double"]:
        who = " and ".join(doubles) or "a part of this run"
        text = f"Made with a test double ({who}). These figures mean nothing."
        found.append(("stop", "Not a measurement", text))
    if not run.is_finished:
        text = (
            f"{count(counts['outputs'])} of {count(plan['outputs'])} outputs were made and "
            f"{count(counts['scored'])} scored when this page was written. No overall figure is given; group means "
            "are of what is there, and the prompts that are missing are not a random part. The run's own command "
            "continues it."
        )
        found.append(("stop", "Unfinished run", text))
    elif counts["outputs"] and not counts["scored"]:
        text = "No output could be scored, so there is no figure. The reasons stand with the outputs below."
        found.append(("stop", "Nothing was scored", text))
    if manifest["partial"]:
        text = (
            f"{count(plan['samples'])} of {count(plan['official_samples'])} prompts were run. "
            "The figures are estimates for the whole and are not the benchmark's score."
        )
        found.append(("warn", "Partial run", text))
    if counts["failed"]:
        text = (
            f"{count(counts['failed'])} of {count(counts['outputs'])} outputs failed in the model or the judge. "
            "They have no score and are not counted as wrong."
        )
        found.append(("warn", f"{count(counts['failed'])} failed", text))
    if (left := counts["unscored"] - counts["failed"]) > 0:
        text = (
            f"{count(left)} of {count(counts['outputs'])} outputs were made but could not be scored. "
            "They are left out of every figure."
        )
        found.append(("warn", f"{count(left)} not scored", text))
    parent = manifest.get("parent")
    if isinstance(parent, dict):
        judge = parent.get("judge") or {}
        text = f"The outputs are those of {parent.get('run', 'an earlier run')}"
        if judge.get("name"):
            text += f", where {judge['name']}"
            text += f", version {judge['version']}, judged them" if judge.get("version") else " judged them"
        text += "."
        if parent.get("missing"):
            text += f" {count(parent['missing'])} of them it had not made yet."
        found.append(("note", "Judged again", text))
    if is_stickers(run):
        text = (
            "Judged by the sticker world's own judge, which was measured on sticker pictures only. These figures "
            "do not compare with published ones, which rest on photographs and another judge."
        )
        found.append(("note", "Sticker judge", text))
    # The partial banner says this already.
    skip = f"{plan['samples']} of {plan['official_samples']} samples were run (--limit)"
    found += [
        ("note", "Differs from the protocol", text)
        for text in manifest["deviations"]
        if text != skip
    ]
    found += [("warn", "Warning", text) for text in dict.fromkeys((*manifest["warnings"], *results["warnings"]))]
    found.sort(key=lambda banner: LEVELS.index(banner[0]))
    return [{"level": level, "title": title, "text": text} for level, title, text in found]
