"""What several tests of generation tasks need."""

import pytest
import torch


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights whose text tower reads 24 tokens, one a letter."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    letters = [chr(c) for c in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
    }
    torch.manual_seed(0)
    text = {
        **sizes,
        "vocab_size": len(words),
        "max_position_embeddings": 24,
        "eos_token_id": 1,
        "bos_token_id": 0,
    }
    config = CLIPConfig(
        text_config={**text, "pad_token_id": 1}, vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    vocab = {w: i for i, w in enumerate(words)}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=24).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder
