"""What a results file (`reports.sweep_export`) reads like in Markdown: tables, and sentences with a verdict.

Each block is a function of the results and its settings, all text. Verdicts are those of `reports.verdicts`; while
points are missing there are none, and tables say that they are of the finished points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from reports.format import count, interval, number, seconds, signed, signed_interval, words
from reports.verdicts import ALPHA, agreement

Results = Mapping[str, Any]
WORDS = {
    "better": "better",
    "worse": "worse",
    "equal": "equal to within 0.05",
    "undecided": "not decided",
    "one training": "one training, no verdict",
}


def status(results: Results) -> str:
    """Which sweep the figures are of, and what is missing."""
    points = results["points"]
    done, asked = points.get("done", 0), points["asked"]
    parts = [f"Sweep `{results['sweep']}` (digest {results['digest'][:12]}"]
    parts[0] += f", commit {results['commit'][:7]}" if results["commit"] else ""
    parts[0] += f"), last point of {results['made']}" if results["made"] else ")"
    parts.append(f"{done} of {asked} points, seeds {', '.join(map(str, results['seeds']))}")
    for task, own in results["tasks"].items():
        judge = f", judged by {own['judge']} {str(own['judge_weights_sha256'])[:12]}" if own["judge"] else ""
        parts.append(f"{task} version {own['version']}: {count(own['outputs'])} outputs a point{judge}")
    text = "; ".join(parts) + "."
    others = [f"{n} {state}" for state, n in points.items() if state not in ("asked", "done")]
    if done < asked:
        text += f" **Not finished: {', '.join(others)}. Figures are of the finished points, and there is no verdict.**"
    if results["mixed"]:
        text += f" **{len(results['mixed'])} evaluations differ from the others (judge, prompts, version) and are "
        text += "in no figure, so there is no verdict.**"
    if results["is_test_double"]:
        text += " **Made with a test double: these figures mean nothing.**"
    return text


def cells(results: Results) -> str:
    """Each design's figures: mean over seeds, 95 % interval over seeds and prompts."""
    metrics = _headlines(results)
    rows = []
    for cell in results["cells"]:
        row = [cell["name"], f"{len(cell['seeds'])}" + (f" of {cell['asked']}" * (len(cell["seeds"]) < cell["asked"]))]
        for name, metric in metrics.items():
            figure = cell["figures"].get(name)
            row.append(_with_interval(figure["value"], figure["both"], metric["unit"]) if figure else "–")
        rows.append(row)
    return _table(["design", "seeds", *(_title(m) for m in metrics.values())], rows)


def sources(results: Results, metric: str) -> str:
    """One figure with each source of chance apart: other seeds on these prompts, other prompts with these models."""
    unit, rows = _unit(results, metric), []
    for cell in results["cells"]:
        figure = cell["figures"].get(metric)
        if figure is None:
            continue
        name = cell["name"] + (" (one training)" if figure.get("one_training") else "")
        rows.append([
            name, ", ".join(number(v, unit) for v in figure.get("by_seed", ())), number(figure["value"], unit),
            number(figure["sd"], unit), interval(figure.get("seeds"), unit), interval(figure.get("prompts"), unit),
            interval(figure["both"], unit),
        ])  # fmt: skip
    head = ["design", "each seed", "mean", "sd of seeds", "95 % over seeds (t)", "95 % over prompts", "95 % over both"]
    return _table(head, rows)


def effects(results: Results, axis: str) -> str:
    """What an axis does to each headline, averaged over the pairs of designs that differ in it alone."""
    rows = []
    for e in _of_axis(results, axis):
        metric = results["metrics"][e["metric"]]
        unit = metric["unit"]
        rows.append([
            _title(metric), f"{_value(e['before'])} → {_value(e['after'])}", signed(e["value"], unit),
            *(signed_interval(e[key], unit) for key in ("ci", "ci_seeds", "ci_prompts")),
            _p(e["p_holm"]), str(e["pairs"]), WORDS[e["verdict"]] if _is_finished(results) else "–",
        ])  # fmt: skip
    head = ["figure", "step", "effect", "95 % over both", "over seeds", "over prompts", "p (Holm)", "pairs", "verdict"]
    return _table(head, rows)


