"""The sections of a recipe that say what to train: the model, and an adapter on it. Importing this loads no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from posttrain.errors import ConfigError
from posttrain.recipe.adapter_kinds import KIND_FIELDS, NOT_OF_ADALORA, SPLITS_BASE, check_kind
from posttrain.recipe.library_fields import LORA_ELSEWHERE, check_args
from posttrain.recipe.ratios import bai_of, check_ratios
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


class MergeSection(Section):
    """Several models of one architecture and tokenizer as one, the weighted sum of their weights.

    Args:
        models: Hub ids or folders, without an adapter. The first one's tokenizer and configuration are taken.
        ratios: One each, with the sum 1.
        bai: In place of ratios, of an instruct, a distilled and a pretrained model: alpha and beta of
            beta * (alpha * instruct + (1 - alpha) * distilled) + (1 - beta) * pretrained.
    """

    models: Annotated[list[str], Field(min_length=2)]
    ratios: list[float] | None = None
    bai: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> MergeSection:
        if (self.ratios is None) == (self.bai is None):
            seen = "neither ratios nor bai" if self.ratios is None else "ratios and bai"
            raise ConfigError(seen, expected="one of them", fix="set ratios: [0.5, 0.5]")
        check_ratios(self.models, self.shares(), "ratios")
        return self

    def shares(self) -> list[float]:
        """The ratio of each model."""
        return list(self.ratios) if self.ratios is not None else bai_of(self.models, self.bai or [], "bai")


class ModelSection(Section):
    """The model to train. `model: NAME` is short for `model: {name: NAME}`.

    Args:
        name: A hub id, a local folder, or `smollm2-135m-instruct`: a model that an installed package brings.
        gguf: A file, dequantised into the run directory. A relative path starts at the folder of the recipe that
            names it. `model: FILE.gguf` is short.
        init: A small model built from scratch.
        merge: Several models as one, written into the run directory; `name` is then the first of them.
        revision: Of a hub id, as the next three keys are transformers'.
        trust_remote_code: Run code that comes with the model: its own classes, a tokenizer's, kernels of the hub.
        load_in_4bit: Hold the linear layers in 4 bits, under an adapter that trains (QLoRA); as the next two keys,
            named as in `trl.ModelConfig`.
        use_bnb_nested_quant: Hold the scales of the 4-bit numbers in 8 bits.
    """

    name: str | None = None
    gguf: str | None = None
    init: InitSection | None = None
    merge: MergeSection | None = None
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
        if isinstance(value, str):
            return {"name": value}
        merged = value.get("merge") if isinstance(value, dict) else None
        models = merged.get("models") if isinstance(merged, dict) else None
        # What is asked of the model before it is there is asked of the first
        return {"name": models[0], **_given(value)} if isinstance(models, list) and models else value

    @model_validator(mode="after")
    def _one_source(self) -> ModelSection:
        if self.merge:
            self._check_merge(self.merge)
        named = [key for key in ("name", "gguf", "init") if getattr(self, key)]
        if len(named) != 1:
            raise ConfigError(
                f"the model has {' and '.join(named)}" if named else "the model has neither name nor gguf nor init",
                expected="one of name (a hub id or a local folder), gguf (a file), init (built from scratch) and merge "
                "(of several)",
            )
        return self

    def _check_merge(self, merge: MergeSection) -> None:
        adapters = [each for each in merge.models if (Path(each).expanduser() / "adapter_config.json").is_file()]
        if adapters:
            raise ConfigError(
                f"merge of {adapters[0]}, an adapter", expected="whole models",
                fix="posttrain merge adds adapters to their bases: name the folder that it writes",
            )  # fmt: skip
        if self.revision or self.name not in (None, merge.models[0]):
            seen = "revision" if self.revision else f"name: {self.name}"
            raise ConfigError(f"merge, and {seen}", expected="merge by itself", fix=f"leave {seen.split(':')[0]} out")

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

    `args` takes any other of its fields. `kind` is one of PEFT's by name; `pissa` and `olora` begin with a part of the
    base's weights, and what is left of them is written into the run's directory, as the base of its adapter. Of
    `adalora` `r` is the rank that is left on average; `args` has `init_r` (1.5 r), `tinit`, `tfinal`, `deltaT`.
    """

    kind: Literal["lora", "rslora", "dora", "mica", "pissa", "olora", "adalora"] = "lora"
    r: Size = 16
    lora_alpha: Positive = 32
    lora_dropout: Share = 0.0
    target_modules: Literal["all-linear"] | list[str] = "all-linear"
    modules_to_save: list[str] | None = None
    use_rslora: bool = False
    args: dict[str, Any] = {}

    @field_validator("args")
    @classmethod
    def _known(cls, args: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        config = "peft.AdaLoraConfig" if info.data.get("kind") == "adalora" else "peft.LoraConfig"
        return check_args(args, config, set(cls.model_fields), {**LORA_ELSEWHERE, "target_r": "r, outside args"})

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

    @model_validator(mode="after")
    def _said_once(self) -> LoraSection:
        decided = KIND_FIELDS[self.kind] | (dict.fromkeys(["init_lora_weights"]) if self.splits_base else {})
        twice = [name for name in decided if name in self.args]
        if twice:
            raise ConfigError(
                f"kind: {self.kind}, and args.{twice[0]}: {self.args[twice[0]]!r}", expected="one of them",
                fix=f"leave args.{twice[0]} out",
            )  # fmt: skip
        if self.kind == "adalora":
            self._check_adalora()
        if self.splits_base and (odd := [name for name in ("use_dora", "bias") if self.args.get(name)]):
            raise ConfigError(
                f"kind: {self.kind}, and args.{odd[0]}", expected="a plain adapter on what is left of the base",
                fix=f"leave args.{odd[0]} out",
            )  # fmt: skip
        return self

    def _check_adalora(self) -> None:
        odd = [name for name in NOT_OF_ADALORA if name in self.args] + ["use_rslora"] * self.use_rslora
        if odd:
            raise ConfigError(
                f"kind: adalora, and {odd[0]}", expected="what AdaLoRA has", fix=f"leave {odd[0]} out",
            )  # fmt: skip
        for name, least in {"tinit": 0, "tfinal": 0, "deltaT": 1, "init_r": 1}.items():
            value = self.args.get(name, least)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"args.{name}: {value!r}", expected=f"a whole number, {least} or more", fix=f"leave args.{name} out"
                )
        weight = self.args.get("orth_reg_weight", 0.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0.0 <= weight < float("inf"):
            raise ConfigError(
                f"args.orth_reg_weight: {weight!r}", expected="a number, 0 or more", fix="leave it out, which is 0.5"
            )
        if not self.init_r > self.r:
            raise ConfigError(
                f"init_r: {self.init_r}, and r: {self.r}", expected="more ranks at first than are left",
                fix=f"set args.init_r: {self.r * 3 // 2 + 1}",
            )  # fmt: skip

    def _of_adalora(self) -> dict[str, Any]:
        return {name: value for name, value in self.args.items() if name != "orth_reg_weight"}

    @property
    def init_r(self) -> int:
        """The rank that each layer of an AdaLoRA adapter begins with."""
        return int(self.args.get("init_r") or -(-3 * self.r // 2))

    @property
    def splits_base(self) -> bool:
        """Whether the adapter begins with a part of the base's weights."""
        return self.kind in SPLITS_BASE

    def peft_kwargs(self) -> dict[str, Any]:
        """The arguments of `peft.LoraConfig`, as the adapter trains."""
        plain = self.model_dump(exclude={"args", "kind"})
        if self.kind == "adalora":
            plain |= {"target_r": plain.pop("r"), "init_r": self.init_r, "orth_reg_weight": 0.0, "total_step": 1 << 30}
            return {"task_type": "CAUSAL_LM", **plain, **KIND_FIELDS[self.kind], **self._of_adalora()}
        return {"task_type": "CAUSAL_LM", **plain, **KIND_FIELDS[self.kind], **self.args}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Without a name that is null."""
    return {key: value for key, value in values.items() if key != "name" or value is not None}
