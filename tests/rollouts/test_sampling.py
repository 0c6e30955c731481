"""Seeds of requests, the lengths of prompts, and the comparison of log-probabilities."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from posttrain.errors import ConfigError, DataError, TrainingError
from posttrain.rollouts.probe import BOUNDS, Bounds, ProbeResult, bounds_for, compare, probe
from posttrain.rollouts.sampling import CHILDREN, PROMPTS, Sampled, Sampling, check_lengths, request_seed


def test_a_seed_is_a_function_of_its_arguments_in_every_process():
    program = "from posttrain.rollouts.sampling import request_seed; print(request_seed(3, 17, 5))"
    printed = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONHASHSEED": seed})
        .stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert printed == {str(request_seed(3, 17, 5))} == {"4369657226958968253"}


def test_no_two_completions_of_a_window_share_a_seed_not_even_its_low_half():
    for run_seed, window in itertools.product((0, 1, 12345), (0, 1, 999)):
        starts = sorted(request_seed(run_seed, window, prompt) % 2**32 for prompt in (*range(300), PROMPTS - 1))
        gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
        assert min([*gaps, starts[0] + 2**32 - starts[-1]]) >= CHILDREN
        assert max(request_seed(run_seed, window, prompt) for prompt in range(300)) + CHILDREN < 2**63


def test_windows_and_runs_have_seeds_of_their_own():
    seeds = {request_seed(run, window, prompt) for run in range(20) for window in range(50) for prompt in range(20)}
    assert len(seeds) == 20 * 50 * 20


def test_the_seeds_of_a_group_draw_different_numbers_with_torch():
    first = request_seed(0, 0, 0)
    draws = {torch.rand(4, generator=torch.Generator().manual_seed(first + child)).sum().item() for child in range(64)}
    assert len(draws) == 64


def test_seeds_need_no_torch():
    program = "import sys, posttrain.rollouts.sampling; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def test_lengths_are_checked_against_the_whole_context():
    check_lengths([[1] * 6], 4, 10)
    with pytest.raises(DataError, match=r"prompt 1 has 7 tokens; with 4 for the completion that is 11") as raised:
        check_lengths([[1], [1] * 7], 4, 10)
    assert raised.value.where == "rollout.max_model_length"
    with pytest.raises(DataError, match="prompt 0 has no tokens"):
        check_lengths([[]], 4, 10)


@pytest.mark.parametrize("wrong", [{"max_tokens": 0}, {"n": 0}, {"n": CHILDREN + 1}, {"temperature": -0.1}])
def test_sampling_that_means_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"Sampling"):
        Sampling(**({"max_tokens": 1} | wrong))


# ---- the probe ----


def test_equal_sides_pass_and_the_differences_are_reported():
    result = compare([[-1.0, -2.0], [-3.0]], [[-1.1, -2.0], [-2.8]], bounds=Bounds(mean=0.2, largest=0.3))
    assert result == ProbeResult(pytest.approx(0.1), pytest.approx(0.2), 3)


def test_a_failure_names_the_worst_token_and_both_numbers():
    with pytest.raises(TrainingError, match=r"token 1 of completion 0: -2.0000 in the engine, -5.0000 in the trainer"):
        compare([[-1.0, -2.0], [-3.0]], [[-1.1, -5.0], [-2.8]], bounds=Bounds(mean=10.0, largest=2.9))


def test_many_small_differences_fail_by_their_mean():
    with pytest.raises(TrainingError, match=r"0.1 on average"):
        compare([[-1.0] * 9], [[-1.1] * 9], bounds=Bounds(mean=0.05, largest=1.0))


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_what_is_no_number_fails(bad):
    with pytest.raises(TrainingError, match="inf at most"):
        compare([[-1.0, bad]], [[-1.0, -1.0]], bounds=Bounds(mean=9.0, largest=9.0))


def test_the_coarser_dtype_gives_the_bounds():
    assert bounds_for(torch.float32, torch.float32) == BOUNDS[torch.float32]
    assert bounds_for(torch.float32, torch.bfloat16) == bounds_for(torch.bfloat16) == BOUNDS[torch.bfloat16]


def test_a_probe_samples_its_tokens_at_the_runs_temperature_and_asks_the_trainer_for_them():
    asked = []

    class Engine:
        def sample(self, prompt_ids, seeds, sampling):
            asked.append((len(set(seeds)), sampling))
            return [[Sampled([7, 8], [-0.5, -0.25], True)] for _ in prompt_ids]

    def trainer(prompts, completions):
        asked.append((prompts, completions))
        return [[-0.5, -0.25] for _ in completions]

    result = probe(Engine(), trainer, [[1], [2, 3]], temperature=0.7, bounds=BOUNDS[torch.float32])
    assert result == ProbeResult(0.0, 0.0, 4)
    assert asked == [(2, Sampling(max_tokens=32, temperature=0.7)), ([[1], [2, 3]], [[7, 8], [7, 8]])]
