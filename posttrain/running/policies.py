"""The models of a run: the base model, the policy that a stage begins from, and saving what a stage trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, PeftModel, get_peft_model

from posttrain.errors import ConfigError
from posttrain.inputs.ends import with_own_end
from posttrain.inputs.inputs import check_folder, hub_options, loading, policy_options
from posttrain.models.averaging import average
from posttrain.models.gguf_files import gguf_file
from posttrain.models.inference import without_router_logits
from posttrain.models.load import build_model, load_policy, load_tokenizer, tokenizer_from_rows
from posttrain.models.new_adapter import adapter_config
from posttrain.models.policy_weights import check_weights
from posttrain.models.rest import ADAPTER as REST_ADAPTER
from posttrain.models.rest import split
from posttrain.processes.ranks import Ranks
from posttrain.recipe.model_sections import LoraSection, MergeSection
from posttrain.recipe.recipe import Recipe
from posttrain.rundir.layout import REST, Layout
from posttrain.storage.checkpoints import staged
from posttrain.tasks import TaskData


class Policies:
    """Where a run's models come from.

    Args:
        recipe: The run's recipe.
        data: The task's rows, on whose texts a model from scratch gets its tokenizer.
        run_dir: Where a model from scratch or from a GGUF file is written, once.
        say: Takes a line for the user.
        ranks: The processes of the run, of which the main one writes.

    Attributes:
        source: The base model, a hub id or a folder.
        tokenizer: Its tokenizer.
        on_gpu: Whether the run computes on a GPU.
    """

    def __init__(
        self, recipe: Recipe, data: TaskData, run_dir: Layout, say: Callable[[str], None], ranks: Ranks | None = None
    ):
        self._recipe, self._dir, self._say, self._ranks = recipe, run_dir, say, ranks or Ranks()
        self.on_gpu = torch.cuda.is_available() and recipe.run.device != "cpu"
        self.source: str | Path = self._ranks.decided(lambda: self._base_model(data))
        self.tokenizer = self._ranks.together(
            lambda: with_own_end(load_tokenizer(self.source, **hub_options(recipe)), recipe)
        )

    def _base_model(self, data: TaskData) -> str | Path:
        """The recipe's model, written once into the run directory if it is a file or to be made from scratch."""
        section = self._recipe.model
        if section.merge is not None:
            return self._merged(section.merge)
        if section.init is None:
            file = gguf_file(section.gguf or section.name or "")
            return self._unpacked(file) if file else section.name or ""
        folder = self._dir.path / "init"
        if not folder.is_dir():
            init = section.init
            tokenizer = tokenizer_from_rows([*data.demonstrations, *data.train], init.vocab_size)
            sizes = init.model_dump(exclude={"vocab_size"})
            save_whole(folder, build_model(tokenizer, seed=self._recipe.run.seed, **sizes), tokenizer)
        return folder.resolve()  # an adapter keeps this path, and may be loaded from another working directory

    def _merged(self, merge: MergeSection) -> Path:
        folder = self._dir.path / "merged"
        if not folder.is_dir():
            ratios = merge.shares()
            parts = " + ".join(f"{ratio:.4g} * {model}" for ratio, model in zip(ratios, merge.models, strict=True))
            self._say(f"merging {parts} into {folder}")
            write_average(
                folder, merge.models, ratios, trust_remote_code=self._recipe.model.trust_remote_code,
                where=self._recipe.where("model.merge"),
            )  # fmt: skip
        return folder.resolve()

    def _unpacked(self, file: Path) -> Path:
        folder = self._dir.path / "base"
        if not folder.is_dir():
            self._say(f"unpacking {file.name} into {folder}")
            with loading(file, self._recipe.where("model")):
                save_whole(folder, load_policy(file), load_tokenizer(file))
        return folder.resolve()

    def load(self, source: str | Path) -> Any:
        """The policy of a folder or hub id, an adapter included; on all processes or on none."""
        return self._ranks.together(lambda: self._load(source))

    def old(self) -> Any:
        """The model before, of `warmup.muscle`, in the dtype of the policy; `None` without one."""
        section, where = self._recipe.warmup.muscle, self._recipe.where("warmup.muscle.old")
        if section is None:
            return None
        options = policy_options(self._recipe, on_gpu=self.on_gpu) | {"revision": section.revision}

        def loaded() -> Any:
            with loading(section.old, where):
                return load_policy(section.old, trainable=False, **options)

        return self._ranks.together(loaded)

    def _load(self, source: str | Path) -> Any:
        with loading(source, self._recipe.where("model")):
            return load_policy(source, **policy_options(self._recipe, on_gpu=self.on_gpu))

    def fresh(self) -> Any:
        """The policy that the first stage begins from: the base, with the recipe's new adapter if it has one."""
        lora = self._recipe.lora
        if not (lora and lora.splits_base):
            return self._with_adapter(self.load(self.source))
        folder = self._dir.path / REST
        self._ranks.decided(lambda: self._split(folder, lora))
        return self._checked(PeftModel.from_pretrained(self.load(folder), folder / REST_ADAPTER, is_trainable=True))

    def _split(self, folder: Path, lora: LoraSection) -> None:
        if folder.is_dir():
            return
        self._say(f"{lora.kind}: the adapter begins with a part of the base; what is left of it goes to {folder}")
        config = LoraConfig(**{**lora.peft_kwargs(), "init_lora_weights": lora.kind})
        with staged(folder.parent, folder.name) as staging, loading(self.source, self._recipe.where("model")):
            options = hub_options(self._recipe)
            split(self.source, config, staging / folder.name, named=folder.resolve(), **options)

    def _with_adapter(self, model: Any) -> Any:
        """The model with the recipe's new adapter, if it has one."""
        lora, section = self._recipe.lora, self._recipe.model
        if not lora:
            return model
        # The adapter remembers the revision, so that every later stage loads it on top of the same base
        adapted = get_peft_model(model, adapter_config(lora.peft_kwargs()), revision=section.revision)
        return self._checked(adapted)

    def _checked(self, adapted: Any) -> Any:
        if self._recipe.rollout.uses_vllm():
            check_weights(adapted)  # an adapter of a kind that vLLM cannot be sent is refused before it is trained
        self.check_average(adapted)
        return adapted

    def check_average(self, model: Any) -> None:
        """Refuse an average of checkpoints whose adapters cannot be added to their base, before any is written.

        Raises:
            ConfigError: With what to leave out.
        """
        if self._recipe.hybrid.average is None:
            return
        try:
            check_weights(model)
        except ConfigError as error:
            raise ConfigError(
                f"average, and {error.seen}", expected=error.expected, where=self._recipe.where("hybrid.average"),
                fix="leave it out, or train a plain adapter",
            ) from error  # fmt: skip


