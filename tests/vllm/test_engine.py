"""The engine samples from the policy's weights, as often as they change, and leaves the trainer's process alone."""

from __future__ import annotations

import re

import pytest
import torch

from posttrain.errors import ConfigError, DataError, TrainingError
from posttrain.models.policy_weights import named_weights
from posttrain.rollouts.vllm import InProcessEngine, Sampling, request_seed
from tests.vllm.conftest import ENDS, PROMPTS, change, process_state, tiny, with_lora

SEEDS = [request_seed(7, 0, place) for place in range(len(PROMPTS))]


def logprobs(model, prompt, completion, temperature=1.0):
    """By transformers: of each completion token given what stands before it."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    chosen = (logits.float() / temperature).log_softmax(-1).gather(1, torch.tensor(completion)[:, None])
    return chosen[:, 0]


def largest_gap(model, groups, temperature=1.0):
    return max(
        (logprobs(model, prompt, one.token_ids, temperature) - torch.tensor(one.logprobs)).abs().max().item()
        for prompt, group in zip(PROMPTS, groups, strict=True)
        for one in group
    )


POLICIES = {
    "full, tied": lambda: tiny(tied=True),
    "full, untied": lambda: tiny(tied=False),
    "lora, tied": lambda: with_lora(tiny(tied=True), target_modules=["q_proj", "down_proj"]),
    "lora on every layer, untied": lambda: with_lora(tiny(tied=False), target_modules="all-linear"),
    "lora on the head of a tied model": lambda: with_lora(tiny(tied=True), target_modules=["k_proj", "lm_head"]),
    "lora on the embedding": lambda: with_lora(tiny(tied=False), target_modules=["embed_tokens", "o_proj"]),
    "lora and a head that trains whole": lambda: with_lora(
        tiny(tied=False), target_modules=["v_proj"], modules_to_save=["lm_head"]
    ),
}
IN_THE_TIED_ENGINE = {"full, tied", "lora, tied"}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_samples_from_the_policy_after_every_change(name, tied_engine, untied_engine):
    policy = POLICIES[name]()
    engine = tied_engine if name in IN_THE_TIED_ENGINE else untied_engine
    sampling = Sampling(n=3, max_tokens=12, temperature=0.7)
    for update in range(3):
        change(policy, seed=update)
        if update:
            assert largest_gap(policy, engine.sample(PROMPTS, SEEDS, sampling), 0.7) > 1e-2, "stale weights must show"
        engine.load(policy)
        assert largest_gap(policy, engine.sample(PROMPTS, SEEDS, sampling), 0.7) < 1e-4


def test_loading_leaves_every_bit_of_the_trainers_weights(untied_engine):
    policy = with_lora(tiny(tied=False), target_modules="all-linear")
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    untied_engine.load(policy)
    after = policy.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.merged for module in policy.modules() if hasattr(module, "merged"))


def test_trls_reference_adapter_is_not_part_of_the_policy(untied_engine):
    policy = with_lora(tiny(tied=False), target_modules=["q_proj"])
    policy.add_adapter("ref", policy.peft_config["default"])
    expected = dict(named_weights(policy))
    policy.base_model.set_adapter(["default", "ref"])
    assert all(torch.equal(expected[name], value) for name, value in named_weights(policy))


def test_weights_can_come_as_a_stream(untied_engine):
    policy = tiny(tied=False, seed=5)
    untied_engine.load((name, value) for name, value in policy.state_dict().items())
    assert largest_gap(policy, untied_engine.sample(PROMPTS, SEEDS, Sampling(max_tokens=8))) < 1e-4


def test_the_end_token_is_kept_and_only_a_cut_answer_is_truncated(tied_engine):
    tied_engine.load(tiny(tied=True))
    completions = [one for group in tied_engine.sample(PROMPTS, SEEDS, Sampling(n=8, max_tokens=10)) for one in group]
    assert {one.truncated for one in completions} == {True, False}
    for one in completions:
        assert len(one.logprobs) == len(one.token_ids)
        assert not set(one.token_ids[:-1]) & set(ENDS)
        assert one.truncated == (one.token_ids[-1] not in ENDS)
        assert len(one.token_ids) == 10 or not one.truncated


def test_a_completion_depends_on_its_prompt_seed_and_number_alone(tied_engine):
    tied_engine.load(tiny(tied=True))
    sampling = Sampling(n=4, max_tokens=16)
    together = tied_engine.sample(PROMPTS, SEEDS, sampling)
    backwards = tied_engine.sample(PROMPTS[::-1], SEEDS[::-1], sampling)[::-1]
    assert [[one.token_ids for one in group] for group in together] == [
        [one.token_ids for one in group] for group in backwards
    ]
    for place in (0, 3):
        alone = [
            tied_engine.sample([PROMPTS[place]], [SEEDS[place] + child], Sampling(max_tokens=16))[0][0]
            for child in range(4)
        ]
        assert [one.token_ids for one in alone] == [one.token_ids for one in together[place]]
        assert len({tuple(one.token_ids) for one in alone}) == 4


def test_a_prompt_is_computed_once_for_its_completions(tied_engine):
    """As `plan` says; and nothing is sampled by speculation, which on a CPU is another distribution."""
    config = tied_engine._llm.llm_engine.vllm_config
    assert config.cache_config.enable_prefix_caching
    assert config.speculative_config is None


def test_temperature_0_takes_the_likeliest_token(tied_engine):
    policy = tiny(tied=True)
    tied_engine.load(policy)
    greedy = Sampling(n=2, max_tokens=8, temperature=0.0)
    for prompt, (one, other) in zip(PROMPTS, tied_engine.sample(PROMPTS, SEEDS, greedy), strict=True):
        assert one == other
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + one.token_ids])).logits[0, len(prompt) - 1 : -1]
        assert one.token_ids == logits.argmax(-1).tolist()
        assert torch.allclose(torch.tensor(one.logprobs), logits.log_softmax(-1).amax(-1), atol=1e-4)


def test_truncated_sampling_stays_inside_its_limits(tied_engine):
    policy = tiny(tied=True)
    tied_engine.load(policy)
    for options in ({"top_k": 2}, {"top_p": 0.3}, {"min_p": 0.5}):
        for prompt, group in zip(
            PROMPTS, tied_engine.sample(PROMPTS, SEEDS, Sampling(n=8, max_tokens=1, **options)), strict=True
        ):
            with torch.no_grad():
                p = policy(torch.tensor([prompt])).logits[0, -1].softmax(-1).sort(descending=True)
            allowed = {
                "top_k": 2,
                "top_p": int((p.values.cumsum(0) < 0.3).sum()) + 1,
                "min_p": int((p.values >= 0.5 * p.values[0]).sum()),
            }[next(iter(options))]
            assert {one.token_ids[0] for one in group} <= set(p.indices[:allowed].tolist())


# ---- the trainer's process ----


def test_building_engines_leaves_the_process_as_it_was(built):
    _, before, after = built
    assert {name for name in before if before[name] != after[name]} == set()


def test_loading_and_sampling_leave_the_process_as_it_was(tied_engine):
    policy = tiny(tied=True)
    before = process_state()
    tied_engine.load(policy)
    tied_engine.sample(PROMPTS, SEEDS, Sampling(n=2, max_tokens=8))
    after = process_state()
    assert {name for name in before if before[name] != after[name]} == set()
    policy(torch.tensor([PROMPTS[0]])).logits.sum().backward()  # nothing was left in inference mode


# ---- what goes wrong ----


def test_a_prompt_without_room_for_its_completion_names_the_key(tied_engine):
    with pytest.raises(DataError, match=r"rollout.max_model_length: prompt 1 has 100 tokens.*\n.*128"):
        tied_engine.sample([[1], [1] * 100], [0, 1], Sampling(max_tokens=29))
    tied_engine.load(tiny(tied=True))
    tied_engine.sample([[50] * 100], [0], Sampling(max_tokens=28))


def test_what_the_engine_cannot_sample_from_is_refused_before_it_is_built():
    dora = with_lora(tiny(tied=True), target_modules=["q_proj"], use_dora=True)
    with pytest.raises(ConfigError, match=r"q_proj has an adapter of a kind .*Dora"):
        InProcessEngine(dora, eos_token_ids=ENDS)
    with pytest.raises(ConfigError, match="sleep mode without a GPU"):
        InProcessEngine(tiny(tied=True), eos_token_ids=ENDS, enable_sleep_mode=True)
    with pytest.raises(ConfigError, match=r"tensor_parallel_size 2 with 1 process"):
        InProcessEngine(tiny(tied=True), eos_token_ids=ENDS, tensor_parallel_size=2)


def test_without_vllm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("posttrain.rollouts.vllm_package.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .*\[vllm\]'"):
        InProcessEngine(tiny(tied=True), eos_token_ids=ENDS)


def test_a_version_of_vllm_that_is_not_supported_is_named(monkeypatch):
    for version in ("0.21.4", "0.32.0+cu130", "1.0.0"):
        monkeypatch.setattr("posttrain.rollouts.vllm_package.installed_version", lambda version=version: version)
        with pytest.raises(ConfigError, match=rf"vLLM {re.escape(version)}\n  expected: vLLM 0.22 to 0.31\n"):
            InProcessEngine(tiny(tied=True), eos_token_ids=ENDS)


def test_a_model_that_vllm_cannot_run_is_an_error_of_the_recipe(tied_engine):
    narrow = tiny(tied=True, num_attention_heads=4, num_key_value_heads=4)  # heads of 16: no kernel on a CPU
    with pytest.raises(ConfigError, match=r"rollout.engine: vLLM cannot sample from this model here"):
        InProcessEngine(narrow, eos_token_ids=ENDS, max_num_seqs=4)
    tied_engine.load(tiny(tied=True))  # engines that are there are not harmed


def test_weights_that_do_not_fit_end_the_engine():
    with InProcessEngine(tiny(tied=False), eos_token_ids=ENDS, max_num_seqs=4) as engine:
        with pytest.raises(TrainingError, match="has no weights"):
            engine.sample(PROMPTS, SEEDS, Sampling(max_tokens=2))
        lacking = [(name, value) for name, value in named_weights(tiny(tied=False)) if "1.mlp.down_proj" not in name]
        with pytest.raises(TrainingError, match=r"no weights came for model.layers.1.mlp.down_proj.weight"):
            engine.load(lacking)
        with pytest.raises(TrainingError, match="has failed before"):
            engine.sample(PROMPTS, SEEDS, Sampling(max_tokens=2))
    with pytest.raises(TrainingError, match="was closed"):
        engine.load(tiny(tied=False))


def test_an_engine_that_dies_is_an_error_of_the_run(monkeypatch):
    with InProcessEngine(tiny(tied=False), eos_token_ids=ENDS, max_num_seqs=4) as engine:
        engine.load(tiny(tied=False))

        def dies():
            raise RuntimeError("no memory left on the device")

        monkeypatch.setattr(engine._llm.llm_engine, "step", dies)
        with pytest.raises(
            TrainingError, match=r"sampling 6 x 1 completions failed: RuntimeError: no memory"
        ) as raised:
            engine.sample(PROMPTS, SEEDS, Sampling(max_tokens=2))
        assert "gpu_memory_utilization" in (raised.value.fix or "")
        with pytest.raises(TrainingError, match="has failed before"):
            engine.load(tiny(tied=False))


def test_another_model_than_the_engines_is_refused(tied_engine):
    with pytest.raises(ConfigError, match="are one in the engine, and are not in this model"):
        tied_engine.load(tiny(tied=False))
