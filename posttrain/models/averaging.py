"""Several models of one architecture as one: the weighted sum of their weights, in float32.

Weights that two names share (a tied LM head) are added once, under the name that checkpoints give them, and so is each
buffer. An adapter is added to its base first, so that what is averaged are models and not factors: the mean of B times
the mean of A is not the mean of BA. Of a model of ratio 0 nothing is added, and a ratio of 1 alone gives its weights
bit for bit.

Which ratios is `recipe.ratios`'.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict

from posttrain.errors import ConfigError
from posttrain.models.ends import declare_end
from posttrain.models.load import load_policy, load_tokenizer
from posttrain.models.policy_weights import base_model, check_weights, is_tied, named_weights
from posttrain.recipe.ratios import check_ratios

SHARD = "5GB"
OF_NO_EFFECT = {
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "max_position_embeddings",
    "pad_token_id", "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip
"""What configurations may differ in: what is computed of given tokens does not depend on it."""


def average(
    sources: Sequence[str | Path],
    ratios: Sequence[float],
    folder: Path,
    *,
    trust_remote_code: bool = False,
    loading: Callable[[str | Path], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Write the weighted sum of models, and the tokenizer and the configuration of the first.

    Args:
        sources: Hub ids, folders (with an adapter, too) or GGUF files.
        ratios: As many; their sum is 1.
        folder: Where.
        trust_remote_code: Of the models.
        loading: Given a source, the context that it is loaded in, which tells what went wrong.

    Raises:
        ConfigError: Models that cannot be added to one another, with what they differ in.
    """
    check_ratios(sources, ratios, "ratios")
    tokenizers = []
    for source in sources:
        with loading(source):
            tokenizers.append(load_tokenizer(source, trust_remote_code=trust_remote_code))
    tokenizer = tokenizers[0]
    for source, other in zip(sources[1:], tokenizers[1:], strict=True):
        _check_vocabulary(tokenizer, other, sources[0], source)
    total: dict[str, torch.Tensor] = {}
    first: Any = None
    for place, (source, ratio) in enumerate(zip(sources, ratios, strict=True)):
        if place and not ratio:
            continue
        with loading(source):
            model = load_policy(source, trainable=False, trust_remote_code=trust_remote_code)
        try:
            check_weights(model)
        except ConfigError as error:
            raise ConfigError(
                error.seen, expected=error.expected, where=str(source),
                fix="add it to its base first: PEFT's merge_and_unload, or posttrain export --merge-lora of a run",
            ) from error  # fmt: skip
        plain = _Plain(model)
        if first is None:
            first = plain
        else:
            _check_alike(first, plain, sources[0], source)
        _add(total, model, ratio, source, exact=sum(map(bool, ratios)) == 1)
        del model
        gc.collect()  # two models at a time are enough
    declare_end(first, tokenizer)
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(total, folder, max_shard_size=SHARD)
    first.config.save_pretrained(folder)
    if first.generation_config is not None:
        first.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class _Plain:
    """What is kept of the first model beside its weights, and compared with the others."""

    def __init__(self, model: Any):
        base = base_model(model)
        self.config, self.generation_config = base.config, getattr(base, "generation_config", None)
        self.config.tie_word_embeddings = is_tied(model)
        self.shapes = {name: tuple(value.shape) for name, value in _values(model, adapters=False)}

    def facts(self) -> dict[str, Any]:
        """What decides on what is computed of the weights."""
        return {key: value for key, value in self.config.to_dict().items() if key not in OF_NO_EFFECT}


def _values(model: Any, *, adapters: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight once, and the buffers that checkpoints have."""
    seen = set()
    for name, value in named_weights(model, with_adapters=adapters):
        seen.add(name)
        yield name, value
    base = base_model(model)
    saved = base.state_dict().keys()
    for name, value in base.named_buffers():
        if name in saved and name not in seen:
            yield name.replace(".base_layer.", "."), value


def _add(total: dict[str, torch.Tensor], model: Any, ratio: float, source: Any, *, exact: bool) -> None:
    for name, value in _values(model):
        if not value.is_floating_point():
            if not torch.equal(total.setdefault(name, value.clone()), value):
                seen = f"the models hold other integers in {name}"
                raise ConfigError(seen, expected="models that differ in weights", where=str(source))
            continue
        if not ratio:  # even 0 times what is not finite is something
            continue
        if bool(value.isnan().any()):
            raise ConfigError(
                f"{name} has values that are NaN", expected="weights that are numbers", where=str(source),
                fix="leave the model out, or take an earlier checkpoint of it",
            )  # fmt: skip
        part = value.float().clone() if exact else value.float() * ratio
        total[name] = total[name].add_(part) if name in total else part


def _check_vocabulary(one: Any, other: Any, first: Any, source: Any) -> None:
    if one.get_vocab() != other.get_vocab():
        apart = len(set(one.get_vocab().items()) ^ set(other.get_vocab().items()))
        raise ConfigError(
            f"{source} has another vocabulary than {first}: {apart} entries differ",
            expected="models of one tokenizer: a token's row of the embedding must stand for the same token",
            where=str(source),
        )


def _check_alike(first: _Plain, other: _Plain, name: Any, source: Any) -> None:
    ours, theirs = first.facts(), other.facts()
    apart = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if apart:
        seen = ", ".join(f"{key} {theirs.get(key)!r}, not {ours.get(key)!r}" for key in apart[:3])
    elif first.shapes != other.shapes:
        odd = sorted(key for key in first.shapes.keys() | other.shapes.keys()
                     if first.shapes.get(key) != other.shapes.get(key))  # fmt: skip
        seen = f"{odd[0]} is {other.shapes.get(odd[0], 'not there')}, not {first.shapes.get(odd[0], 'there')}"
    else:
        return
    raise ConfigError(
        f"{source} is another architecture than {name}: {seen}",
        expected="models that differ in their weights alone",
        where=str(source),
        fix="leave it out",
    )
