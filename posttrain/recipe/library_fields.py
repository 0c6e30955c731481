"""The field names of other libraries' config classes, read from their source, for none of them imports without torch.

A recipe passes what it has no key for straight to TRL and PEFT (`args`). Checking those names here finds a misspelt
one in milliseconds instead of after a model was loaded.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

from posttrain.errors import ConfigError
from posttrain.nearest import did_you_mean
from posttrain.recipe.optimizers import check_optim, check_optim_args
from posttrain.recipe.trl_fields import WITHOUT_EFFECT

TRAINING_ARGUMENTS = (
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
)
SOURCES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "trl.SFTConfig": (("trl", "trainer/sft_config.py", "SFTConfig"), *TRAINING_ARGUMENTS),
    "trl.GRPOConfig": (("trl", "trainer/grpo_config.py", "GRPOConfig"), *TRAINING_ARGUMENTS),
    "peft.LoraConfig": (
        ("peft", "tuners/lora/config.py", "LoraConfig"),
        ("peft", "config.py", "PeftConfig"),
        ("peft", "config.py", "PeftConfigMixin"),
    ),
    "peft.AdaLoraConfig": (
        ("peft", "tuners/adalora/config.py", "AdaLoraConfig"),
        ("peft", "tuners/lora/config.py", "LoraConfig"),
        ("peft", "config.py", "PeftConfig"),
        ("peft", "config.py", "PeftConfigMixin"),
    ),
}
"""Config class -> where it and its bases are defined: package, file, class."""

DECIDED_ELSEWHERE = {
    "accelerator_config": "accelerate launch --config_file",
    "auto_find_batch_size": "per_device_train_batch_size: another batch would be another recipe",
    "chat_template_path": "the model, whose tokenizer brings its template",
    "data_seed": "run.seed",
    "ddp_backend": "run.device: NCCL on GPUs, gloo on a CPU",
    "ddp_timeout": "run.process_timeout_s, how long processes wait for each other",
    "deepspeed": "accelerate launch --config_file",
    "disable_tqdm": "the toolkit itself",
    "do_eval": "evaluate.every",
    "enable_jit_checkpoint": "the toolkit itself: a stop saves",
    "eval_steps": "evaluate.every",
    "eval_strategy": "evaluate.every",
    "fsdp": "accelerate launch --config_file",
    "fsdp_config": "accelerate launch --config_file",
    "generation_batch_size": "hybrid.grpo.steps_per_generation",
    "local_rank": "the launcher",
    "logging_first_step": "the toolkit itself: steps.jsonl has every step",
    "logging_nan_inf_filter": "the toolkit itself: steps.jsonl has every loss as it was",
    "logging_steps": "run.log_every",
    "logging_strategy": "the toolkit itself: steps.jsonl has every step",
    "max_steps": "steps, outside args",
    "model_init_kwargs": "model",
    "num_train_epochs": "steps, outside args",
    "output_dir": "run.dir",
    "pad_token": "the model, whose tokenizer brings it",
    "parallelism_config": "accelerate launch --config_file",
    "project": "run.tracking.project",
    "report_to": "run.report_to",
    "restore_callback_states_from_checkpoint": "the toolkit itself: a resumed run restores what training depends on",
    "resume_from_checkpoint": "the --resume flag",
    "reward_weights": "the weight of each of rewards",
    "run_name": "run.tracking.name",
    "save_strategy": "save_steps, outside args",
    "seed": "run.seed",
    "trust_remote_code": "model.trust_remote_code",
    "use_cpu": "run.device",
    "use_vllm": "rollout.engine",
    "vllm_server_host": "rollout.server_base_url",
    "vllm_server_port": "rollout.server_base_url",
    "vllm_server_timeout": "rollout.time_limit_s",
    **{
        f"vllm_{name}": f"rollout.{name}"
        for name in ("mode", "server_base_url", "gpu_memory_utilization", "max_model_length", "enable_sleep_mode")
    },
}
"""Fields of the TRL configs that a recipe decides under another name."""

SENDS = "it would send what the run makes to another machine, and a recipe is only read"
RUNS_CODE = "it names code to import or a pickle to load, and a recipe is only read"
REFUSED = {
    "average_tokens_across_devices": "a step's loss is the mean over the tokens of all processes, in both stages",
    "ignore_data_skip": "a run that is resumed would train on its first rows again",
    "packing": "a step would take other demonstrations than the stages count; warmup.packed saves the padding",
    "remove_unused_columns": "rewards take the columns of the rows",
    "save_only_model": "a run that is resumed would start the optimizer and the learning rate's schedule anew",
    **dict.fromkeys(
        (
            "hub_always_push", "hub_model_id", "hub_private_repo", "hub_revision", "hub_strategy", "hub_token",
            "log_completions_hub_repo", "push_to_hub", "trackio_bucket_id", "trackio_space_id",
            "trackio_static_space_id",
        ),
        SENDS,
    ),
    **dict.fromkeys(
        (
            "arrow_config", "auto_mapping", "corda_config", "eva_config", "lora_ga_config", "megatron_config",
            "megatron_core",
        ),
        RUNS_CODE,
    ),
}  # fmt: skip
"""Fields of the configs that do more than describe a run, or make it another than the rest says, and what they do."""

LORA_ELSEWHERE = {
    "base_model_name_or_path": "model",
    "inference_mode": "the toolkit itself",
    "peft_type": "the toolkit itself",
    "revision": "model.revision",
    "task_type": "the toolkit itself",
}
"""Fields of `peft.LoraConfig` that a recipe decides under another name."""


@functools.cache
def library_fields(config: str) -> frozenset[str]:
    """Names of the fields of `trl.SFTConfig`, `trl.GRPOConfig` or `peft.LoraConfig`; empty if their source is gone."""
    fields: set[str] = set()
    for package, file, name in SOURCES[config]:
        found = _class_fields(package, file, name)
        if not found:
            return frozenset()
        fields |= found
    return frozenset(fields)


def _class_fields(package: str, file: str, name: str) -> set[str]:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return set()
    path = Path(spec.submodule_search_locations[0]) / file
    if not path.is_file():
        return set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = (statement.target for statement in node.body if isinstance(statement, ast.AnnAssign))
            return {target.id for target in fields if isinstance(target, ast.Name)}
    return set()


def check_args(args: dict[str, Any], config: str, own: set[str], elsewhere: dict[str, str]) -> dict[str, Any]:
    """Refuse what `config` has no field for, what the recipe says in a key of its own, and what does more than say."""
    if not args:
        return args
    known = library_fields(config)
    for name in args:
        if name in REFUSED:
            instead = "upload the finished model yourself" if REFUSED[name] == SENDS else "leave it out"
            raise ConfigError(f"{name} in args: {REFUSED[name]}", where=name, fix=instead)
        if reason := WITHOUT_EFFECT.get(config, {}).get(name):
            raise ConfigError(
                f"{name} in args would have no effect: {reason}",
                expected=f"fields of {config} that change something",
                where=name,
                fix="leave it out",
            )
        if name in own or name in elsewhere:
            place = elsewhere.get(name, f"{name}, outside args")
            raise ConfigError(f"{name} in args", where=name, fix=f"it is decided by {place}")
        if known and name not in known:
            fix = did_you_mean(name, known)
            raise ConfigError(f"{config} has no field {name!r}", expected="one of its fields", where=name, fix=fix)
    check_optim(args.get("optim"), "optim", rollouts=config != "trl.SFTConfig")
    check_optim_args(args, "optim")
    return args
