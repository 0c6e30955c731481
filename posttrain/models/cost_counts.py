"""The work of a step, counted: what `cost` multiplies with coefficients. Pure arithmetic on shapes and lengths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from posttrain.errors import ConfigError

PARTS = ("training", "logprobs", "optimizer", "sft", "generation")
"""Parts of a step that are measured."""

UNGATED = ("gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "phi", "falcon", "starcoder2")
"""Model types whose MLP has two matrices; all others are taken to have the gate as a third."""
HEAD_TILE = (4096, 32768)
"""Positions and vocabulary of the largest piece of logits that TRL's fused head makes at once."""
QKV_BIASED, QK_NORMED = ("qwen2",), ("qwen3",)
"""Model types with biases at q, k and v whatever the configuration says, and with norms on each head's q and k."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a dense decoder-only transformer.

    Attributes:
        layers: Decoder layers.
        hidden: Width of the residual stream.
        intermediate: Width of the MLP.
        heads: Query heads.
        kv_heads: Key and value heads.
        head_dim: Width of a head.
        vocab: Tokens in the vocabulary, rows of the head.
        parameters: All of them, the embedding once where the head shares it.
        gated: The MLP has a gate, and so three matrices.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    parameters: int
    gated: bool = True

    @classmethod
    def of(cls, config: Any) -> ModelShape:
        """The shape that a configuration of transformers (or anything with its attributes) describes.

        `parameters` is exact for Llama, Mistral, Qwen2 and Qwen3, and near for other dense models.

        Raises:
            ConfigError: A mixture of experts, of which each token sees a part.
        """
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        kind = getattr(config, "model_type", "")
        for name in ("num_local_experts", "num_experts", "n_routed_experts"):
            if getattr(config, name, None):
                raise ConfigError(
                    f"a mixture of experts ({name}={getattr(config, name)})",
                    expected="a dense model: how many experts a position costs is not counted",
                    where="model",
                )
        hidden, layers, heads = config.hidden_size, config.num_hidden_layers, config.num_attention_heads
        shape = cls(
            layers=layers,
            hidden=hidden,
            intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            vocab=config.vocab_size,
            parameters=0,
            gated=kind not in UNGATED,
        )
        embedding = shape.vocab * hidden * (1 if getattr(config, "tie_word_embeddings", False) else 2)
        small = 2 * hidden  # the layer's two norms
        query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        if getattr(config, "attention_bias", False) or kind in QKV_BIASED:
            small += query + 2 * key + (0 if kind in QKV_BIASED else hidden)
        if getattr(config, "mlp_bias", False):
            small += (2 if shape.gated else 1) * shape.intermediate + hidden
        if kind in QK_NORMED:
            small += 2 * shape.head_dim
        parameters = embedding + layers * small + shape.linear_weights + hidden
        return cls(**{**shape.__dict__, "parameters": parameters})

    @property
    def linear_weights(self) -> int:
        """Weights of all layers' matrices: q, k, v, o and the MLP's; neither embedding nor head."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + (3 if self.gated else 2) * self.hidden * self.intermediate)


@dataclass(frozen=True, kw_only=True)
class StepWork:
    """What one process does in one optimizer step. Lengths are in tokens; a step without GRPO has 0 rows.

    Attributes:
        rows: Completions, sampled and scored.
        group: Completions per prompt, G.
        prompt: Mean length of a prompt.
        completion: Mean length of a completion.
        spread: Coefficient of variation of the completions' lengths (standard deviation over mean).
        longest: Longest completion; 0: the mean.
        dropped: Share of the rows that are not trained on, their advantage being 0; whole groups.
        micro_batch: Rows of a micro-batch, as TRL cuts them (`per_device_train_batch_size`).
        packed: Rows without padding, each group's prompt encoded once a micro-batch; False: as TRL, padded, in
            either half.
        logprob_rows: Rows that pass through the model without gradients (old or reference log-probabilities, the KL).
        checkpointing: Activations are computed again in the backward pass.
        trainable: Parameters that are trained; None: all.
        weight_bytes: Of one weight.
        reward_seconds: Of scoring one completion, divided by the workers that score at once.
        demonstrations: Rows of the step's SFT half.
        demonstration: Mean length of one, prompt included.
        demonstration_batch: Rows of an SFT micro-batch.
        demonstration_width: Where rows are padded, the longest of a micro-batch; 0: the mean.
        labels: Share of a demonstration's tokens that have a label.
    """

    rows: int = 0
    group: int = 1
    prompt: float = 0.0
    completion: float = 0.0
    spread: float = 0.0
    longest: float = 0.0
    dropped: float = 0.0
    micro_batch: int = 1
    packed: bool = True
    logprob_rows: float = 0.0
    checkpointing: bool = False
    trainable: int | None = None
    weight_bytes: int = 4
    reward_seconds: float = 0.0
    demonstrations: int = 0
    demonstration: float = 0.0
    demonstration_batch: int = 1
    labels: float = 1.0
    demonstration_width: float = 0.0

    @property
    def width(self) -> float:
        """Length of the longest completion."""
        return self.longest or self.completion


