"""What each figure means, in a sentence that stands beside it.

Known tasks have their own words; a figure of a task that this package never heard of gets what its unit and its
group say. Definitions say what is averaged over what; how it was estimated is said by `estimation`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from evals.api import MetricValue
from reports.format import count, interval, words

METHODS = {
    "bootstrap": "cluster bootstrap over prompts",
    "wilson": "Wilson interval at the effective sample size",
    "mover": "combined Wilson intervals of the groups",
    "t": "cluster-robust Student interval",
    "t+2": "Student interval with two added observations",
    "jackknife": "jackknife: the prompts in ten parts, each left out in turn",
    "centred bootstrap": "bootstrap over prompts, laid around the value",
    "groups": "intervals of the groups combined at their weights",
    "disjoint parts": "Student interval over ten disjoint parts of the prompts",
}

GENEVAL = ("geneval", "geneval_long")
_PICTURE = "in which the judge found everything that the prompt asks for, by the official rules"
_WISE = {
    "wise": "(0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2 of the judge's marks from 0 to 2",
    "wise_verified": "the judge's verdict, 0 or 1",
}
KNOWN = {
    ("geneval", "overall"): "Plain mean of the six group means. A group mean is the share of its scored pictures "
    f"{_PICTURE}.",
    ("geneval", "seen_half"): "Plain mean over the three groups with two objects, of prompts whose exact combination "
    "the model may have been trained on.",
    ("geneval", "unseen_half"): "Plain mean over the three groups with two objects, of prompts whose exact "
    "combination was kept out of training.",
    ("dpg", "overall"): "Mean over prompts of the share of their questions that hold in the picture, in percent; a "
    "question counts only where the questions it rests on hold.",
    ("dpg", "official"): "The same figure with the slips of the official script repeated.",
    **{
        (task, name): f"Group means at the protocol's weights{more}. A picture's value is {value}."
        for task, value in _WISE.items()
        for name, more in (
            ("overall", ", given only where every picture has a score"),
            ("overall_of_scored", ", over the pictures that have a score"),
        )
    },
    ("wise", "consistency"): "Mean mark for showing what the prompt means, as a share of 2.",
    ("wise", "realism"): "Mean mark for looking like a photograph, as a share of 2.",
    ("wise", "aesthetic_quality"): "Mean mark for beauty, as a share of 2.",
    ("mme", "perception"): "Sum over the ten perception subtasks of accuracy plus accuracy in pairs, in points of "
    "200 each.",
    ("mme_stickers", "perception"): "Sum over the four subtasks of accuracy plus accuracy in pairs, in points of "
    "200 each.",
    ("mme_stickers", "accuracy"): "Share of questions answered right.",
    ("mme_stickers", "accuracy_plus"): "Share of pictures with both questions answered right.",
    ("mme_stickers", "chance"): "What a fair coin expects: 75 points in every subtask.",
    ("caption_stickers", "f1"): "Mean over descriptions of the F1 between the objects named and those shown; 0 where "
    "nothing is named.",
    ("caption_stickers", "object_recall"): "Share of the objects shown that are named.",
    ("caption_stickers", "chair_i"): "Share of mentions of objects that are not in the picture.",
    ("caption_stickers", "chair_s"): "Share of descriptions that name an object that is not in the picture.",
    ("caption_stickers", "chance"): "F1 of the same descriptions against all other pictures of the run.",
    ("caption_stickers", "chance_object_recall"): "Object recall of the same descriptions on all other pictures of "
    "the run.",
    ("caption_stickers", "chance_chair_i"): "Share of wrong mentions when the same descriptions are held against all "
    "other pictures of the run.",
    ("mme", "cognition"): "Sum over the four cognition subtasks of accuracy plus accuracy in pairs, in points of "
    "200 each.",
}  # fmt: skip

SETS = {
    "fid": "Frechet distance between two Gaussians fitted to the features of the pictures and of the reference. It "
    "falls with the number of pictures, so it compares at equal numbers only.",
    "kid": "Kernel distance (squared MMD, cubic kernel) between the features of the pictures and of the reference, "
    "mean over random subsets. Unbiased: it compares at different numbers of pictures, too, and may fall below 0.",
    "is": "Inception score: how sure the classifier is of each picture and how varied its answers are over all; from 1 "
    "up. The reference plays no part in it.",
    "precision": "Share of the pictures that lie among the reference's: nearer to one of its pictures than that one's "
    "third neighbour.",
    "recall": "Share of the reference's pictures that lie among these: nearer to one of them than that one's third "
    "neighbour.",
    "clipscore": "Mean of 100 times the cosine between a picture's and its prompt's embedding, negative ones as 0, by "
    "the CLIP model in the figure's name.",
    "vqascore": "Mean probability that the model in the figure's name says Yes to the question whether the picture "
    "shows its prompt.",
}
"""Beginnings of names that go on with the network, as in "kid-stickers" or "fid-clean:animals"."""
FEATURES = {
    "clean": "Features: Inception, after an antialiased bicubic resize as clean-fid's.",
    "legacy": "Features: Inception, after TensorFlow's bilinear resize without antialiasing.",
    "stickers": "Features: a classifier of sticker scenes; it compares with no figure on Inception.",
    "effnetlite0": "Features: EfficientNet-Lite0; it compares with no figure on Inception.",
}

TERMS = {
    "interval": (
        "95 % interval",
        "Where the figure would lie in 95 of 100 repetitions with other {thing}s of the same kind. Whole {thing}s are "
        "resampled, as the outputs of one are not independent.{judge}",
    ),
    "scored": ("scored (n)", "Outputs that have a verdict; the figure rests on these."),
    "prompts": ("{thing}s", "Independent units behind the figure: {thing}s, or groups of them that go together."),
    "unscored": (
        "not scored",
        "Outputs that failed in the model or could not be judged. Left out of every figure, never counted as wrong.",
    ),
    "judge": (
        "judge right",
        "How often the judge's verdict was the true one on labelled pictures of this group. The figure itself cannot "
        "be trusted further than this.",
    ),
    "p": (
        "p (Holm)",
        "Chance of a difference at least this large if the two runs were equally good, by flipping the sign of whole "
        "{thing}s, adjusted for every comparison on this page (Holm 1979).",
    ),
    "difference": (
        "difference",
        "Later run minus first run, on outputs that have a score in every run: the same {thing}s and numbers.",
    ),
    "held_out": (
        "combination never seen",
        "Prompts whose exact objects (with colour or place) were kept out of the model's training.",
    ),
}  # fmt: skip


SWEEP_TERMS = {
    "cell": ("cell", "One combination of the axes. Its points differ in nothing but the seed of training and drawing."),
    "interval": (
        "95 % interval",
        "Of a cell's figure over its seeds. Two sources of chance are added: which prompts were asked (resampled) and "
        "how trainings from different seeds differ (Student's t over seeds). With one seed it covers the prompts only.",
    ),
    "sd": ("sd of seeds", "Standard deviation of the figure from one training to the next."),
    "over-seeds": (
        "over seeds",
        "95 % interval for other trainings of the same recipe on these very prompts: Student's t over the seeds' "
        "values, with one degree of freedom less than there are seeds.",
    ),
    "over-prompts": (
        "over prompts",
        "95 % interval for other prompts and these very models, their seeds pooled. It gets narrow with many prompts "
        "however few trainings there were, so it says nothing about designs.",
    ),
    "sd-difference": (
        "sd of differences",
        "Standard deviation, from seed to seed, of the difference between a cell and the baseline, pooled over cells.",
    ),
    "seeds-needed": (
        "seeds for a difference",
        "Fewest seeds a side with which a true difference of that size is found in 8 of 10 studies: by a paired t-test "
        "over seeds on these prompts, and below it where other prompts count as chance, too.",
    ),
    "difference": (
        "difference",
        "The cell minus the baseline, output by output on the same prompts and within the same seed, then over seeds.",
    ),
    "p": (
        "p (Holm)",
        "Chance of a difference at least this large if the two cells were equally good, given how prompts and seeds "
        "vary; adjusted for every test in the same table or list (Holm 1979).",
    ),
    "effect": (
        "effect of an axis",
        "Mean over all pairs of cells that differ in this axis alone, paired by prompt and seed. Where axes work "
        "against each other an average hides it: the cells' own differences show it.",
    ),
    "detectable": (
        "found in 8 of 10",
        "The smallest true difference between two cells that a sweep with as many seeds and prompts finds with "
        "probability 0.8, before correction for several tests.",
    ),
    "flops": (
        "arithmetic",
        "Floating-point operations of training, multiply and add counted as two, by formula over real tokens (padding "
        "left out); a backward costs two forwards, through frozen weights one. It counts the phases in which designs "
        "differ: what all start from (vision tower, VAE, stored target features) is made alike and left out.",
    ),
    "shared": (
        "shared",
        "Training of stages that several cells have in common. It ran once and is counted whole in each of them.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A glossary entry; `id` is the name of its element in the page."""

    id: str
    name: str
    text: str


