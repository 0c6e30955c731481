"""Completions reach the rewards' workers as their prompts end, from an engine in this process and from a server."""

from __future__ import annotations

import time

import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from posttrain.controllers import GRPOOnly, Static
from posttrain.rollouts.sampling import Sampling, request_seed
from posttrain.rollouts.vllm_server import ServerEngine
from posttrain.scoring.pool import RewardPool
from posttrain.scoring.score import Reward
from posttrain.scoring.scorer import Scorer, trl_reward_functions
from posttrain.storage.files import read_lines
from posttrain.training.trainer import HybridTrainer
from tests.scoring.test_pool import wait_until
from tests.scoring.troubled import dense
from tests.training.conftest import hybrid_args
from tests.vllm.conftest import ENDS, PROMPTS, tiny

SEEDS = [request_seed(7, 0, place) for place in range(len(PROMPTS))]
REWARDS = [Reward.from_callable(dense)]


@pytest.mark.parametrize("sampling", [Sampling(n=2, max_tokens=60), Sampling(n=2, max_tokens=20, temperature=0.0)])
def test_a_prompts_completions_come_when_they_have_ended(tied_engine, sampling):
    tied_engine.load(tiny(tied=True))
    told, going_on = {}, []

    def on_prompt(place, group):
        told[place] = group
        going_on.append(tied_engine._llm.llm_engine.has_unfinished_requests())

    sampled = tied_engine.begin(PROMPTS, SEEDS, sampling, on_prompt)()
    assert [told[place] for place in range(len(PROMPTS))] == sampled == tied_engine.sample(PROMPTS, SEEDS, sampling)
    assert len(going_on) == len(PROMPTS)
    assert going_on[0], "the first came before the last"


@pytest.mark.slow
def test_a_server_tells_without_being_waited_for(server, model_folder):
    policy = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    with ServerEngine(server.url, model=policy, eos_token_ids=ENDS, time_limit_s=60) as sampler:
        sampler.load(policy)
        told = {}
        collect = sampler.begin(PROMPTS, SEEDS, Sampling(n=3, max_tokens=12), lambda *each: told.update([each]))
        end = time.monotonic() + 60
        while len(told) < len(PROMPTS) and time.monotonic() < end:
            time.sleep(0.02)
        assert [told[place] for place in range(len(PROMPTS))] == collect()


@pytest.fixture
def run(model_folder, tokenizer, prompts, demonstrations, tmp_path):
    """Trains with `dense` in a pool; the steps but for their seconds, the seconds, the weights, what was taken."""

    def trained(ahead: bool, here=None, **changes):
        set_seed(3)
        folder, taken = tmp_path / str(ahead), []
        policy = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        settings = {"max_steps": 2, "per_device_train_batch_size": 16, "score_ahead": ahead, **changes}
        with RewardPool(REWARDS, workers=1) as pool:
            trainer = HybridTrainer(
                policy,
                trl_reward_functions(Scorer(REWARDS, pool=pool, max_error_rate=1.0)),
                hybrid_args(folder, use_vllm=True, **settings),
                prompts,
                processing_class=tokenizer,
                demonstrations=demonstrations,
                controller=Static(sft_share=0.3, mode="blend") if here is None else GRPOOnly(),
                engine=here,
            )
            rewards = trainer._calculate_rewards

            def watched(*args):
                scored = rewards(*args)
                taken.append(sum(job.wanted for job in pool.begun()) / max(1, len(pool.begun())))
                return scored

            trainer._calculate_rewards = watched
            if ahead:  # with what goes on beside scoring taking long enough
                owner, name = (trainer.sft, "backward_aside") if here is None else (trainer.vllm_generation, "generate")
                setattr(owner, name, slow(getattr(owner, name), pool))
            trainer.train()
            if here is None:
                trainer.vllm_generation.engine.close()
        steps = read_lines(folder / "steps.jsonl")
        seconds = [step.pop("seconds") for step in steps if step.pop("spent")]
        return steps, seconds, [each.detach().clone() for each in policy.parameters()], taken

    return trained


def slow(function, pool):
    def waits(*args, **kwargs):
        result = function(*args, **kwargs)
        assert wait_until(lambda: any(job.outcome for job in pool.begun()), 30)
        return result

    return waits


def assert_same_but_sooner(run, **options):
    (steps, seconds, weights, taken), (before, seconds_before, weights_before, none) = (
        run(ahead, **options) for ahead in (True, False)
    )
    assert steps == before
    assert all(map(torch.equal, weights, weights_before))
    assert taken == [1.0, 1.0], "all that was begun is what the trainer asks for"
    assert none == [0.0, 0.0]
    assert not any("scored_ahead" in each for each in seconds_before)
    assert all(each["scored_ahead"] > 0 for each in seconds)


def test_training_from_an_engine_in_this_process_is_the_same(run, engine):
    assert_same_but_sooner(run, here=engine)


@pytest.mark.slow
def test_training_from_a_server_is_the_same(run, server):
    """The server samples beside the SFT half, and what has ended is scored there too."""
    assert_same_but_sooner(run, vllm_mode="server", vllm_server_base_url=server.url, vllm_time_limit_s=60)
