"""A loaded task's documents -> samples of ours: prompts, pictures, choices and dialogues.

Prompts and their order come from lmms-eval's own ``build_all_requests``, few-shot examples included. Pictures are
fetched when they are needed, by (task, document), so a sample is small and can be sent to another process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from evals.api import Choice, Sample
from evals.errors import UsageError
from evals.lmms import package
from evals.lmms.loading import Form, Loaded

_CLUSTER_COLUMNS = (
    "image_id", "imageId", "img_id", "image_path", "image_name", "img_path", "image_file",
    "video_id", "videoID", "video_name", "video_path", "video", "question_id", "index",
)  # fmt: skip
_OPEN: dict[str, Documents] = {}
"""Key -> documents of this process; a child process inherits them."""


@dataclass(frozen=True)
class Origin:
    """Where a request comes from: the documents' key, the task and the document's number."""

    key: str
    task: str
    doc_id: int

    @property
    def documents(self) -> Documents:
        return _OPEN[self.key]


class Pictures(Sequence[Any]):
    """The pictures of a document, made when they are asked for.

    Raises: ValueError for a task that shows videos or plays sounds.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __iter__(self) -> Iterator[Any]:
        return iter(self.origin.documents.pictures(self.origin))

    def __len__(self) -> int:
        return sum(1 for _ in self)  # list(self) would ask for the length first

    def __getitem__(self, index: Any) -> Any:
        return list(iter(self))[index]


class Documents:
    """The documents of all tasks behind one name."""

    def __init__(self, loaded: Loaded, form: Form) -> None:
        self.loaded, self.form = loaded, form
        self.key = f"{loaded.name}:{form}:{id(self)}"
        _OPEN[self.key] = self
        self._requests: dict[str, dict[int, list[Any]]] = {}
        self._clusters: dict[str, list[str] | None] = {}

    # -- requests of lmms-eval ----------------------------------------------------------------

    def requests(self, task: str) -> Mapping[int, list[Any]]:
        """Document -> its instances (several for choices), in lmms-eval's order.

        Raises: UsageError for a task that cannot be asked this way.
        """
        if task not in self._requests:
            one = self.loaded.tasks[task]
            if one.OUTPUT_TYPE == "generate_visual_cot":
                raise UsageError(
                    f"task 'lmms:{task}' draws a picture on the way to each answer (generate_visual_cot): "
                    "that is not supported; its plain sibling without _visual_cot is"
                )
            try:
                with package.quietly():
                    one.build_all_requests(rank=0, world_size=1)
            except (AttributeError, AssertionError, ValueError) as error:
                shots = one.get_config("num_fewshot")
                hint = f" with num_fewshot={shots}: it has no few-shot documents" if shots else ""
                raise UsageError(f"task 'lmms:{task}' cannot be asked{hint}: {error}") from error
            found: dict[int, list[Any]] = {}
            for instance in one.instances:
                found.setdefault(instance.doc_id, []).append(instance)
            self._requests[task] = found
        return self._requests[task]

    def document(self, task: str, doc_id: int, has_pictures: bool = False) -> dict[str, Any]:
        """A fresh copy: several scorers change theirs in place."""
        one = self.loaded.tasks[task]
        docs = one.eval_docs if has_pictures else one.eval_docs_no_media
        return dict(docs[doc_id])

    def pictures(self, origin: Origin) -> list[Any]:
        one = self.loaded.tasks[origin.task]
        document = self.document(origin.task, origin.doc_id, has_pictures=True)
        if self.form == "chat":
            shown = [part["url"] for part in parts_of(one.doc_to_messages(document)) if part["type"] != "text"]
        else:
            shown = one.doc_to_visual(document)
        return as_pictures(shown, origin.task)

    # -- samples of ours ----------------------------------------------------------------------

    @cached_property
    def samples(self) -> list[Sample]:
        made: list[Sample] = []
        is_group = len(self.loaded.tasks) > 1
        for task in self.loaded.tasks:
            for doc_id, instances in self.requests(task).items():
                name = f"{task}/{doc_id:06d}" if is_group else f"{doc_id:06d}"
                made += self._of_document(task, doc_id, instances, name, len(made))
        return made

    def _of_document(
        self, task: str, doc_id: int, instances: Sequence[Any], name: str, number: int
    ) -> Iterator[Sample]:
        one, first = self.loaded.tasks[task], instances[0]
        origin = Origin(self.key, task, doc_id)
        settings = self.settings(task, first)
        limit = settings.get("max_new_tokens")
        cluster = self.cluster(task, doc_id)
        repeats = int(one.config.repeats or 1)
        shown = one.config.doc_to_visual is not None or self.form == "chat"
        for repeat in range(repeats):
            yield Sample(
                id=f"{name}#{repeat}" if repeats > 1 else name,
                number=number + repeat,
                group=task,
                prompt=self._prompt(one, first),
                metadata={"task": task, "doc_id": doc_id, "cluster": cluster},
                images=Pictures(origin) if shown else (),  # type: ignore[arg-type]
                unit=name if repeats > 1 else None,
                max_new_tokens=int(limit) if limit else None,
                stop=stops_of(settings.get("until")),
                sampling=sampling_of(settings),
                choices=self._choices(one, instances),
                dialogue=Dialogue(origin) if first.request_type.endswith(("round", "agentic")) else None,
            )

    def settings(self, task: str, instance: Any) -> dict[str, Any]:
        """The generation settings of a request; {} for choices."""
        return dict(next((a for a in instance.args if isinstance(a, Mapping)), {}))

    def _prompt(self, one: Any, instance: Any) -> str:
        if self.form == "chat" and callable(getattr(one, "doc_to_messages", None)):
            document = self.document(one.config.task, instance.doc_id, has_pictures=True)
            return "".join(p["text"] for p in parts_of(one.doc_to_messages(document)) if p["type"] == "text")
        context = instance.args[0]
        return "\n".join(context) if isinstance(context, list) else str(context)

    def _choices(self, one: Any, instances: Sequence[Any]) -> tuple[Choice, ...]:
        if instances[0].request_type != "loglikelihood":
            return ()
        if any(len(instance.args) != 6 for instance in instances):
            raise UsageError(f"task 'lmms:{one.config.task}' compares choices without their question: not supported")
        needs_greedy = one.OUTPUT_TYPE == "loglikelihood" or "exact_match" in one.aggregation()
        return tuple(
            Choice(str(i.args[0]), self._continuation(one, i), needs_greedy) for i in instances
        )

    def _continuation(self, one: Any, instance: Any) -> str:
        target = instance.args[1]
        return str(target(self.document(one.config.task, instance.doc_id)) if callable(target) else target)

    # -- what documents are independent of each other by ---------------------------------------

    def cluster(self, task: str, doc_id: int) -> str | None:
        """The picture, video or question that several documents share; None if each stands alone."""
        if task not in self._clusters:
            self._clusters[task] = self._shared_values(task)
        values = self._clusters[task]
        return None if values is None else values[doc_id]

    def _shared_values(self, task: str) -> list[str] | None:
        one = self.loaded.tasks[task]
        docs = one.eval_docs_no_media
        for column in (one.config.cluster_key, *_CLUSTER_COLUMNS):
            if column and column in getattr(docs, "column_names", ()):
                values = [str(value) for value in docs[column]]
                if 1 < len(set(values)) < len(values):
                    return values
        return None


