"""What GRPOTrainer takes beside rows: tools, environments, a `generate` of one's own; mixed with demonstrations."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset, IterableDataset

from posttrain.controllers import SASR, GRPOOnly
from posttrain.errors import ConfigError
from posttrain.models.load import build_model
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.training.conftest import ROWS, hybrid_args, reward

TEMPLATE = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call><|im_end|>'


def talk(text: str, role: str = "user") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


CHAT = [
    {"prompt": talk(row["prompt"]), "completion": talk(row["completion"], "assistant"), "answer": row["answer"]}
    for row in ROWS
]
CALLED: list[tuple[int, int]] = []


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: One.
        b: Another.
    """
    CALLED.append((a, b))
    return a + b


class Adder:
    """An environment that owns its data: it gives the prompt, a tool and the reward."""

    def reset(self, **columns: Any) -> str:
        self.given, self.calls = columns, 0
        return f"{random.randrange(9)} plus 3 is"

    def add(self, a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: One.
            b: Another.
        """
        self.calls += 1
        return a + b

    def get_reward(self) -> float:
        return self.calls + random.random() / 10


def shown(completions, **columns) -> list[float]:
    return [0.01 * len(str(each)) for each in completions]


@pytest.fixture
def build(tokenizer, tmp_path):
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    own.chat_template = TEMPLATE
    policy = build_model(own, hidden_size=32, layers=2, heads=2, max_position_embeddings=2048)

    def make(reward_funcs=shown, *, controller=None, **changes):
        settings = {"max_steps": 3, "max_completion_length": 64, "per_device_train_batch_size": 4, "kl_sample": 1.0}
        args = hybrid_args(tmp_path / "run", **(settings | changes.pop("args", {})))
        controller = controller or SASR(gamma=1.0)
        more = {"demonstrations": CHAT, "train_dataset": Dataset.from_list(CHAT), "processing_class": own, **changes}
        return HybridTrainer(policy, reward_funcs, args, controller=controller, g_warmup=5.0, **more)

    return make


def with_calls(trainer: HybridTrainer) -> HybridTrainer:
    """Has every other completion of the policy begin with a call of the tool, by a `generate` of its own."""
    model, ids = trainer.model, trainer.processing_class(CALL, add_special_tokens=False)["input_ids"]
    generate = model.generate

    def calling(input_ids, **more):
        out = generate(input_ids=input_ids, **more)
        width = input_ids.size(1)
        out = torch.nn.functional.pad(out, (0, max(0, width + len(ids) - out.size(1))), value=model.config.pad_token_id)
        if "<tool_response>" not in trainer.processing_class.decode(input_ids[0]):
            out[::2, width:] = model.config.pad_token_id
            out[::2, width : width + len(ids)] = torch.tensor(ids)
        return out

    model.generate = calling
    return trainer


def both_halves(folder: Path) -> list[dict[str, Any]]:
    lines = read_lines(folder / "run" / "steps.jsonl")
    assert any(line["mix"]["sft"] for line in lines)
    assert any(line["mix"]["grpo"] for line in lines)
    return lines


def test_tools(build, tmp_path):
    CALLED.clear()
    trainer = with_calls(build(tools=[add]))
    assert "add" in trainer.processing_class.decode(trainer.sft._rows[0]["input_ids"]), "demonstrations name the tool"
    trainer.train()
    both_halves(tmp_path)
    assert set(CALLED) == {(2, 3)}


@pytest.mark.parametrize("data", [None, Dataset.from_list(CHAT)], ids=["its own data", "a data set"])
def test_an_environment(build, tmp_path, data):
    trainer = with_calls(build([], environment_factory=Adder, train_dataset=data))
    trainer.train()
    lines = both_halves(tmp_path)
    assert all(line["rewards"]["Adder"] >= 0.5 for line in lines if line["rewards"]), "half of them called the tool"
    given = trainer._environment_pool[None][0].given
    assert ("answer" in given) == (data is not None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_dataset": None}, r"there is no train_dataset(.|\n)*Dataset.from_list"),
        ({"train_dataset": None, "environment_factory": {"a": Adder}}, r"several environments(.|\n)*column `environ"),
        ({"train_dataset": None, "environment_factory": Adder, "args": {"max_steps": -1}}, r"max_steps is not set"),
        ({"train_dataset": IterableDataset.from_generator(lambda: iter(CHAT))}, r"a IterableDataset(.|\n)*by number"),
    ],
)
def test_what_is_missing_is_said(build, changes, said):
    with pytest.raises(ConfigError, match=said):
        build(**changes)


@pytest.mark.parametrize("seeded", [True, False])
def test_a_generate_that_was_replaced_on_the_model_samples(model, tokenizer, prompts, tmp_path, seeded):
    calls = []
    args = hybrid_args(tmp_path, max_steps=1, seeded_rollouts=seeded)
    generate = model.generate
    model.generate = lambda *a, **more: (calls.append(more), generate(*a, **more))[1]
    HybridTrainer(model, reward, args, prompts, processing_class=tokenizer, controller=GRPOOnly()).train()
    assert len(calls) == 1
