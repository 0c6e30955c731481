"""The sections of a recipe that say what to train: the model, and an adapter on it. Importing this loads no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_kinds import check_kind
from posttrain.recipe.library_fields import LORA_ELSEWHERE, check_args
from posttrain.recipe.section import Positive, Section, Share, Size

GGUF_SUFFIX = ".gguf"
"""Ends the name of a model that is one file."""


class InitSection(Section):
    """A small Llama-style model built from scratch, with a tokenizer trained on the task's own texts.

    Args:
        hidden_size: Width of the residual stream.
        layers: Decoder layers.
        heads: Attention heads.
        intermediate_size: Width of the gated MLP; null takes 4 x hidden_size.
        vocab_size: Upper bound of the vocabulary, the 256 bytes and two special tokens included.
        max_position_embeddings: Longest sequence, prompt and completion together.
    """

    hidden_size: Size = 128
    layers: Size = 4
    heads: Size = 4
    intermediate_size: Size | None = None
    vocab_size: Annotated[int, Field(ge=258)] = 512
    max_position_embeddings: Size = 1024

    @model_validator(mode="after")
    def _heads_divide(self) -> InitSection:
        step = 2 * self.heads
        if self.hidden_size % step:
            below, above = self.hidden_size // step * step, -(-self.hidden_size // step) * step
            raise ConfigError(
                f"hidden_size {self.hidden_size} with {self.heads} heads",
                expected=f"a multiple of {step}: rotary embeddings need heads of an even size",
                fix="set hidden_size to " + " or ".join(str(size) for size in (below, above) if size),
            )
        return self


class ModelSection(Section):
    """The model to train. `model: NAME` is short for `model: {name: NAME}`.

    Args:
        name: A hub id, a local folder, or `smollm2-135m-instruct`: a model that an installed package brings.
        gguf: A file, dequantised into the run directory. A relative path starts at the folder of the recipe that
            names it. `model: FILE.gguf` is short.
        init: A small model built from scratch.
        revision: Of a hub id, as the next three keys are transformers'.
        trust_remote_code: Run code that comes with the model: its own classes, a tokenizer's, kernels of the hub.
        load_in_4bit: Hold the linear layers in 4 bits, under an adapter that trains (QLoRA); as the next two keys,
            named as in `trl.ModelConfig`.
        use_bnb_nested_quant: Hold the scales of the 4-bit numbers in 8 bits.
    """

    name: str | None = None
    gguf: str | None = None
    init: InitSection | None = None
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    load_in_4bit: bool = False
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    use_bnb_nested_quant: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        named = [key for key in ("name", "gguf", "init") if getattr(self, key)]
        if len(named) != 1:
            raise ConfigError(
                f"the model has {' and '.join(named)}" if named else "the model has neither name nor gguf nor init",
                expected="one of name (a hub id or a local folder), gguf (a file) or init (built from scratch)",
            )
        return self

    @model_validator(mode="after")
    def _whole_before_four_bits(self) -> ModelSection:
        if self.load_in_4bit and (self.gguf or (self.name or "").lower().endswith(GGUF_SUFFIX)):
            raise ConfigError(
                "load_in_4bit, and a GGUF file: its weights were rounded once, and would be again, to other numbers",
                expected="the weights that the file was made from: a hub id, or a folder",
                fix="name those as model.name, or leave load_in_4bit out: the file is dequantised, then",
            )
        return self

    @model_validator(mode="after")
    def _kernel_is_code(self) -> ModelSection:
        if self.attn_implementation and "/" in self.attn_implementation and not self.trust_remote_code:
            raise ConfigError(
                f"attn_implementation {self.attn_implementation!r} is a kernel of the hub: code that is downloaded",
                expected="one that transformers brings, such as sdpa, eager or flash_attention_2",
                fix="set model.trust_remote_code: true if you trust its owner",
            )
        return self


class LoraSection(Section):
    """A low-rank adapter instead of full fine-tuning; names and meaning as in `peft.LoraConfig`.

    `args` takes any other of its fields.
    """

    r: Size = 16
    lora_alpha: Positive = 32
    lora_dropout: Share = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    use_rslora: bool = False
    args: dict[str, Any] = {}

    @field_validator("args")
    @classmethod
    def _known(cls, args: dict[str, Any]) -> dict[str, Any]:
        return check_args(args, "peft.LoraConfig", set(cls.model_fields), LORA_ELSEWHERE)

    @model_validator(mode="after")
    def _stays_the_same(self) -> LoraSection:
        try:
            check_kind(self.args, self.target_modules)
        except ConfigError as error:
            within = "" if error.where in type(self).model_fields else "args."
            raise ConfigError(
                error.seen, expected=error.expected, where=f"{within}{error.where}", fix=error.fix
            ) from error
        return self

    def peft_kwargs(self) -> dict[str, Any]:
        """The arguments of `peft.LoraConfig`."""
        return {"task_type": "CAUSAL_LM", **self.model_dump(exclude={"args"}), **self.args}