def verdicts(results: Results, axis: str, **published: Literal["better", "worse"]) -> str:
    """A sentence for each headline. `published`: metric (its / as -) -> better or worse, what the paper found."""
    if not _is_finished(results):
        done, asked = results["points"].get("done", 0), results["points"]["asked"]
        mixed = ", and some evaluations differ from the others" if results["mixed"] else ""
        return f"*No verdict: {done} of {asked} points are finished{mixed}.*"
    lines, expected = [], {name.replace("-", "/", 1): word for name, word in published.items()}
    known = {e["metric"] for e in _of_axis(results, axis)}
    for name, word in expected.items():
        if name not in known or word not in ("better", "worse"):
            raise KeyError(f"{name}={word}: name one of {', '.join(sorted(known))}, with better or worse")
    for e in _of_axis(results, axis):
        metric = results["metrics"][e["metric"]]
        before, after = _value(e["before"]), _value(e["after"])
        said = {
            "better": f"{after} is better than {before}", "worse": f"{after} is worse than {before}",
            "equal": f"{after} and {before} are equal to within 0.05",
            "undecided": f"not decided between {after} and {before}",
            "one training": f"no verdict between {after} and {before}",
        }[e["verdict"]]  # fmt: skip
        text = f"* **{_title(metric, with_arrow=False)}**: {said}: {signed(e['value'], metric['unit'])}"
        if e["ci"]:
            text += f" ({signed_interval(e['ci'], metric['unit'])}"
            text += f"; p {_p(e['p_holm'])} after Holm's correction)" if e["p_holm"] is not None else ")"
            if e["verdict"] == "undecided" and e["p"] is not None and e["p"] < ALPHA:
                text += ", which one comparison alone would have shown"
        if e["one_training"]:
            text += f". The seeds of {'; '.join(e['one_training'])} share the model that answers"
        if e["metric"] in expected:
            word = expected[e["metric"]]
            text += f". The paper found {after} {word}: {agreement(e['verdict'], word)}"
        lines.append(text + ".")
    return "\n".join(lines)


def differences(results: Results, metric: str) -> str:
    """Each design minus the baseline, paired by prompt and seed."""
    unit = _unit(results, metric)
    rows = [
        [d["cell"], signed(d["value"], unit), signed_interval(d["ci"], unit), _p(d["p_holm"]),
         " ".join(map(str, d["seeds"])), WORDS[d["verdict"]] if _is_finished(results) else "–"]
        for d in results["differences"] if d["metric"] == metric
    ]  # fmt: skip
    head = [f"minus {results['baseline']}", "difference", "95 % over seeds and prompts", "p (Holm)", "seeds", "verdict"]
    return _table(head, rows)


def needs(results: Results) -> str:
    """Seeds for a given difference: by a paired t-test on these prompts, and where prompts count as chance, too."""
    if not results["needs"]:
        return "*Two finished seeds in a design and in the baseline are needed to tell.*"
    steps = list(dict.fromkeys(d for need in results["needs"] for d in need["seeds_for"]))
    rows = []
    for need in results["needs"]:
        metric = results["metrics"][need["metric"]]
        unit = metric["unit"]
        row = [_title(metric, with_arrow=False), number(need["sd"], unit), interval(need["sd_interval"], unit)]
        row += [str(need["n_seeds"]), number(need["detectable"], unit)]
        for step in steps:
            pair = need["paired_for"].get(step), need["seeds_for"].get(step)
            row.append(" / ".join("none" if n is None else str(n) for n in pair) if step in need["seeds_for"] else "–")
        rows.append(row)
    head = ["figure", "sd of differences", "its 95 % interval", "seeds now", "found in 8 of 10"]
    return _table([*head, *(f"seeds for {s}" for s in steps)], rows)


