"""Nouns of the harness: what tasks, models, judges and metrics hand to each other.

Standard library and ``evals.io.redact`` only, so that a plug-in can be written, listed and tested
without torch. A *task* yields samples and turns outputs into scores; a *model* makes the outputs; a
*judge* answers questions about an image; a *metric* turns all scores into one value. ``evals.runner``
moves these values between them and onto disk; nobody else needs to know about files, batches or resume.

    Sample --(runner: seeds, batches)--> GenerationRequest --(model)--> image --> Output
    ScoreItem(sample, output, image) --(task, judge)--> Score --> ScoreRow --(metric)--> MetricValue

Images are ``PIL.Image.Image`` in mode RGB, masks are boolean NumPy arrays of shape (H, W); both are
typed ``Any`` here because this file imports neither library.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from evals.io.redact import redact, redact_json

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels; the end is exclusive."""

TaskKind = Literal["generation", "understanding"]

API_VERSION = 1
"""Raised when something here changes so that a plug-in written before would break."""


@dataclass(frozen=True)
class Choice:
    """One of several texts whose log-likelihoods are compared: what follows ``prompt`` word for word.

    ``needs_greedy``: whether the task also reads if the model would write this text by itself.
    """

    prompt: str
    text: str
    needs_greedy: bool = False


@dataclass(frozen=True)
class Sample:
    """One prompt or question of a task.

    ``id`` is unique in the task and never changes between versions of the code: seeds hang on it.
    ``number`` is the 0-based line number in the official file, used for folder names even when only
    some samples are run. ``group`` is the reporting group (GenEval: the tag). ``metadata`` is the
    official record, JSON values only, in its original key order. ``images`` are inputs (understanding
    and editing): paths, bytes or PIL images. Samples with the same ``unit`` are scored together (MME:
    both questions about a picture), so ``--limit`` takes all of them or none. ``max_new_tokens`` and
    ``stop`` end the answers of an understanding task, and ``sampling``, ``choices`` and ``dialogue`` say how they are
    had; see :class:`AnswerRequest`.
    """

    id: str
    number: int
    group: str
    prompt: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Any, ...] = ()
    unit: str | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    dialogue: Callable[[Callable[[str, Sequence[Any]], str]], str] | None = None


@dataclass(frozen=True)
class GenerationRequest:
    """One image to make.

    ``seed`` already belongs to (run seed, sample id, image index). With ``series=True``
    (``--seed-mode upstream``) the pictures of one sample are drawn one after another from one
    generator seeded once with ``seed``; the runner then sends all pictures of a sample in one batch,
    in order. ``None`` means the model's own default. ``images`` are the inputs of an editing task.
    """

    sample_id: str
    image_index: int
    prompt: str
    seed: int
    series: bool = False
    guidance_scale: float | None = None
    steps: int | None = None
    height: int | None = None
    width: int | None = None
    images: tuple[Any, ...] = ()


