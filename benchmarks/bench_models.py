"""The models that the benchmarks train: made here from scratch, or a folder.

Every model is a function of its name alone, so that another process makes the same one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple


class Size(NamedTuple):
    """A Llama-style model from scratch."""

    hidden_size: int
    layers: int
    heads: int
    vocab_size: int


SIZES = {
    "mini": Size(hidden_size=32, layers=2, heads=2, vocab_size=320),  # for tests
    "tiny": Size(hidden_size=128, layers=4, heads=4, vocab_size=512),  # recipes/base/tiny.yaml
    "small": Size(hidden_size=192, layers=4, heads=3, vocab_size=4096),
    "medium": Size(hidden_size=256, layers=6, heads=4, vocab_size=8192),
}
"""`small` has 3.1 million parameters, `medium` 8.4; a quarter of them in the embedding, as in models of 0.1 to 0.5
billion."""

POSITIONS = 2048


def make(name: str, texts: list[str] | None = None) -> tuple[Any, Any]:
    """A float32 policy with sdpa attention, and its tokenizer.

    Args:
        name: One of `SIZES`, or a model's folder.
        texts: What a tokenizer from scratch learns from; without them a token is a word `w0`, `w1` and so on. The
            vocabulary is filled up with tokens that no text has.
    """
    if name not in SIZES:
        from posttrain.models.load import load_policy, load_tokenizer

        return load_policy(Path(name)), load_tokenizer(Path(name))
    from posttrain.models.load import build_model

    size = SIZES[name]
    tokenizer = word_tokenizer(size.vocab_size) if texts is None else text_tokenizer(texts, size.vocab_size)
    shape = {"hidden_size": size.hidden_size, "layers": size.layers, "heads": size.heads}
    return build_model(tokenizer, **shape, max_position_embeddings=POSITIONS), tokenizer


def word_tokenizer(vocab_size: int) -> Any:
    """One token a word, so that a text is as long as is asked for."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(vocab_size - 3))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def text_tokenizer(texts: list[str], vocab_size: int) -> Any:
    """A tokenizer trained on `texts`, filled up to `vocab_size` with tokens that no text has."""
    from posttrain.models.load import train_tokenizer

    tokenizer = train_tokenizer(texts, vocab_size=vocab_size)
    tokenizer.add_tokens([f"<unused-{number}>" for number in range(vocab_size - len(tokenizer))])
    return tokenizer