def definition(metric: MetricValue, task: str, groups: Collection[str]) -> str:
    """What the figure says, without its value."""
    name = metric.name
    known = KNOWN.get(("geneval" if task in GENEVAL else task, name))
    if known is not None:
        return known
    if task in ("dpg", "dpg_stickers"):
        return _dpg(name)
    if text := _of_network(name):
        return text
    if name.endswith("_by_pixels"):
        return (
            f"The figure {words(name.removesuffix('_by_pixels'))} again, with colours read from the pixels inside "
            "the judge's masks in place of its colour classifier."
        )
    if name.endswith("_lmms_eval"):
        return f"The figure {words(name.removesuffix('_lmms_eval'))} as lmms-eval reads the answers."
    if name == "chance":
        return "What a uniform guess among the allowed answers expects on the same questions; known exactly."
    if name == "unparsed":
        return "Share of answers in which no answer of the asked form was found."
    if name in groups:
        if task in GENEVAL:
            return f"Share of the scored pictures of the group {words(name)} {_PICTURE}."
        return f"The figure of the group {words(name)}, over its scored outputs."
    if metric.unit == "fraction":
        return "Mean of the scores, from 0 to 1, as the task defines it."
    return f"As the task defines it; unit: {metric.unit}."


def _of_network(name: str) -> str:
    """Of a figure that is named after a network; "" for other names."""
    stem, _, group = name.partition(":")
    kind, _, rest = stem.partition("-")
    text = SETS.get("fid" if kind == "fd" else kind)
    if text is None or not rest:
        return ""
    features = FEATURES.get(rest.partition("-")[0], "") if kind not in ("clipscore", "vqascore") else ""
    of_group = f"Of the group {words(group)} alone." if group else ""
    return " ".join(part for part in (text, features, of_group) if part)


