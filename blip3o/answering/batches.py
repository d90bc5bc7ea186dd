"""Which questions go through the backbone together, and what happens when memory runs out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from blip3o.answering.prompts import Prompt
from blip3o.errors import ConfigError
from blip3o.memory import free_device_memory, is_out_of_memory

logger = logging.getLogger(__name__)

_SHARE_OF_FREE = 0.5
# Beyond these, larger batches were not faster; on a CPU the caches of the processor decide.
_MOST_TOKENS = {"cpu": 16_384}
_MOST_TOKENS_ELSEWHERE = 131_072
_FEWEST_TOKENS = 512


@dataclass(frozen=True, kw_only=True)
class Batching:
    """``size``: questions that go through the backbone at once, or ``auto``: as many as the free memory holds.

    Either is halved when memory runs out, and the size that fitted is kept. ``shares_pictures``: several questions
    about the same pictures read them once. ``by_length``: questions of similar length go together; off, the order given
    is kept. Neither changes an answer beyond rounding.
    """

    size: int | Literal["auto"] = "auto"
    shares_pictures: bool = True
    by_length: bool = True

    def __post_init__(self) -> None:
        is_count = isinstance(self.size, int) and not isinstance(self.size, bool) and self.size >= 1
        if self.size != "auto" and not is_count:
            raise ConfigError(f"batch size must be auto or a whole number of at least 1, got {self.size!r}")


def arrange(prompts: Sequence[Prompt], rooms: Sequence[int], batching: Batching) -> list[int]:
    """All places in the order in which they are to be read; those that share their pictures stand side by side.

    Args: rooms: how many tokens may follow each prompt.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, prompt in enumerate(prompts):
        groups.setdefault(prompt.key, []).append(place)
    ordered = list(groups.values())
    if batching.by_length:
        # Long ones first: what does not fit into memory shows at once.
        ordered.sort(key=lambda own: -max(len(prompts[i]) + rooms[i] for i in own))
    return [place for own in ordered for place in own]


def cut(
    places: Sequence[int], start: int, sizes: Sequence[int], max_rows: int | None, max_tokens: int | None
) -> list[int]:
    """The next batch: places from ``start`` on while they fit, at least one.

    Args: sizes: tokens of each place, its answer included. max_tokens: of the batch, padding included.
    """
    end, longest = start, 0
    while end < len(places) and (max_rows is None or end - start < max_rows):
        longest = max(longest, sizes[places[end]])
        if end > start and max_tokens is not None and (end - start + 1) * longest > max_tokens:
            break
        end += 1
    return list(places[start:end])


class Budget:
    """How much goes through at once; learns from what did not fit. One per model, kept between calls."""

    def __init__(self, max_tokens: Callable[[], int]) -> None:
        """Args: max_tokens: the most for size ``auto``, asked when it is first needed."""
        self._estimate = max_tokens
        self._auto: int | None = None
        self._fitting_tokens: int | None = None
        self.num_backoffs = 0

    def limits(self, size: int | Literal["auto"]) -> tuple[int | None, int | None]:
        """(most rows, most tokens) of the next batch."""
        if size != "auto":
            return size, self._fitting_tokens
        if self._auto is None:
            self._auto = self._estimate()
        return None, min(self._auto, self._fitting_tokens or self._auto)

    def shrink(self, rows: int, tokens: int) -> None:
        """Note that a batch of so many rows and tokens did not fit. Says so once per size."""
        self.num_backoffs += 1
        self._fitting_tokens = max(1, min(tokens // 2, self._fitting_tokens or tokens))
        logger.warning(
            "%d questions of %d tokens together do not fit into memory; going on with at most %d tokens at once",
            rows, tokens, self._fitting_tokens,
        )  # fmt: skip


def run_batches(
    prompts: Sequence[Prompt],
    rooms: Sequence[int],
    batching: Batching,
    budget: Budget,
    run: Callable[[list[int]], Sequence[Any]],
) -> list[Any]:
    """``run(places)`` over all prompts, batch by batch: one result per prompt, in their order.

    A batch that does not fit into memory is made again in smaller ones; one question that does not fit alone raises.
    """
    sizes = [len(p) + room for p, room in zip(prompts, rooms, strict=True)]
    order = arrange(prompts, rooms, batching)
    results: dict[int, Any] = {}
    while len(results) < len(order):
        places = cut(order, len(results), sizes, *budget.limits(batching.size))
        try:
            made = run(places)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(places) == 1:
                raise
            error.__traceback__ = None  # its frames hold the tensors that did not fit
        else:
            results.update(zip(places, made, strict=True))
            continue
        free_device_memory()
        budget.shrink(len(places), len(places) * max(sizes[place] for place in places))
    return [results[place] for place in range(len(prompts))]


def tokens_that_fit(config: Any, device: torch.device, dtype: torch.dtype) -> int:
    """How many tokens half of the free memory holds while a language model reads them.

    Args: config: of the language model. Counted per token: keys and values of every layer, twice, since branching off
    copies them, and the widest activations of one layer.
    """
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    cache = 2 * 2 * config.num_hidden_layers * kv_heads * head_dim
    activations = 4 * config.hidden_size + 3 * config.intermediate_size
    per_token = (cache + activations) * dtype.itemsize
    most = _MOST_TOKENS.get(device.type, _MOST_TOKENS_ELSEWHERE)
    fitting = int(_SHARE_OF_FREE * free_bytes(device)) // per_token
    return max(_FEWEST_TOKENS, min(most, fitting))


def free_bytes(device: torch.device) -> int:
    """Free memory of a device; of this machine for any that cannot say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not on every system
        return 4 << 30