@dataclass(frozen=True)
class Passes:
    """Calls of a model, counted together.

    Attributes:
        positions: Tokens that pass through the layers, padding included.
        scored: Positions at which the head is applied.
        pairs: (query, key) pairs that attention computes.
        calls: Calls.
        rows: Sequences in them.
        largest: Share of the positions that the largest call has.
    """

    positions: float
    scored: float
    pairs: float
    calls: float
    rows: float
    largest: float = 1.0


def training_passes(work: StepWork) -> Passes:
    """The GRPO half's passes with gradients.

    Padded: every row is as long as the longest prompt and completion. Packed: rows whose advantage is 0 are left out,
    and the others go into as few passes as keep to the positions of a padded micro-batch, whole groups where these do.
    A group's prompt passes once, and again in each further pass that the group is spread over; of a prompt's and a
    completion's own pairs attention computes those below the diagonal.
    """
    prompt, mean, width = work.prompt, work.completion, work.width
    if not work.packed:
        length, calls = prompt + width, work.rows / max(1, work.micro_batch)
        return Passes(
            work.rows * length, work.rows * width, work.rows * length**2, calls, work.rows, 1 / max(1.0, calls)
        )
    kept = work.rows * (1 - work.dropped)
    groups = kept / max(1, work.group)
    if not kept:
        return Passes(0.0, 0.0, 0.0, 0.0, 0.0)
    budget = max(1.0, work.micro_batch * (prompt + width))
    of_group = max(1.0, prompt + work.group * mean)
    if of_group <= budget:
        calls = math.ceil(groups / (budget // of_group))
        largest = math.ceil(groups / calls) * of_group
    else:
        calls, largest = math.ceil(groups * of_group / budget), budget  # filled one after the other
    prompts = max(groups, calls)
    positions = prompts * prompt + kept * mean
    squares = kept * mean**2 * (1 + work.spread**2)
    pairs = prompts * prompt**2 / 2 + kept * mean * prompt + squares / 2
    return Passes(positions, kept * mean, pairs, calls, kept, min(1.0, largest / max(1.0, positions)))


def logprob_passes(work: StepWork) -> Passes:
    """Passes without gradients. Packed rows are few of each group, so that no prompt is shared."""
    rows, length = work.logprob_rows, work.prompt + work.width
    if not work.packed:
        return Passes(rows * length, rows * work.width, rows * length**2, rows / max(1, work.micro_batch), rows)
    mean = work.prompt + work.completion
    squares = mean**2 + (work.spread * work.completion) ** 2
    calls = rows * mean / max(1.0, work.micro_batch * length)
    return Passes(rows * mean, rows * work.completion, rows * squares / 2, calls, rows)


def prefill_passes(work: StepWork) -> Passes:
    """One call with each prompt once; the head at the last position."""
    prompts = work.rows / max(1, work.group)
    return Passes(prompts * work.prompt, prompts, prompts * work.prompt**2 / 2, float(work.rows > 0), prompts)


def sft_passes(work: StepWork) -> Passes:
    """The SFT half's passes with gradients: demonstrations one after another; padded: each as long as the longest."""
    rows, length = work.demonstrations, work.demonstration
    calls = rows / max(1, work.demonstration_batch)
    scored = rows * length * work.labels
    if not work.packed:
        width = work.demonstration_width or length
        return Passes(rows * width, rows * width, rows * width**2, calls, rows, 1 / max(1.0, calls))
    return Passes(rows * length, scored, rows * length**2 / 2, calls, rows, 1 / max(1.0, calls))


def pass_counts(shape: ModelShape, passes: Passes, *, backward: bool, checkpointing: bool = False) -> dict[str, float]:
    """What passes of a model take.

    Args:
        shape: Of the model.
        passes: What passes through it.
        backward: With gradients: 3 times a forward pass, 4 times with checkpointing. The head always takes 4, for TRL's
            fused head keeps no logits and computes them again.
        checkpointing: The layers' forward pass is repeated.

    Returns:
        matrix: operations of linear layers, 2 x weights x positions, and of the head, 2 x hidden x vocab x scored.
        attention: operations, 4 x layers x heads x head_dim x pairs.
        elements: numbers that norms, rotations, residuals and activations touch: layers x (hidden + intermediate) x
            positions.
        logits: numbers in the head's softmax, vocab x scored.
        spans: layers x sequences, each of which attention takes by itself.
        calls: calls of a layer, layers x calls: what dispatching costs.
    """
    times = (4 if checkpointing else 3) if backward else 1
    head = (4 if backward else 1) * passes.scored
    return {
        "matrix": 2.0 * shape.linear_weights * passes.positions * times + 2.0 * shape.hidden * shape.vocab * head,
        "attention": 4.0 * shape.layers * shape.heads * shape.head_dim * passes.pairs * times,
        "elements": float(shape.layers * (shape.hidden + shape.intermediate)) * passes.positions * times,
        "logits": shape.vocab * head,
        "spans": shape.layers * passes.rows * times,
        "calls": shape.layers * passes.calls * times,
    }


def decode_counts(shape: ModelShape, work: StepWork) -> dict[str, float]:
    """What sampling takes after prefill: as many steps as the longest completion has tokens, each over the rows that
    have not ended.

    Returns:
        matrix: operations, 2 x (linear weights + head) per token.
        cache: bytes of keys and values read, 4 x 2 x layers x kv_heads x head_dim x the tokens before each token.
        elements: as in `pass_counts`, per token.
        logits: numbers in the sampler's softmax and cumulative sum, vocab per token.
        calls: calls of a layer, layers x steps.
        weights: bytes of weights read, once a step.
    """
    tokens, steps = work.rows * work.completion, work.width if work.rows else 0.0
    context = tokens * work.prompt + work.rows * work.completion**2 * (1 + work.spread**2) / 2
    return {
        "matrix": 2.0 * (shape.linear_weights + shape.hidden * shape.vocab) * tokens,
        "cache": 8.0 * shape.layers * shape.kv_heads * shape.head_dim * context,
        "elements": float(shape.layers * (shape.hidden + shape.intermediate)) * tokens,
        "logits": float(shape.vocab) * tokens,
        "calls": shape.layers * steps,
        "weights": float(shape.parameters * work.weight_bytes) * steps,
    }


def time_counts(part: str, shape: ModelShape, work: StepWork) -> dict[str, float]:
    """The counts that a part's seconds are made of, by name.

    Args:
        part: One of `PARTS`, or `prefill`, whose coefficients are those of `logprobs`.
        shape: Of the model.
        work: Of the step.
    """
    if part == "training":
        return pass_counts(shape, training_passes(work), backward=True, checkpointing=work.checkpointing)
    if part == "sft":
        return pass_counts(shape, sft_passes(work), backward=True, checkpointing=work.checkpointing)
    if part == "logprobs":
        return pass_counts(shape, logprob_passes(work), backward=False)
    if part == "prefill":
        return pass_counts(shape, prefill_passes(work), backward=False)
    if part == "generation":
        return decode_counts(shape, work)
    trained = shape.parameters if work.trainable is None else work.trainable
    busy = float(bool(work.rows or work.demonstrations))
    # AdamW reads and writes a weight, its gradient and two moments; and clipping reads the gradients once more
    return {"parameters": trained * busy, "tensors": shape.layers * busy}


def memory_counts(part: str, shape: ModelShape, work: StepWork) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes of a peak: those that are certain, and counts with coefficients for the rest.

    Args:
        part: `training`, `sft` or `generation`.
        shape: Of the model.
        work: Of the step.

    Returns:
        Certain: weights; in training a gradient and two float32 moments per trained parameter. To be weighed, in units
        of 4 bytes: activations, layers x (hidden + intermediate) x positions of the largest pass, with checkpointing
        (layers x hidden + hidden + intermediate) x positions, and of one layer in prefill; logits, the largest piece
        that the head makes (`HEAD_TILE`), or vocab x rows in sampling; cache, keys and values of all rows at their
        longest, in weights' bytes; other, a constant.
    """
    known = {"weights": float(shape.parameters * work.weight_bytes)}
    if part == "generation":
        cache = 2.0 * work.weight_bytes * shape.layers * shape.kv_heads * shape.head_dim
        return known, {
            "cache": cache * work.rows * (work.prompt + work.width),
            "activations": 4.0 * (shape.hidden + shape.intermediate) * prefill_passes(work).positions,
            "logits": 4.0 * shape.vocab * work.rows,
            "other": 1.0,
        }
    trained = shape.parameters if work.trainable is None else work.trainable
    known |= {"gradients": float(trained * work.weight_bytes), "optimizer": 8.0 * trained}
    passes = sft_passes(work) if part == "sft" else training_passes(work)
    positions, scored = passes.positions * passes.largest, passes.scored * passes.largest
    inner = shape.hidden + shape.intermediate
    kept = shape.layers * shape.hidden + inner if work.checkpointing else shape.layers * inner
    tile = min(scored, HEAD_TILE[0]) * min(shape.vocab, HEAD_TILE[1])
    return known, {"activations": 4.0 * kept * positions, "logits": 4.0 * tile, "other": 1.0}
