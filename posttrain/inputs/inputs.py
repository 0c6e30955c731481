"""What a run is made from, checked before a model loads: rows, rewards, and whether there is such a model at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from posttrain.errors import ConfigError, DataError, PosttrainError
from posttrain.inputs.applying import check_tasks_covered, uses_rewards
from posttrain.inputs.compatible import check_old
from posttrain.inputs.curriculum import check_curriculum
from posttrain.inputs.four_bit import check_four_bit, check_saved_quantised, four_bit_options
from posttrain.inputs.judged import own_reward_configs, routed, rows_of
from posttrain.inputs.leaks import check_disjoint
from posttrain.inputs.misfits import continues_an_adapter, misfits, precision_misfits
from posttrain.inputs.sources import check_columns_by_source, check_sources, check_sources_covered
from posttrain.models.gguf_files import file_sha256, gguf_file
from posttrain.recipe.adapter_kinds import check_trains_on
from posttrain.recipe.mistakes import raise_all
from posttrain.recipe.model_sections import GGUF_SUFFIX
from posttrain.recipe.recipe import Recipe
from posttrain.recipe.selected_tokens import BUDGET, own_budget
from posttrain.scoring.loading import load_reward
from posttrain.scoring.score import Reward
from posttrain.tasks import Task, TaskData, own_rewards

RENDERED = 20
"""Rows of a kind that go through the chat template before a run starts."""


def load_data(recipe: Recipe, *, to_train: bool = True, functions: Sequence[Callable[..., Any]] = ()) -> TaskData:
    """The task's rows, checked: rows to evaluate on, none of them trained on, and rows for what the recipe trains by.

    Args:
        recipe: The recipe.
        to_train: False: rows to train on may be absent, and the model is not to be fed with them.
        functions: Rewards beside the recipe's: rows that only these read are kept.

    Raises:
        DataError: There are no evaluation rows, training has seen some of them, there are no prompts or demonstrations
            and the recipe needs them.
    """
    data = rows_of(recipe, functions=functions)
    if not data.eval:
        raise DataError(
            _none("evaluation rows", data),
            expected="at least one held-out row: every run is evaluated at its end",
            where=recipe.where("task.eval"),
            fix="set task.eval above 0, some hundreds for a useful interval",
        )
    check_disjoint(data.eval, data.train, data.demonstrations)
    if to_train:
        _check_streams(recipe, data)
    return data


def _check_streams(recipe: Recipe, data: TaskData) -> None:
    sft, grpo = recipe.hybrid.controller.shares() if recipe.hybrid.steps else (False, False)
    method = recipe.hybrid.method if recipe.hybrid.steps else None
    if not data.demonstrations and (sft or method or recipe.warmup.steps):
        raise DataError(
            _none("demonstrations", data),
            expected="at least one: the warm-up, SFT steps and methods train on them",
            where=recipe.where("task.demonstrations"),
            fix="name data with completions, or train without: warmup.steps=0 hybrid.controller=grpo_only",
        )
    check_curriculum(recipe, [*data.train, *data.demonstrations] if method else data.train)
    check_curriculum(recipe, data.demonstrations, "warmup")
    if not data.train and grpo:
        raise DataError(
            _none("prompts", data),
            expected="at least one: GRPO steps sample from them",
            where=recipe.where("task.train"),
            fix="lower task.eval or task.demonstrations, name more data, or set hybrid.controller=sft_only",
        )


def _none(what: str, data: TaskData) -> str:
    """That there are none of these rows, with what the task says became of those that there were."""
    return f"the task has no {what}" + (f" ({data.notes[0]})" if data.notes else "")


def load_rewards(recipe: Recipe, data: TaskData, functions: Iterable[Callable[..., Any]] = ()) -> list[Reward]:
    """The recipe's rewards and the given functions, their columns checked against the data.

    Raises:
        RewardError: A reward cannot be loaded, or takes a column that the data does not have.
        ConfigError: A task without a reward of its own, such as `rows`, has none of the recipe's either.
        ConfigError: No reward applies to the prompts of one of a mixture's tasks or of a source, or one is for a source
            that no row has; or one votes, beside a method.
    """
    named: list[Any] = [routed(reward, recipe.task) for reward in recipe.rewards]
    rewards = [load_reward(source) for source in [*named, *functions]] or task_rewards(recipe.task)
    check_sources(recipe, data)
    rows = data.train or data.demonstrations or data.eval
    if len(own_rewards(recipe.task)) > 1:
        rewards = [_fitted(reward, rows) for reward in rewards]
    else:
        for reward in rewards if rows else []:
            reward.check_columns({name for name in rows[0] if name != "completion"})
    for label, own in own_rewards(recipe.task).items():
        if own is None and not any(reward.tasks is None or label in reward.tasks for reward in rewards):
            raise ConfigError(
                f"no reward judges the rows of {label!r}",
                expected="a reward in the recipe: the task rows has none of its own",
                where=recipe.where("rewards"),
                fix="add one, such as `- path: my_reward.py:score`, a function score(completion, *, COLUMN, **row) in "
                "a file beside the recipe, or a built-in one, such as `- math_answer`",
            )
    check_tasks_covered(recipe, rewards, data.train)
    check_columns_by_source(rewards, rows)
    if uses_rewards(recipe):
        check_sources_covered(rewards, data.train, recipe.where("rewards"))
    if recipe.hybrid.length_budget and recipe.hybrid.steps and data.train and BUDGET in data.train[0]:
        raise own_budget(data.train[0], recipe.where("hybrid.length_budget"))
    voting, method = next((reward.name for reward in rewards if reward.of_group), None), recipe.hybrid.method
    if voting and method and recipe.hybrid.steps:
        raise ConfigError(
            f"{voting} votes in a group, whose rows the method {method.name} makes, too",
            expected="groups of plain samples of a prompt",
            where=recipe.where("rewards"),
            fix="leave one of them out",
        )
    return rewards


def load_judges(recipe: Recipe, data: TaskData, rewards: Sequence[Reward]) -> list[Reward]:
    """What judges the evaluations: `evaluate.reward`, or else what the policy is trained by; of votes, the task's own.

    Args:
        recipe: The recipe.
        data: The task's rows; those to evaluate on must have the columns that the judges take.
        rewards: What `load_rewards` gave.

    Raises:
        RewardError: One cannot be loaded, or takes a column that the held-out rows do not have.
        ConfigError: None of them has a weight above 0, so that nothing could pass; or none judges the held-out rows of
            a source.
    """
    check_sources(recipe, data, "evaluate.reward")
    named = [load_reward(routed(each, recipe.task, "evaluate.reward")) for each in recipe.evaluate.reward or []]
    voting = next((reward.name for reward in named if not reward.judges), None)
    if voting is not None:
        raise ConfigError(
            f"{voting}, which needs a completion's group or its budget: an evaluation's are judged one by one",
            expected="a reward of one completion",
            where=recipe.where("evaluate.reward"),
            fix="name one that knows what is right",
        )
    alone = [reward for reward in rewards if reward.judges]
    if any(reward.of_group and reward.weight for reward in rewards):  # what is beside a vote says only the form
        alone = task_rewards(recipe.task) or alone
    judges = [reward for reward in named or alone or task_rewards(recipe.task) if reward.weight]
    own = own_rewards(recipe.task)
    if not any(reward.weight > 0 for reward in judges):
        raise ConfigError(
            "no reward that judges the evaluation has a weight above 0",
            expected="at least one, by which a problem can pass",
            where=recipe.where("evaluate.reward"),
            fix=f"name what judges, such as evaluate: {{reward: {next(filter(None, own.values()), 'NAME')}}}",
        )
    if len(own) > 1:
        judges = [_fitted(reward, data.eval) for reward in judges]
    for reward in judges if data.eval and len(own) == 1 else []:
        reward.check_columns({name for name in data.eval[0] if name != "completion"})
    check_columns_by_source(judges, data.eval)
    key = "evaluate.reward" if recipe.evaluate.reward else "rewards"
    check_sources_covered(judges, data.eval, recipe.where(key), what="held-out rows", key=key)
    return judges


def _fitted(reward: Reward, rows: list[dict[str, Any]]) -> Reward:
    """A reward of a mixture, limited to the tasks whose rows have all that it needs; those it names must have it."""
    columns: dict[str, set[str]] = {}
    for row in rows:
        filled = {name for name, value in row.items() if value is not None and name != "completion"}
        columns.setdefault(row["task"], set()).update(filled)
    needed = set(reward.required_columns())
    fitting = {task for task, its in columns.items() if needed <= its | {"prompt"}}
    for task in sorted(reward.tasks & set(columns) if reward.tasks else () if fitting else columns):
        reward.check_columns(columns[task])
    return reward if reward.tasks or fitting == set(columns) else replace(reward, tasks=frozenset(fitting))


def task_rewards(task: Task) -> list[Reward]:
    """The rewards that define a pass: the task's own, or those of a mixture's tasks, each for their rows only.

    A task of the kind `rows` has none: the recipe's judge it.
    """
    return [load_reward(config) for config in own_reward_configs(task)]


def check_model(recipe: Recipe, data: TaskData | None = None, rewards: Sequence[Reward] = ()) -> dict[str, str]:
    """Make sure that there is such a model, by its tokenizer and configuration.

    Args:
        recipe: Names it.
        data: Rows, of which some go through its chat template.
        rewards: What scores its rollouts and evaluations.

    Returns:
        The fingerprint of a model that is a file, by name, as `RunDir.open` takes them; else nothing.

    Raises:
        ConfigError: There is no such model, it cannot be read, not be held in 4 bits here, or something of it would end
            the run later.
        DataError: Its chat template refuses the rows; what is trained is not what is sampled (see `same_stream`).
    """
    from posttrain.inputs.ends import with_own_end
    from posttrain.inputs.shown import check_plain_logits
    from posttrain.models.load import (  # loads transformers and torch, which rows and rewards do without
        check_model_files,
        config_of,
        load_tokenizer,
        quantised_by,
        tokenizer_from_rows,
    )

    check_four_bit(recipe)
    raise_all(list(precision_misfits(recipe)), "the model")
    name, where = recipe.model.gguf or recipe.model.name, recipe.where("model")
    if not name:
        if data is not None and recipe.model.init is not None:
            made = tokenizer_from_rows([*data.demonstrations, *data.train], recipe.model.init.vocab_size)
            init = recipe.model.init
            _check_rendering(recipe, data, with_own_end(made, recipe), rewards, init.max_position_embeddings)
        return {}
    file, adapter = gguf_file(name, where), continues_an_adapter(recipe)
    if recipe.lora and adapter:
        raise ConfigError(
            f"{name} is an adapter, and the recipe adds another on top of it",
            expected="a whole model, or no lora: the adapter is trained on, then",
            where=recipe.where("lora"),
            fix="leave lora out (lora=null), or start from the adapter's base model",
        )
    positions: int | None = None
    with loading(file or name, where):
        tokenizer = load_tokenizer(file or name, **hub_options(recipe))
        if file is None:
            check_model_files(name, **hub_options(recipe))
            if not adapter:
                check_saved_quantised(recipe, quantised_by(name, revision=recipe.model.revision))
            model_config = config_of(name, **hub_options(recipe))
            raise_all(list(misfits(recipe, tokenizer, model_config)), "the model")
            positions = getattr(model_config.get_text_config(), "max_position_embeddings", None)
            if recipe.hybrid.steps and recipe.hybrid.method and recipe.hybrid.method.teacher_kl:
                check_plain_logits(model_config)
            if recipe.warmup.steps and recipe.warmup.muscle:
                check_old(recipe, tokenizer, model_config, loading=loading)
    if adapter:
        config = json.loads((Path(name) / "adapter_config.json").read_text())
        check_trains_on(config, beta=recipe.hybrid.grpo.beta if recipe.hybrid.steps else 0.0, where=where)
    if data is not None:
        _check_rendering(recipe, data, with_own_end(tokenizer, recipe), rewards, positions)
    return {"model": file_sha256(file)} if file else {}


def _check_rendering(
    recipe: Recipe, data: TaskData, tokenizer: Any, rewards: Sequence[Reward], positions: int | None
) -> None:
    """Have some rows rendered as both stages will; `positions` are the model's, where they are known."""
    from posttrain.inputs.data import fit_to_model, with_demonstrated
    from posttrain.inputs.ends import ends_of
    from posttrain.inputs.pairs import Pairs
    from posttrain.inputs.rendering import through_template
    from posttrain.inputs.same_stream import differences_of, refuse
    from posttrain.inputs.shown import teacher_contexts

    kwargs = recipe.hybrid.template_kwargs
    fit_to_model([*data.train, *data.demonstrations, *data.eval], tokenizer)  # all, for it refuses some
    for row in fit_to_model([*data.train[:RENDERED], *data.eval[:RENDERED]], tokenizer):
        if not isinstance(row["prompt"], str):
            through_template(tokenizer, row["prompt"], add_generation_prompt=True, tokenize=False, **kwargs)
    refuse(differences_of(recipe, data, tokenizer, ends_of(recipe, tokenizer), rewards))
    method, longest = recipe.hybrid.method, recipe.hybrid.grpo.max_completion_length
    if method and recipe.hybrid.steps:
        pairs = Pairs(
            fit_to_model(with_demonstrated(data), tokenizer),
            fit_to_model(data.demonstrations, tokenizer),
            tokenizer,
            longest=longest,
            too_long=method.too_long,
            template_kwargs=kwargs,
            after=recipe.hybrid.demonstrations_after,
        )
        if method.shows_teacher:
            teacher_contexts(
                pairs,
                method.context,
                tokenizer,
                template_kwargs=kwargs,
                longest=longest,
                positions=positions,
                too_long=method.too_long,
            )