@dataclass(frozen=True)
class AnswerRequest:
    """One question to answer in text. ``max_new_tokens=None`` means the model's own default.

    The answer ends before the first of the texts in ``stop``; :func:`cut_at` does that for models
    that cannot stop there by themselves. ``sampling`` holds what departs from greedy decoding
    (``temperature``, ``top_p``, ``top_k``); draws come from ``seed``.

    A task may ask for more than one text; ``evals.phases.answers`` then calls the model as often as it takes.
    ``choices``: the answer is the JSON list of [log-likelihood, whether greedy] of each. ``dialogue``: called with
    ``ask(prompt, pictures) -> text``, it asks in several rounds and returns the answer to be stored.
    """

    sample_id: str
    prompt: str
    seed: int
    images: tuple[Any, ...] = ()
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    dialogue: Callable[[Callable[[str, Sequence[Any]], str]], str] | None = None


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text up to the first of the stop strings; empty ones stop nothing."""
    ends = [text.find(end) for end in stop if end]
    return text[: min((e for e in ends if e >= 0), default=len(text))]


@dataclass(frozen=True)
class Output:
    """What a model made for (sample, index): an image file or a text, or the error it ended with.

    ``path`` is relative to the run folder and uses forward slashes. ``seconds`` is the time of the
    batch divided by its size; it is information, never part of a result.
    ``seed`` is None for pictures that others made.
    """

    sample_id: str
    index: int
    seed: int | None
    status: Literal["ok", "error"] = "ok"
    path: str | None = None
    text: str | None = None
    error: str | None = None
    seconds: float | None = None

    @property
    def is_ok(self) -> bool:
        return self.status == "ok"


@dataclass(frozen=True, eq=False)
class Detection:
    """One object found by a judge.

    ``box``: x1, y1, x2, y2 with exclusive end, from the mask where there is one. ``score`` in [0, 1].
    ``mask``: bool (H, W) of the whole image, or None. ``color_logits``: ten floats in the order red,
    orange, yellow, green, blue, purple, pink, brown, black, white, or None when the colour of this
    class was not asked for. ``extras``: further JSON values, such as ``{"pixel_color": "red"}``, the
    colour read from the pixels inside the mask.
    """

    class_name: str
    box: Box
    score: float
    mask: Any | None = None
    color_logits: tuple[float, ...] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Verdict on one output.

    ``value`` is None exactly when the output could not be scored; then ``unscored_reason`` says why.
    ``reason`` explains a scored value (GenEval: the official reason lines), ``answer`` is what was
    understood from the output, ``details`` holds further JSON values that metrics and reports read.
    """

    value: float | None
    answer: str | None = None
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    unscored_reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) != (self.unscored_reason is not None):
            raise ValueError("a Score has either a value or an unscored_reason, and never both")
        if self.value is not None and self.value != self.value:
            raise ValueError("a Score's value must not be NaN; use Score.unscored(reason)")

    @classmethod
    def unscored(cls, reason: str, **details: Any) -> Score:
        """A verdict that could not be reached: counted apart, never a zero."""
        return cls(value=None, unscored_reason=reason, details=details)

    @property
    def is_scored(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class ScoreItem:
    """What a task scores: the sample, its output, and the picture (None for text outputs)."""

    sample: Sample
    output: Output
    image: Any | None = None


@dataclass(frozen=True)
class ScoreRow:
    """A score with its place: one line of ``scores.jsonl``, and the input of metrics.

    ``sample_id`` is also the cluster for intervals, as the pictures of one prompt are correlated.
    """

    sample_id: str
    index: int
    group: str
    score: Score


@dataclass(frozen=True)
class MetricValue:
    """One figure: value, how many scores it rests on, how many had none, and its 95 % interval.

    ``value`` is None when it cannot be given honestly (nothing scored, or GenEval's overall without
    all six tags); ``note`` then says why. ``n`` counts scored outputs, ``clusters`` independent units
    (prompts). ``ci95`` is (lo, hi) or None. Fractions have unit "fraction", percentages "percent".
    """

    name: str
    value: float | None
    n: int
    unscored: int = 0
    ci95: tuple[float, float] | None = None
    unit: str = "fraction"
    higher_is_better: bool = True
    clusters: int | None = None
    method: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Terms:
    """What a metric averages: its value is ``scale`` times the mean of ``values``.

    ``keys`` name what each value was measured on, the same in every run, so that two runs can be paired:
    (sample id, image index), or whatever the metric's unit is. ``clusters`` are the independent units
    (prompts). With ``strata`` the value is the plain mean of the strata's means. ``is_bounded``: all
    values lie in [0, 1] by definition.
    """

    keys: tuple[Hashable, ...]
    values: tuple[float, ...]
    clusters: tuple[Hashable, ...]
    strata: tuple[Hashable, ...] | None = None
    scale: float = 1.0
    is_bounded: bool = True


@dataclass(frozen=True)
class Identity:
    """What a model or judge is, known before anything heavy is loaded.

    ``digest`` is the sha256 of its weights (or of what it is made of); ``domain`` is the kind of
    picture it makes or was measured on ("stickers", "photos", "test", "unknown"). ``is_test_double``
    puts a red banner on every report. ``settings`` are the resolved settings that change its outputs
    (dtype, steps, guidance_scale, thresholds): resume is refused when one differs. ``batch_size`` is
    what "auto" becomes. ``info`` holds further JSON values for the manifest. Name, settings and info go
    into manifests, reports and MLflow: secrets are taken out of them here.
    """

    name: str
    version: str
    digest: str
    domain: str
    is_test_double: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 8
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", redact(self.name))
        object.__setattr__(self, "settings", redact_json(self.settings))
        object.__setattr__(self, "info", redact_json(self.info))


# Values that a protocol asks for are read only: attributes of a class or of an object, fields of a frozen dataclass
# and properties all serve.


@runtime_checkable
class Model(Protocol):
    """A model. Creating one is cheap and imports nothing heavy; ``load`` builds the network.

    A factory registered for models takes ``(spec, options)``: the text after ``name:`` ("" if none)
    and a :class:`ModelOptions`. It also serves as the check: it raises MissingRequirementError or
    ModelError at once when weights or packages are absent.
    """

    @property
    def identity(self) -> Identity: ...

    def load(self) -> None:
        """Build the network. Called once, before the first request, never when all is done."""

    def close(self) -> None:
        """Free memory; ``load`` may be called again for the next task."""


@runtime_checkable
class ImageGenerator(Model, Protocol):
    """Makes pictures."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Sequence[Any]:
        """One PIL image per request, in order; an Exception object in place of one that failed.

        The picture depends on the request alone; between batch sizes it may differ by rounding.
        """


@runtime_checkable
class ImageEditor(ImageGenerator, Protocol):
    """Makes pictures from pictures, too: a request's ``images`` are what its prompt is an instruction about.

    Only such models run tasks whose samples bring source pictures; the others are refused before anything is made.
    """

    @property
    def takes_images(self) -> bool: ...


@runtime_checkable
class PaidModel(Model, Protocol):
    """A model whose outputs cost money."""

    def announce(self, requests: Iterable[Any]) -> str:
        """What these requests will cost, in one line, printed before ``load``. Raises UsageError if it is too much."""

    def usage(self) -> Mapping[str, Any]:
        """What this process asked for, JSON values for the manifest."""


@runtime_checkable
class Observer(Model, Protocol):
    """A model that learns something about its outputs while it makes them."""

    def observations(self) -> Sequence[str]:
        """Sentences for the manifest and the report, asked after the last output."""


@runtime_checkable
class Answerer(Model, Protocol):
    """Answers in text. ``answer_batch_size``, if it has one, is what "auto" becomes for answers."""

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        """One text per request, in order; an Exception object in place of one that failed."""


@runtime_checkable
class LikelihoodModel(Answerer, Protocol):
    """A model that says how likely an answer is."""

    def log_likelihoods(
        self, requests: Sequence[AnswerRequest], continuations: Sequence[str]
    ) -> Sequence[Any]:
        """Natural logarithm of the probability that the answer to each request begins with its continuation: the
        sum over the continuation's tokens, each after those before it. An Exception object in place of one that
        failed."""


@dataclass(frozen=True)
class ModelOptions:
    """Settings of a run that reach a model or judge when it is created."""

    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    guidance_scale: float | None = None
    steps: int | None = None
    height: int | None = None
    width: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Judge(Protocol):
    """Answers about an image. Created cheaply and loaded once, as a model is."""

    @property
    def identity(self) -> Identity: ...

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> Mapping[str, Any]:
        """Stored figures of how right this judge is: name -> number, or nested mappings. {} if unknown."""


@runtime_checkable
class DetectionJudge(Judge, Protocol):
    """A judge that finds objects; what GenEval needs."""

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        """Detections per image, all classes, unfiltered by any task's threshold.

        Args: images: RGB pictures, sizes may differ. color_classes: per image the class names whose
        colour is asked; only their detections need ``color_logits``.
        """


@runtime_checkable
class QuestionJudge(Judge, Protocol):
    """A judge that answers questions about images in text (DPG)."""

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        """One answer per (image, question) pair; an Exception object in place of one that could not be
        had or read. Pairs about one picture bring the same object: it need be encoded only once."""


@runtime_checkable
class ProbabilityJudge(Judge, Protocol):
    """A judge that says how likely an answer is; what VQAScore needs."""

    def probability(
        self, images: Sequence[Any], questions: Sequence[str], answer: str
    ) -> Sequence[Any]:
        """Probability, 0 to 1, that what it says about each (image, question) pair begins with ``answer``; an
        Exception object in place of one that could not be had. Pictures are shared as in ``ask``."""


@runtime_checkable
class InstructedJudge(Judge, Protocol):
    """A judge that looks at a picture as a long instruction says and answers in free text; what WISE needs.

    ``instruction``: the user's own text (``evals.judges.instruction``), which takes the place of the task's; None
    without one. Its sha256 is among the judge's settings.
    """

    instruction: str | None

    def reply(self, images: Sequence[Any], instructions: Sequence[str], max_tokens: int) -> Sequence[Any]:
        """The judge's text per (image, instruction) pair, at temperature 0; an Exception object in place of one that
        could not be had."""


@runtime_checkable
class PaidJudge(Judge, Protocol):
    """A judge whose answers cost money."""

    def announce(self, num_pictures: int, num_questions: int) -> str:
        """What judging will cost, in one line, printed before anything is made. Raises UsageError if it is too much."""

    def usage(self) -> Mapping[str, Any]:
        """What this process asked for, JSON values for the manifest."""


@runtime_checkable
class Metric(Protocol):
    """Maps the scores of a run to one figure, with its interval."""

    @property
    def name(self) -> str: ...

    @property
    def higher_is_better(self) -> bool: ...

    @property
    def unit(self) -> str: ...

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        """The figure over ``rows`` (all groups; a metric picks its own). Pure."""


@runtime_checkable
class PairedMetric(Metric, Protocol):
    """A metric that says what it averages, so that ``compare`` can pair two runs by it."""

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        """The values behind ``compute`` of the same rows; None where ``compute`` gives no value."""


@runtime_checkable
class Task(Protocol):
    """A benchmark. Created with no arguments, cheaply; imports nothing heavy.

    ``groups`` is the official order of groups. ``judges`` maps a model's domain to the judge that
    ``--judge auto`` takes, ``{}`` for tasks without a judge. ``num_images`` is the official number of
    outputs per sample. ``card`` holds what a report prints: "measures", "paper", "data", "licence",
    "scorer", "worth". A changed prompt, split or scorer raises ``version``.

    Four further members are optional. A constructor with an argument ``data`` takes the path of
    ``--data``. ``warnings(rows)`` returns sentences about all scores of a run that a reader has to know.
    ``judge_methods`` names what its judge must be able to do (``("ask",)``, ``("detect",)``): a judge that
    cannot is refused before anything is generated. ``num_questions(sample)`` is how many questions a judge is asked
    about one picture of a sample, for the estimate of a judge that costs money; 1 without it.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def kind(self) -> TaskKind: ...

    @property
    def groups(self) -> tuple[str, ...]: ...

    @property
    def num_images(self) -> int: ...

    @property
    def judges(self) -> Mapping[str, str]: ...

    @property
    def card(self) -> Mapping[str, str]: ...

    def samples(self) -> Sequence[Sample]:
        """All samples in official order. Raises MissingRequirementError if data is absent."""

    def digest(self) -> str:
        """sha256 of the prompts and of everything else that defines the samples."""

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        """One score per item, in order. Only items whose output is ok arrive here."""

    def metrics(self) -> Sequence[Metric]:
        """Figures in the order in which reports print them; the first is the headline."""