class Dialogue:
    """A document that is asked in several rounds, each of which depends on the answers before.

    Called with ``ask(prompt, pictures) -> text``; returns what lmms-eval's scorer reads, as JSON: the list of all
    rounds' answers, or the last one of an agent's.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def __call__(self, ask: Callable[[str, Sequence[Any]], str]) -> str:
        origin, documents = self.origin, self.origin.documents
        one = documents.loaded.tasks[origin.task]
        request = documents.requests(origin.task)[origin.doc_id][0]
        if one.OUTPUT_TYPE == "generate_until_agentic":
            return self._agent(ask, documents, request)
        if documents.form == "chat":
            raise UsageError("tasks of several rounds are asked in the simple form: leave out form=chat")
        context, _, to_visual, follow, *_ = request.args
        document = documents.document(origin.task, origin.doc_id, has_pictures=True)
        pictures, said, state, number = to_visual(document), [], None, 0
        while True:
            said.append(ask(str(context), as_pictures(pictures, origin.task)))
            number += 1
            pictures, context, is_end, said, state = follow(
                document, previous_output=said, round_idx=number, previous_round_info=state
            )
            said = list(said)
            if is_end:
                return json.dumps(said, ensure_ascii=False)

    def _agent(
        self, ask: Callable[[str, Sequence[Any]], str], documents: Documents, request: Any
    ) -> str:
        evaluator = package.load("lmms_eval.evaluator")
        task = self.origin.task

        class Asked:
            is_simple = True
            task_dict = {task: documents.loaded.tasks[task].dataset}

            def generate_until(self, requests: Sequence[Any]) -> list[str]:
                context, _, to_visual, doc_id, name, split = requests[0].args
                shown = to_visual(self.task_dict[name][split][doc_id])
                return [ask(str(context), as_pictures(shown, name))]

        return str(evaluator._run_generate_until_agentic(Asked(), [request])[0])


def as_pictures(shown: Any, task: str) -> list[Any]:
    """What ``doc_to_visual`` returned, as RGB pictures. Raises ValueError for videos and sounds."""
    found: list[Any] = []
    for one in shown if isinstance(shown, (list, tuple)) else [] if shown is None else [shown]:
        if isinstance(one, (list, tuple)):
            found += as_pictures(one, task)
        elif hasattr(one, "convert"):
            found.append(one.convert("RGB"))
        else:
            raise ValueError(
                f"task 'lmms:{task}' shows a {type(one).__name__} (video or sound), and this model takes pictures only"
            )
    return found


def parts_of(messages: Any) -> Iterator[Mapping[str, Any]]:
    """The texts and pictures of chat messages, in order."""
    for message in messages or ():
        content = message["content"]
        yield from [{"type": "text", "text": content}] if isinstance(content, str) else content


def stops_of(until: Any) -> tuple[str, ...]:
    """``until`` of a task's generation settings."""
    return tuple(u for u in ([until] if isinstance(until, str) else until or ()) if u)


def sampling_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What departs from greedy decoding: {} unless the task wants its answers drawn."""
    if settings.get("do_sample") is False or not settings.get("temperature"):
        return {}
    keys = ("temperature", "top_p", "top_k")
    return {key: settings[key] for key in keys if settings.get(key)}