def hub_options(recipe: Recipe) -> dict[str, Any]:
    """The arguments of `from_pretrained` that go with a hub id."""
    section = recipe.model
    return {"revision": section.revision, "trust_remote_code": section.trust_remote_code} if section.name else {}


def policy_options(recipe: Recipe, *, on_gpu: bool) -> dict[str, Any]:
    """The arguments of `load_policy` by which a run loads its models."""
    dtype = recipe.model.dtype
    if dtype == "auto":
        # Weights that train stay in float32 (TRL computes in bf16): a step of 1e-6 would round to nothing in bf16
        dtype = "bfloat16" if on_gpu and recipe.lora else "float32"
    section = recipe.model
    options = {"dtype": dtype, "attn_implementation": section.attn_implementation, **hub_options(recipe)}
    options["four_bit"] = four_bit_options(section, on_gpu=on_gpu)
    return {key: value for key, value in options.items() if value}


def check_folder(source: str | Path, where: str) -> None:
    """Make sure that what looks like a folder's path leads to one.

    Raises:
        ConfigError: It does not.
    """
    folder = Path(source).expanduser()
    if _looks_like_a_path(str(source)) and folder.suffix.lower() != GGUF_SUFFIX and not folder.is_dir():
        raise ConfigError(
            f"there is no folder {str(source)!r}",
            expected="a folder with config.json, weights and tokenizer, or a hub id such as owner/name",
            where=where,
            fix=f"correct the path; it starts at {Path.cwd()}",
        )


@contextmanager
def loading(source: str | Path, where: str) -> Iterator[None]:
    """Turn what transformers raises for a model that is not there into an error that names the key.

    Args:
        source: The hub id or folder that the block loads.
        where: The key or argument that named it.

    Raises:
        ConfigError: There is no such folder, or the block could not load the model.
    """
    check_folder(source, where)
    try:
        yield
    except PosttrainError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"the model {str(source)!r} brings code of its own, which has not been run",
                expected="a model that transformers can run by itself",
                where=where,
                fix="read that code, then set model.trust_remote_code: true (posttrain eval: --trust-remote-code)",
            ) from error
        raise ConfigError(
            f"the model {str(source)!r} cannot be loaded: {(str(error).strip() or repr(error)).splitlines()[0]}",
            expected="a hub id that can be reached, or a folder with config.json, weights and tokenizer",
            where=where,
            fix="correct the name, or download the model and name its folder",
        ) from error


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1
