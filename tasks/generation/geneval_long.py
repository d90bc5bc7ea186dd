"""GenEval's prompts rewritten at length: the same objects, counts, colours and positions, asked for in about 100 words.

Measures: what GenEval measures, for models that are made for long prompts or come with a rewriter of their own.
Paper: prompts of BAGEL, Deng et al., arXiv:2505.14683; benchmark of Ghosh, Hajishirzi and Schmidt, arXiv:2310.11513.
Data: ByteDance-Seed/Bagel, commit 056b5fd, eval/gen/geneval/prompts/evaluation_metadata_long.jsonl, Apache-2.0,
bundled. All but the prompt is GenEval's own record, line by line.
Scorer: GenEval's rules.

Worth: another benchmark than GenEval. A rewritten prompt names places and appearances that the plain one leaves to the
model, which lifts figures by up to 16 points (FLUX.1-dev 0.66 and 0.82). Such figures are marked as rewritten wherever
they are published, and compare with those alone.

Version 1.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from functools import cached_property
from importlib import resources

from tasks.generation.geneval import GenEval


class GenEvalLong(GenEval):
    """The task; see the module's card."""

    name = "geneval_long"
    version = "1"
    card: Mapping[str, str] = {
        "measures": "objects, counts, colours and positions, asked for in rewritten prompts of about 100 words",
        "paper": "Deng et al., BAGEL, arXiv:2505.14683; Ghosh et al., GenEval, arXiv:2310.11513",
        "data": "ByteDance-Seed/Bagel, commit 056b5fd: GenEval's 553 records with rewritten prompts, 4 pictures each",
        "licence": "Apache-2.0 (prompts), MIT (records)",
        "scorer": "the rules of djghosh13/geneval, commit af4902f, on the judge's detections",
        "worth": (
            "Rewritten prompts lift figures by up to 16 points over GenEval's own: these compare with figures of "
            "rewritten prompts only, never with plain GenEval. Models whose text encoder reads 77 tokens see a part "
            "of each prompt."
        ),
    }

    @cached_property
    def _raw(self) -> bytes:
        file = resources.files("tasks").joinpath("data/geneval/evaluation_metadata_long.jsonl.gz")
        return gzip.decompress(file.read_bytes())
