"""Prompt lists that come with the package, for tasks that need prompts alone: `--data partiprompts`.

========================  ===========================================  ==================  =============================
name                      prompts                                      groups              ids
========================  ===========================================  ==================  =============================
partiprompts              1,632 of PartiPrompts (P2)                   its Category        partiprompts-0000 to -1631
t2i_compbench             8 x 300, T2I-CompBench++'s validation files  the file            color-000 to complex-299
t2i_compbench/color, ...  one of these files                           the file            as in the whole list
========================  ===========================================  ==================  =============================

Seeds hang on ids, so a file alone draws the pictures that the whole list draws for it. The texts are upstream's; white
space around them, and runs of it, are read as in every caption list. `tasks/data/<list>/SOURCE.md` names the commits.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType

from evals.api import Sample
from tasks.generation.fid_data import FidData

PARTIPROMPTS, T2I_COMPBENCH = "partiprompts", "t2i_compbench"
COMPBENCH_FILES = (
    "color", "shape", "texture", "spatial", "3d_spatial", "non_spatial", "numeracy", "complex",
)  # fmt: skip
NAMES = (PARTIPROMPTS, T2I_COMPBENCH, *(f"{T2I_COMPBENCH}/{file}" for file in COMPBENCH_FILES))
KNOWN = f"{PARTIPROMPTS}, {T2I_COMPBENCH}, and of the latter {T2I_COMPBENCH}/" + "|".join(
    COMPBENCH_FILES
)


@dataclass(frozen=True)
class Source:
    """Where a list comes from, and what a figure over it is not."""

    paper: str
    data: str
    licence: str
    worth: str


SOURCES: Mapping[str, Source] = MappingProxyType({
    PARTIPROMPTS: Source(
        paper="Yu et al., Parti, arXiv:2206.10789",
        data="PartiPrompts (P2), google-research/parti, commit 5a65797: 1,632 prompts in 12 categories, bundled",
        licence="Apache-2.0",
        worth="PartiPrompts has no automatic score of its own: its authors had people compare pictures.",
    ),
    T2I_COMPBENCH: Source(
        paper="Huang et al., T2I-CompBench++, arXiv:2307.06350",
        data="T2I-CompBench++ validation prompts, Karine-Huang/T2I-CompBench, commit 1b70949: 8 x 300, bundled",
        licence="MIT",
        worth=(
            "Not T2I-CompBench's scores, and no figure for its leaderboard: it scores color, shape and texture by "
            "BLIP-VQA as a product over noun phrases, spatial, 3d_spatial and numeracy by the detector UniDet, "
            "non_spatial by the plain cosine of CLIP ViT-B/32, complex by the mean of these three, over 10 pictures "
            "of each prompt."
        ),
    ),
})  # fmt: skip


def is_name(given: str | Path) -> bool:
    """Whether `--data` names a list: a text written exactly so. `./partiprompts` and a `Path` are folders."""
    return isinstance(given, str) and given in NAMES


def source_of(name: str) -> Source:
    """Source of a list or of a part of it."""
    stem, _, part = name.partition("/")
    source = SOURCES[stem]
    return replace(source, data=f"{source.data}; here {part}_val.txt alone") if part else source


def read(name: str) -> FidData:
    """The prompts of a list in upstream's order, without reference pictures."""
    folder = resources.files("tasks").joinpath("data", name.partition("/")[0])
    if name == PARTIPROMPTS:
        text = gzip.decompress(folder.joinpath("PartiPrompts.tsv.gz").read_bytes()).decode()
        samples = _partiprompts(text)
    else:
        part = name.partition("/")[2]
        files = (part,) if part else COMPBENCH_FILES
        samples = []
        for file in files:
            lines = folder.joinpath(f"{file}_val.txt").read_text("utf-8").splitlines()
            samples += _compbench(file, lines, len(samples))
    groups = tuple(dict.fromkeys(sample.group for sample in samples))
    return FidData(Path(str(folder)), name, tuple(samples), groups, (), (), None)


def _partiprompts(text: str) -> list[Sample]:
    """Rows of a table with tabs and a header; quotation marks in it are part of the prompts."""
    samples = []
    for number, row in enumerate(text.rstrip("\n").split("\n")[1:]):
        raw, category, challenge, _ = row.split("\t")
        prompt = " ".join(raw.split())
        record = {"prompt": prompt, "challenge": challenge}
        samples.append(Sample(f"{PARTIPROMPTS}-{number:04d}", number, category, prompt, record))
    return samples


def _compbench(file: str, lines: list[str], first: int) -> list[Sample]:
    prompts = [" ".join(line.split()) for line in lines]
    return [
        Sample(f"{file}-{n:03d}", first + n, file, prompt, {"prompt": prompt})
        for n, prompt in enumerate(prompts)
    ]