def write_average(
    folder: Path, sources: Sequence[str | Path], ratios: Sequence[float], *, trust_remote_code: bool, where: str
) -> None:
    """Write the weighted sum of models so that `folder` is there whole or not at all.

    Raises:
        ConfigError: Models that cannot be loaded, or that cannot be added to one another.
    """
    for source in sources:
        check_folder(source, where)
    told = partial(loading, where=where)
    with staged(folder.parent, folder.name) as staging:
        average(sources, ratios, staging / folder.name, trust_remote_code=trust_remote_code, loading=told)


def save_whole(
    folder: Path, model: Any, tokenizer: Any, *, ranks: Ranks | None = None, state_dict: dict[str, Any] | None = None
) -> None:
    """Save model and tokenizer so that `folder` is there whole or not at all.

    Args:
        folder: Where.
        model: A policy, or one with an adapter, of which the adapter alone is saved.
        tokenizer: Its tokenizer.
        ranks: The processes that call this; the main one writes, and what it fails by is raised on all.
        state_dict: The whole weights of a model that is sharded (`whole_state`), on the main process.
    """

    def write() -> None:
        with staged(folder.parent, folder.name) as staging, without_router_logits(model):
            # Of an adapter the one that trained, without TRL's frozen reference copy
            only: dict[str, Any] = {"selected_adapters": ["default"]} if isinstance(model, PeftModel) else {}
            if state_dict is not None:
                # Gathered, tied weights are copies, which save_pretrained would take for weights of their own
                tied = getattr(model, "all_tied_weights_keys", None) or {}
                only["state_dict"] = {name: value for name, value in state_dict.items() if name not in tied}
            model.save_pretrained(staging / folder.name, **only)
            tokenizer.save_pretrained(staging / folder.name)

    (ranks or Ranks()).decided(write)


def whole_state(trainer: Any) -> dict[str, Any] | None:
    """The whole weights of a trainer's model where it is sharded, on the main process; every process must ask.

    `None` where each process has the model whole.
    """
    accelerator = trainer.accelerator
    if accelerator.distributed_type not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return None
    return accelerator.get_state_dict(trainer.model_wrapped)