def _dpg(name: str) -> str:
    if name in ("overall", "official"):
        return KNOWN["dpg", name]
    share = "Share of the answers to questions of this category that are yes, in percent, whatever became of the"
    if name.startswith("official_"):
        return f"{share} questions they rest on; of the last picture of each prompt only, as in the official script."
    return f"{share} questions they rest on; over all pictures."


def estimation(metric: MetricValue, thing: str = "prompt") -> str:
    """How many scores it rests on, its direction and how its interval was made."""
    parts = [f"{'Higher' if metric.higher_is_better else 'Lower'} is better."]
    units = f" in {count(metric.clusters)} {thing}s" if metric.clusters else ""
    parts.append(f"n = {count(metric.n)} scored{units}, {count(metric.unscored)} not scored.")
    if metric.ci95 is not None:
        method = METHODS.get(metric.method, metric.method).replace("prompts", f"{thing}s") if metric.method else ""
        how = f" ({method})" if method else ""
        parts.append(f"95 % interval {interval(metric.ci95, metric.unit)}{how}.")
    return " ".join(parts)


def reading(metric: MetricValue, task: str) -> str:
    """One plain sentence on the headline, or "" where none is known."""
    if metric.value is None or task not in GENEVAL or metric.name != "overall":
        return ""
    return (
        f"About {round(100 * metric.value)} of 100 pictures show everything that their prompt asks for, averaged over "
        "the six groups."
    )


def glossary(
    metrics: Collection[MetricValue],
    task: str,
    groups: Collection[str],
    terms: Collection[str],
    *,
    thing: str = "prompt",
    is_judged: bool = True,
) -> list[Entry]:
    """An entry for each figure and each of the named `TERMS`; the ids are stable within a page.

    Args: thing: what is asked, a prompt or a question.
    """
    found = [
        Entry(f"def-m{i}", words(metric.name), definition(metric, task, groups))
        for i, metric in enumerate(metrics)
    ]
    judge = " Errors of the judge are not covered." if is_judged else ""
    named = {key: [text.format(thing=thing, judge=judge) for text in TERMS[key]] for key in TERMS if key in terms}
    return found + [Entry(f"def-{key}", name, text) for key, (name, text) in named.items()]
