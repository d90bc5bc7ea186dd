"""mPLUG's network for questions about pictures, written anew from its paper and the names of its published weights.

Li et al., mPLUG, arXiv:2205.12005; names, sizes and masks as in modelscope's `models/multi_modal/mplug`. A CLIP vision
tower without its projection; a BERT of its lower layers for the question; fusion layers in which the question attends
to the picture, and at every `stride`-th one both attend to each other; a BERT decoder that reads both and writes the
answer. Modules carry the checkpoint's names, so its tensors load as they are.

P pictures, Q questions, N image tokens, L text tokens, D width, B beams.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evals.judges.mplug_files import Sizes


class Block(nn.Module):
    """A block of CLIP's vision tower: norms first, QuickGELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        inner = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](inner * torch.sigmoid(1.702 * inner))


class Vision(nn.Module):
    """CLIP's vision tower up to its last norm, all tokens."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.vision_width
        self.conv1 = nn.Conv2d(3, width, sizes.patch_size, sizes.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.image_tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        blocks = nn.ModuleList(Block(width) for _ in range(sizes.vision_layers))
        self.transformer = nn.ModuleDict({"resblocks": blocks})

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        for block in self.transformer["resblocks"]:  # type: ignore[attr-defined]  # a ModuleList
            x = block(x)
        return self.ln_post(x)  # (P, N, vision width)


class Attention(nn.Module):
    """BERT's attention with its residual and norm; over itself, or over a memory of another width."""

    def __init__(self, sizes: Sizes, memory_width: int | None = None) -> None:
        super().__init__()
        width, source = sizes.hidden_size, memory_width or sizes.hidden_size
        self._heads = sizes.num_heads
        parts = {"query": nn.Linear(width, width), "key": nn.Linear(source, width), "value": nn.Linear(source, width)}
        self.add_module("self", nn.ModuleDict(parts))
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=sizes.eps)}
        )

    def _split(self, name: str, x: Tensor) -> Tensor:
        out = self._modules["self"][name](x)  # type: ignore[index]
        return out.unflatten(-1, (self._heads, -1)).transpose(1, 2)  # (Q, heads, L, D / heads)

    def memory(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of what is attended to."""
        return self._split("key", states), self._split("value", states)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """``mask``: True where a key is seen, (Q, 1, 1 or L, keys)."""
        found = F.scaled_dot_product_attention(self._split("query", x), *memory, attn_mask=mask)
        return self.output["LayerNorm"](self.output["dense"](found.transpose(1, 2).flatten(2)) + x)


class Layer(nn.Module):
    """A BERT layer, with attention to a memory where ``memory_width`` is given."""

    def __init__(self, sizes: Sizes, memory_width: int | None = None) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.attention = Attention(sizes)
        if memory_width is not None:
            self.crossattention = Attention(sizes, memory_width)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, sizes.intermediate_size)})
        self.output = nn.ModuleDict(
            {
                "dense": nn.Linear(sizes.intermediate_size, width),
                "LayerNorm": nn.LayerNorm(width, eps=sizes.eps),
            }
        )

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.attention(x, self.attention.memory(x), mask)

    def feed(self, x: Tensor) -> Tensor:
        inner = F.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](inner) + x)


class Embeddings(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.word_embeddings = nn.Embedding(sizes.vocab_size, width)
        self.position_embeddings = nn.Embedding(sizes.max_positions, width)
        self.token_type_embeddings = nn.Embedding(sizes.token_types, width)
        self.LayerNorm = nn.LayerNorm(width, eps=sizes.eps)

    def forward(self, ids: Tensor) -> Tensor:
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + places)


class Stack(nn.Module):
    """Layers under the names `encoder.layer.N`, with embeddings where the input is text."""

    def __init__(self, sizes: Sizes, layers: int, memory_width: int | None, with_words: bool) -> None:
        super().__init__()
        if with_words:
            self.embeddings = Embeddings(sizes)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(sizes, memory_width) for _ in range(layers))})

    @property
    def layers(self) -> nn.ModuleList:
        return self.encoder["layer"]  # type: ignore[return-value]


class Predictions(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.hidden_size
        self.transform = nn.ModuleDict(
            {"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=sizes.eps)}
        )
        self.decoder = nn.Linear(width, sizes.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(sizes.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.transform["LayerNorm"](F.gelu(self.transform["dense"](x)))
        return self.decoder(x) + self.bias


class Decoder(nn.Module):
    """Writes the answer: word logits after each token of a beginning."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.bert = Stack(sizes, sizes.decoder_layers, sizes.memory_width, with_words=True)
        self.cls = nn.ModuleDict({"predictions": Predictions(sizes)})

    def memories(self, states: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of picture and question, per layer; the same for all beams and steps."""
        return [layer.crossattention.memory(states) for layer in self.bert.layers]  # type: ignore[operator,union-attr]

    def forward(self, ids: Tensor, memories: list[tuple[Tensor, Tensor]], seen: Tensor) -> Tensor:
        """ids (Q, B, L); seen (Q, keys), True where a key counts -> logits (Q, B, L, words)."""
        questions, beams, length = ids.shape
        x = self.bert.embeddings(ids.flatten(0, 1))
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
        for layer, memory in zip(self.bert.layers, memories, strict=True):
            x = layer.attend(x, causal)  # type: ignore[operator]
            # The beams of a question look at one memory, side by side as further positions.
            side = layer.crossattention(x.reshape(questions, beams * length, -1), memory, seen[:, None, None])  # type: ignore[operator]
            x = layer.feed(side.reshape(questions * beams, length, -1))  # type: ignore[operator]
        return self.cls["predictions"](x).reshape(questions, beams, length, -1)


class Mplug(nn.Module):
    """The parts together: `see` pictures, `read` questions about them, and let `text_decoder` answer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.visual_encoder = nn.ModuleDict({"visual": Vision(sizes)})
        if sizes.vision_width != sizes.hidden_size:
            self.visn_fc = nn.Linear(sizes.vision_width, sizes.hidden_size)
            self.visn_layer_norm = nn.LayerNorm(sizes.hidden_size, eps=1e-12)
        self.text_encoder = Stack(sizes, sizes.text_layers, None, with_words=True)
        self.fusion_encoder = Stack(sizes, sizes.bert_layers, sizes.memory_width, with_words=False)
        self.text_decoder = Decoder(sizes)

    def see(self, pixels: Tensor) -> Tensor:
        """Pixels (P, 3, H, W) -> image tokens (P, N, D)."""
        states = self.visual_encoder["visual"](pixels)
        if self.sizes.vision_width != self.sizes.hidden_size:
            states = self.visn_layer_norm(self.visn_fc(states))
        return states

    def read(self, image: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image tokens (Q, N, D) and questions (Q, L) -> what the decoder attends to (Q, N + L, D), and what of it
        counts (Q, N + L). ``mask`` (Q, L): True where there is a word."""
        words = mask[:, None, None]
        text = self.text_encoder.embeddings(ids)
        for layer in self.text_encoder.layers:
            text = layer.feed(layer.attend(text, words))  # type: ignore[operator]
        both = torch.cat([torch.ones(image.shape[:2], dtype=torch.bool, device=mask.device), mask], 1)
        layers = list(self.fusion_encoder.layers)
        for number, layer in enumerate(layers[max(0, len(layers) - self.sizes.fusion_layers) :]):
            if number and number % self.sizes.stride == 0:
                joined = layer.feed(layer.attend(torch.cat([image, text], 1), both[:, None, None]))  # type: ignore[operator]
                new, text = joined.split([image.shape[1], text.shape[1]], 1)
                image = image + new
            else:
                text = layer.attend(text, words)  # type: ignore[operator]
                text = layer.feed(layer.crossattention(text, layer.crossattention.memory(image), None))  # type: ignore[operator,union-attr]
        return torch.cat([image, text], 1), both