def ceilings(results: Results) -> str:
    """What each target's decoder shows of real pictures, beside the designs that use it."""
    known = [c for c in results["cells"] if c["ceiling"]]
    names = list(dict.fromkeys(n for c in known for n in c["ceiling"] if n != "scenes"))
    rows = [
        [c["name"], *(number(c["ceiling"].get(n), "decibel" if n.endswith("_db") else "fraction") for n in names),
         count(c["ceiling"]["scenes"])] for c in known
    ]  # fmt: skip
    return _table(["design", *map(words, names), "scenes"], rows) if rows else "*No target measured its ceiling.*"


def training(results: Results) -> str:
    """What each design took; shared stages count whole."""
    rows = [
        [c["name"], count(t["parameters"]), count(t["steps"]), count(t["images"]), seconds(t["own_seconds"]),
         seconds(t["seconds"])] for c in results["cells"] if (t := c["training"])
    ]  # fmt: skip
    return _table(["design", "parameters trained", "steps", "pictures", "own training", "with shared stages"], rows)


def diversity(results: Results) -> str:
    """How far pictures of one prompt lie apart, in multiples of real scenes of it: mean, 95 % interval over seeds."""
    found = results["diversity"]
    if found is None:
        return "*Not measured yet: `python tests/benchmarks/diversity_of_sweep.py SWEEP`.*"
    rows = []
    for cell in found["cells"]:
        shown = [cell.get(kind) for kind in ("all", "right")]
        rows.append([
            cell["name"], *(", ".join(f"{v:.2f}" for v in part["by_seed"]) if part else "–" for part in shown[:1]),
            *(_with_interval(part["value"], part["seeds"], "fraction") if part else "–" for part in shown),
        ])  # fmt: skip
    return _table(["design", "each seed", "all pictures", "right pictures"], rows)


def curves(results: Results, metric: str) -> str:
    """The figure at each checkpoint: mean over seeds, and lowest and highest seed."""
    unit = _unit(results, metric)
    rows = []
    for curve in results["curves"]:
        if curve["metric"] == metric and curve["rows"]:
            parts = [f"{count(s)}: {_with_interval(v, (lo, hi), unit)}" for s, _, v, lo, hi in curve["rows"]]
            rows.append([curve["cell"], " · ".join(parts)])
    return _table(["design", "steps: mean (lowest to highest seed)"], rows) if rows else "*No checkpoints.*"


BLOCKS: Mapping[str, Callable[..., str]] = {
    block.__name__: block
    for block in (status, cells, sources, effects, verdicts, differences, needs, ceilings, training, diversity, curves)
}


def _is_finished(results: Results) -> bool:
    is_whole = results["points"].get("done", 0) == results["points"]["asked"]
    return is_whole and not results["is_test_double"] and not results["mixed"]


def _headlines(results: Results) -> dict[str, Mapping[str, Any]]:
    return {name: m for name, m in results["metrics"].items() if m["headline"]}


def _unit(results: Results, metric: str) -> str:
    """The metric's unit; of one that no point has yet, a fraction's, for a table without rows."""
    if metric not in results["metrics"]:
        if _is_finished(results):
            raise KeyError(f"metric {metric} is not among {', '.join(results['metrics'])}")
        return "fraction"
    return str(results["metrics"][metric]["unit"])


def _with_interval(value: float, bounds: Sequence[float] | None, unit: str) -> str:
    return number(value, unit) + (f" ({interval(bounds, unit)})" if bounds else "")


def _of_axis(results: Results, axis: str) -> list[Mapping[str, Any]]:
    if axis not in results["axes"]:
        raise KeyError(f"axis {axis} is not among {', '.join(results['axes'])}")
    return [e for e in results["effects"] if e["axis"] == axis and results["metrics"][e["metric"]]["headline"]]


def _title(metric: Mapping[str, Any], *, with_arrow: bool = True) -> str:
    return str(metric["title"]) + (" ↓" if with_arrow and not metric["up"] else "")


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _p(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "*Nothing is finished that this table could show.*"
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * len(head)) + " |"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
