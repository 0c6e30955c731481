"""Alarms: each fires on the trouble it is about, none on the numbers of sound runs, and what is said is said once."""

from __future__ import annotations

import math
import random
import re
from dataclasses import fields

import pytest
from trl import SFTConfig

from posttrain.alarms import KINDS, Settings, Watch, in_words, read, summary
from posttrain.alarms.watch import GONE
from posttrain.controllers import SASR
from posttrain.errors import ConfigError
from posttrain.recipe.recipe import Recipe
from posttrain.storage.files import append_line, plain
from tests.alarms import real_steps

SAMPLED = {
    "completions": 128, "groups": 16, "dead_right": 0.02, "dead_wrong": 0.1, "truncated_reward": None,
    "finished_reward": 0.25, "length_r": 0.0, "length_n": 90, "identical": 0.0, "common": 0.05, "looping": 0.0,
    "parts": {},
}  # fmt: skip


def record(step, **changes):
    """A line of steps.jsonl as a sound step writes it, but for what is changed."""
    noise = random.Random(step).uniform(-1, 1)
    sound = {
        "stage": "hybrid", "step": step, "mix": {"sft": 0.0, "grpo": 1.0}, "kl": 0.03 * math.exp(noise),
        "entropy": 0.5 + 0.05 * noise, "reward": 0.4 + 0.05 * noise, "rewards": {"right": 0.4 + 0.05 * noise},
        "zero_std_share": 0.15 + 0.1 * noise, "truncated_share": 0.0, "completion_length": 100 + 5 * noise,
        "sampled": SAMPLED | {"length_r": 0.1 * noise}, "sampling": None,
    }  # fmt: skip
    if changes.get("sampled"):
        changes["sampled"] = sound["sampled"] | changes["sampled"]
    return sound | changes


def raised(trouble, steps=40, settings=None):
    watch = Watch(settings or Settings())
    return [line for step in range(1, steps + 1) for line in watch.look(plain(record(step, **trouble(step))))]


def rising(step, start=10, to=20):
    return min(max((step - start) / (to - start), 0.0), 1.0)


def noise(step, seed):
    return random.Random(1000 * seed + step).gauss(0, 0.02)


def of_method(gate_open=None, begun_reward=None, alone_reward=0.4, begun_share=None, best=1):
    """What a line says of a method, of 16 groups with a demonstration."""
    return {
        "method": {
            "paired": 16, "gate_open": gate_open, "begun_reward": begun_reward, "alone_reward": alone_reward,
            "begun_share": begun_share, "rewards": [[0, None, best]],
        }
    }  # fmt: skip


TROUBLES = {
    "method_gate-never": (
        lambda step: of_method(gate_open=0.0),
        "warning",
        "let no demonstration in, of 320 groups with one in 20 generations",
        "harder prompts",
    ),
    "method_gate-always": (
        lambda step: of_method(gate_open=1.0),
        "warning",
        "for 100% of the 320 groups with one of the last 20 generations",
        "more warmup.steps or easier prompts",
    ),
    "prefix_not_outgrown": (
        lambda step: of_method(
            begun_reward=0.7 + noise(step, 1), alone_reward=0.2 + noise(step, 2), begun_share=0.9 - 0.5 * rising(step)
        ),
        "warning",
        r"score 0.\d\d, the others 0.\d\d, which is no more .* from 90% to \d\d% of the demonstration",
        "longer stage .hybrid.steps.*hybrid.method: hpt",
    ),
    "unscored": (
        lambda step: {"unscored_share": 0.3, "zero_std_share": 0.3, "sampled": {"dead_unscored": 0.25}},
        "problem",
        "30% of the completions .* were scored by no reward, 25% of the groups have no score at all",
        "forget `return`.*posttrain rewards check",
    ),
    "unscored-all": (
        lambda step: {
            "unscored_share": 1.0,
            "zero_std_share": 1.0,
            "reward": None,
            "rewards": {},
            "sampled": {"dead_unscored": 1.0, "dead_wrong": 0.0, "dead_right": 0.0},
        },
        "problem",
        "100% of the completions .* were scored by no reward",
        "name a reward in `rewards` that applies",
    ),
    "dead_groups-wrong": (
        lambda step: {"zero_std_share": 0.85, "sampled": {"dead_right": 0.0, "dead_wrong": 0.85}},
        "warning",
        r"85% of the groups .*\(85% all wrong, 0% all right\)",
        "more warmup.steps.*num_generations to 16",
    ),
    "dead_groups-right": (
        lambda step: {"zero_std_share": 0.95, "sampled": {"dead_right": 0.95, "dead_wrong": 0.0}},
        "problem",
        r"\(0% all wrong, 95% all right\)",
        "too easy",
    ),
    "truncation": (
        lambda step: {"truncated_share": 0.3, "sampled": {"truncated_reward": 0.02}},
        "problem",
        "30% .* cut off at 256 tokens; they score 0.02 on average, the others 0.25",
        r"max_completion_length to 512 \(now 256\)",
    ),
    "truncation-all": (
        lambda step: {"truncated_share": 1.0, "sampled": {"truncated_reward": 0.4}},
        "problem",
        "100% .* cut off at 256 tokens",
        "not known as an end .set warmup.args.eos_token .*max_completion_length to 512",
    ),
    "entropy_collapse": (
        lambda step: {"entropy": 0.5 * 0.02 ** rising(step)},
        "warning",
        "entropy is .* of the 0.5",
        "entropy_coef to 0.001",
    ),
    "kl_blow_up": (
        lambda step: {"kl": 0.02 + 3 * rising(step)},
        "warning",
        "the KL .* nats a token",
        "kl_target to 0.1",
    ),
    "kl_blow_up-slowly": (
        lambda step: {"kl": 0.02 + 0.6 * rising(step)},
        "warning",
        "it was 0.02 in the first 10",
        "beta to 0.04",
    ),
    "kl_blow_up-nan": (
        lambda step: {"kl": math.nan if step > 5 else 0.1},
        "problem",
        "the KL is nan",
        "max_grad_norm to 0.1",
    ),
    "parts_drift-parts": (
        lambda step: {
            "sampled": {
                "parts": {
                    "kk.right": 0.5 - 0.2 * rising(step) + noise(step, 1),
                    "kk.long": 0.3 + 0.3 * rising(step) + noise(step, 2),
                }
            }
        },
        "warning",
        r"kk.right fell from 0.\d\d to 0.\d\d while kk.long rose",
        "weigh kk.right more",
    ),
    "parts_drift-rewards": (
        lambda step: {
            "reward": 0.5 + 0.2 * rising(step),
            "rewards": {
                "right": 0.6 - 0.2 * rising(step) + noise(step, 1),
                "format": 0.2 + 0.7 * rising(step) + noise(step, 2),
            },
        },
        "warning",
        "right fell .* while format rose",
        "the weight under rewards|its weight under rewards",
    ),
    "length_correlation": (
        lambda step: {"sampled": {"length_r": 0.6 + noise(step, 1)}, "completion_length": 100 + 10 * step},
        "problem",
        "longer completions score higher: r = 0.[56].* longer than when the stage began",
        "padding an answer",
    ),
    "length_correlation-shorter": (
        lambda step: {"sampled": {"length_r": -0.5 + noise(step, 1)}},
        "warning",
        "shorter completions score higher: r = -0.5",
        "without working it out",
    ),
    "repetition-loops": (
        lambda step: {"sampled": {"looping": 0.3}},
        "problem",
        "30% of the completions .* over and over",
        "learning_rate",
    ),
    "repetition-copies": (
        lambda step: {"sampled": {"identical": 0.5}},
        "warning",
        "50% of the completions are a copy",
        "temperature above 1",
    ),
    "repetition-one": (
        lambda step: {"sampled": {"common": 0.8}},
        "problem",
        "80% of the prompts got one and the same",
        "entropy_coef",
    ),
    "sampler_mismatch": (
        lambda step: {"sampling": {"logp_difference": 0.4, "logp_difference_max": 9.0, "ratio_mean": 0.8}},
        "problem",
        "0.400 nats a token on average and 9.0 at most .* importance ratio 0.80",
        "probe_every to 1",
    ),
    "sampler_mismatch-grown": (
        lambda step: {"sampling": {"logp_difference": 0.004 + 0.05 * rising(step), "logp_difference_max": 0.5}},
        "warning",
        "times what they did when the stage began",
        "engine: transformers",
    ),
    "sampler_mismatch-probe": (
        lambda step: {"sampling": {"probe_mean": 0.12, "probe_max": 1.5}},
        "warning",
        r"1.5 at most \(last probe\)",
        "bfloat16",
    ),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_raises_its_alarm_and_no_other(name):
    trouble, level, evidence, advice = TROUBLES[name]
    watch, lines = Watch(Settings()), []
    for step in range(1, 41):
        lines += watch.look(record(step, **trouble(step)))
    assert {line["kind"] for line in lines} == {name.partition("-")[0]}
    assert lines[0]["level"] == level
    assert lines[0]["change"] == "began"
    assert re.search(evidence, lines[0]["evidence"]), lines[0]
    assert re.search(advice, lines[0]["advice"]), lines[0]
    assert (1 if name.endswith(("probe", "-all")) else 5) <= lines[0]["step"] <= 30
    assert len(lines) <= 5, "once, and again only when it got markedly worse"


def test_what_updates_have_made_of_the_policy_is_no_mismatch():
    """Rollouts that are sampled ahead: the difference is the policy's own way, and only a probe tells of the engine."""
    stale = {"logp_difference": 0.4, "logp_difference_max": 9.0, "ratio_mean": 0.8, "stale_steps": 1}
    assert raised(lambda step: {"sampling": stale}, 40) == []
    assert raised(lambda step: {"sampling": {**stale, "probe_mean": 0.12, "probe_max": 1.5}}, 40) != []


def test_every_kind_is_tried():
    assert {name.partition("-")[0] for name in TROUBLES} == set(KINDS)


def test_a_sound_run_raises_none():
    assert raised(lambda step: {}, 300) == []


def of_real_run(rows):
    watch, lines = Watch(Settings(num_generations=8, max_completion_length=40)), []
    for step, row in enumerate(rows, start=1):
        values = dict(zip(real_steps.COLUMNS, row, strict=True))
        sampled = {key.partition("/")[2]: values.pop(key) for key in list(values) if key.startswith("sampled/")}
        parts = {key.partition("/")[2]: values.pop(key) for key in list(values) if key.startswith("part/")}
        lines += watch.look(record(step, sampled=sampled | {"parts": parts}, **values))
    return lines


def test_a_real_sound_run_raises_none():
    assert of_real_run(real_steps.SOUND) == []


def test_a_real_run_that_was_lost_says_so():
    lines = of_real_run(real_steps.LOST)
    first = {line["kind"]: line for line in reversed(lines)}
    assert first.keys() == {"truncation", "dead_groups", "kl_blow_up", "repetition"}
    assert first["truncation"]["step"] < 15
    assert any(line["level"] == "problem" for line in lines if line["kind"] == "truncation")
    assert len(lines) < 10


def test_no_trouble_is_seen_in_a_window_that_is_not_full_or_in_one_wild_step():
    def wild(step):
        if step != 20:
            return {}
        sampled = {"looping": 1.0, "identical": 1.0, "common": 1.0}
        return {"zero_std_share": 1.0, "truncated_share": 1.0, "kl": 50.0, "entropy": 0.001, "sampled": sampled}

    assert raised(wild, 40) == []
    assert raised(lambda step: {"zero_std_share": 1.0, "truncated_share": 1.0, "kl": 9.0}, 4) == []


def test_where_demonstrations_end_in_what_ends_nothing_only_that_is_advised():
    def cut(step):
        return {"truncated_share": 1.0, "reward": 0.0, "sampled": {"truncated_reward": 0.0}}

    idle = "'<|im_end|>\\n' [700, 5]"
    for recipe, setting in ((True, "warmup.args.eos_token"), (False, "tokenizer.eos_token")):
        lines = raised(cut, 10, Settings(idle_end=idle, recipe=recipe))
        (advice,) = [line["advice"] for line in lines if line["kind"] == "truncation"]
        assert advice.startswith(f"demonstrations end in {idle}, which ends no completion: set {setting} to it")
        assert "mask_truncated" not in advice
        assert "max_completion_length" not in advice
    some = raised(lambda step: {**cut(step), "truncated_share": 0.5}, 10, Settings(idle_end=idle))
    assert any("mask_truncated_completions" in line["advice"] for line in some)
    beside = raised(lambda step: {**cut(step), "truncated_share": 0.5}, 10, Settings(idle_end=idle, method="hpt"))
    assert beside
    assert not any("mask_truncated_completions" in line["advice"] for line in beside), "a method refuses it"


def test_few_completions_prove_little():
    """Two of the 40 of a window are cut off, where the limit is two."""
    few = {"completions": 8, "groups": 2}
    assert raised(lambda step: {"truncated_share": 0.125, "sampled": few}, 10) == []
    assert raised(lambda step: {"truncated_share": 0.125, "sampled": None}, 10) != []
    assert raised(lambda step: {"truncated_share": 0.125, "sampled": few | {"completions": 64}}, 10) != []
    assert raised(lambda step: {"zero_std_share": 0.7, "sampled": few}, 10) == []


def test_steps_without_grpo_are_none_of_its_business():
    trouble = TROUBLES["truncation"][0]
    assert raised(lambda step: {**trouble(step), "mix": {"sft": 1.0, "grpo": 0.0}}) == []
    assert raised(lambda step: {**trouble(step), "stage": "warmup"}) == []


def test_steps_of_a_window_that_sample_nothing_do_not_count():
    nothing = dict.fromkeys(("reward", "zero_std_share", "truncated_share", "completion_length", "sampled"))
    lines = raised(lambda step: {"truncated_share": 0.3} if step % 4 == 1 else nothing)
    assert [line["step"] for line in lines] == [17], "the fifth generation"


def test_records_of_older_runs_have_alarms_too():
    lines = raised(lambda step: {"zero_std_share": 0.7, "truncated_share": 0.1, "sampled": None, "sampling": None})
    assert [line["kind"] for line in lines] == ["dead_groups", "truncation"]
    assert "all wrong" not in lines[0]["evidence"]


def test_a_target_of_the_kl_is_what_it_is_measured_by():
    settings = Settings(kl_target=0.1)
    assert raised(lambda step: {"kl": 0.25}, settings=settings) == []
    (line,) = raised(lambda step: {"kl": 0.5}, settings=settings)
    assert "5.0 times kl_target (0.1)" in line["evidence"]
    assert raised(lambda step: {"kl": 1.5}, settings=settings)[0]["level"] == "problem"


def test_parts_that_go_up_and_down_by_themselves_do_not_drift():
    def noisy(step):
        draw = random.Random(step)
        return {"sampled": {"parts": {name: draw.gauss(0.5, 0.3) for name in ("kk.a", "kk.b", "kk.c")}}}

    assert raised(noisy, 200) == []


def test_a_correlation_that_noise_explains_is_none():
    """Two completions a group that differ: r is anything."""
    assert raised(lambda step: {"sampled": {"length_r": 0.6 + noise(step, 1), "length_n": 6}}) == []


def test_entropy_may_go_where_all_is_solved():
    lines = raised(lambda step: {"entropy": 0.5 * 0.02 ** rising(step), "sampled": {"dead_right": 0.95}})
    assert {line["level"] for line in lines if line["kind"] == "entropy_collapse"} == {"warning"}


def test_said_again_only_when_worse_or_back():
    shares = [*[0.08] * 10, *[0.12] * 10, *[0.5] * 10, *[0.0] * (GONE + 10), *[0.08] * 10]
    lines = raised(lambda step: {"truncated_share": shares[step - 1]}, len(shares))
    said = [(line["change"], line["level"]) for line in lines]
    worse = [("got worse", "warning")] * (len(said) - 3) + [("got worse", "problem")]
    assert said == [("began", "warning"), *worse, ("came back", "warning")]
    assert len(said) <= 6
    assert "truncation got worse" in in_words(lines[1])


def test_a_value_that_goes_to_and_fro_at_its_limit_is_said_once():
    lines = raised(lambda step: {"truncated_share": 0.08 if step // 5 % 2 else 0.03}, 200)
    assert [line["change"] for line in lines] == ["began"]


def test_a_resumed_watch_goes_on_as_if_never_stopped():
    def trouble(step):
        return TROUBLES["truncation"][0](step) if step > 10 else TROUBLES["kl_blow_up"][0](step)

    records = [plain(record(step, **trouble(step))) for step in range(1, 61)]
    whole = Watch(Settings())
    expected = [line for each in records for line in whole.look(each)]
    for stop in (3, 12, 30):
        again = Watch(Settings())
        for each in records[:stop]:
            again.look(each)
        assert [line for each in records[stop:] for line in again.look(each)] == [
            line for line in expected if line["step"] > stop
        ]


def test_advice_names_keys_that_a_recipe_has():
    settings = (Settings(), Settings(kl_target=0.1, loss_type="grpo"))
    advice = {line["advice"] for some in settings for name in TROUBLES for line in raised(TROUBLES[name][0], 40, some)}
    keys = {key for text in advice for key in re.findall(r"\b(?:hybrid|rollout|warmup)\.[a-z_.]*[a-z_]", text)}
    assert len(keys) >= 12
    for key in keys:
        section = Recipe
        for part in key.split("."):
            if section is None:  # of `args`, which takes what TRL's config has
                assert part in {each.name for each in fields(SFTConfig)}
                break
            field = section.model_fields[part]
            section = SASR if part == "controller" else _section(field.annotation)
            if section is SASR:
                assert key.rpartition(".")[2] in SASR.__dataclass_fields__
                break
    library = [in_words(line) for name in TROUBLES for line in raised(TROUBLES[name][0], 40, Settings(recipe=False))]
    assert not [text for text in library if re.search(r"\b(hybrid|rollout|warmup)\.", text)]


def _section(annotation):
    kinds = [annotation, *getattr(annotation, "__args__", ())]
    return next((kind for kind in kinds if hasattr(kind, "model_fields")), None)


def test_reading_and_the_summary(tmp_path):
    assert read(tmp_path) == []
    with pytest.raises(ConfigError, match="the directory of a run"):
        read(tmp_path / "nowhere")
    lines = raised(lambda step: {"truncated_share": 0.08 if step < 20 else 0.6, "kl": 3.0})
    for line in lines:
        append_line(tmp_path / "alarms.jsonl", line)
    assert read(tmp_path) == lines
    said = summary(read(tmp_path))
    assert [text.partition(",")[0] for text in said] == ["problem: truncation", "warning: kl blow up"]
    assert re.search(r"raised \d times, first at step 5, last at step 2\d: \d\d%", said[0])
    assert "since step 10" in said[1]


def test_rewards_near_the_largest_number_there_is_do_no_harm():
    watch = Watch(Settings())
    for step in range(1, 25):
        sign = 1.0 if step % 2 else -1.0
        rewards = {"rewards": {"right": sign * 1.7e308, "short": 1.7e308}, "reward": sign * 1.7e308}
        watch.look(record(step, **rewards))


def test_where_nothing_is_ever_right_longer_and_more_completions_are_not_advised_first():
    def cut(score):
        return lambda step: {
            "truncated_share": 0.5, "reward": score, "sampled": {"truncated_reward": score, "finished_reward": score}
        }  # fmt: skip

    rambling, sound = (
        next(line for line in raised(cut(score)) if line["kind"] == "truncation") for score in (0.0, 0.3)
    )
    assert rambling["advice"].startswith(
        "the policy rambles: more warmup.steps first; only then set hybrid.grpo.max_co"
    )
    assert sound["advice"].startswith("set hybrid.grpo.max_completion_length to ")
    whole = raised(lambda step: {"truncated_share": 1.0, "reward": 0.0,
                                 "sampled": {"truncated_reward": 0.0, "finished_reward": None}})  # fmt: skip
    assert any("the policy rambles" in line["advice"] for line in whole), "all cut off"

    def dead(score):
        return lambda step: {
            "zero_std_share": 0.85, "reward": score, "sampled": {"dead_right": 0.0, "dead_wrong": 0.85}
        }  # fmt: skip

    hopeless, hard = (raised(dead(score))[0]["advice"] for score in (0.0, 0.1))
    assert "num_generations" not in hopeless
    assert hopeless.endswith("easier prompts")
    assert "num_generations to 16" in hard


# ---- methods ----


def kinds(trouble, steps=60, settings=None):
    return [(line["kind"], line["about"], line["level"]) for line in raised(trouble, steps, settings)]


def test_a_gate_that_closes_as_the_policy_learns_is_sound():
    assert kinds(lambda step: of_method(gate_open=max(0.0, 0.9 - step / 20)), 100) == []
    assert kinds(lambda step: of_method(gate_open=1.0 if step < 20 else 0.5)) == []


def test_a_method_without_a_gate_has_no_alarm_about_one():
    assert kinds(lambda step: of_method()) == []


def test_a_gate_whose_rollouts_cannot_pass_is_a_problem_that_names_the_key():
    settings = Settings(method="hpt", gate=0, passing=1.0)
    lines = raised(lambda step: of_method(gate_open=1.0, best=0.9), 30, settings)
    assert [(line["level"], line["about"]) for line in lines] == [("problem", "always")]
    assert "the best rollout scored 0.9, and 1 is asked of a solved one" in lines[0]["evidence"]
    assert "set hybrid.method.passing to what a right answer scores (now 1)" in lines[0]["advice"]
    (line,) = raised(lambda step: of_method(gate_open=0.0), 30, Settings(method="hpt", gate=1, passing=1.0))
    assert "the gate of hpt" in line["evidence"]
    assert (
        "raise hybrid.method.gate (now 1 of 8), after a look at `posttrain replay RUN method.gate=2`" in line["advice"]
    )
    (line,) = raised(lambda step: of_method(gate_open=0.0), 30, Settings(method="hpt", gate=1, recipe=False))
    assert "raise gate (now 1 of 8); else" in line["advice"]


def test_few_groups_prove_nothing_of_a_gate():
    def few(step):
        record = of_method(gate_open=0.0)
        return {"method": record["method"] | {"paired": 2}}

    assert kinds(few, 25) == []


def test_beginnings_are_outgrown_where_the_reward_without_one_rises_or_they_stay_long():
    def with_alone(alone, share=lambda step: 0.9 - 0.5 * rising(step)):
        return lambda step: of_method(begun_reward=0.7, alone_reward=alone(step), begun_share=share(step))

    assert kinds(with_alone(lambda step: 0.2 + 0.2 * rising(step))) == []
    assert kinds(with_alone(lambda step: 0.2, lambda step: 0.9)) == []
    assert kinds(with_alone(lambda step: 0.5)) == []
    assert kinds(with_alone(lambda step: 0.05)) == [("prefix_not_outgrown", "", "problem")]


def test_beginnings_that_have_ended_are_compared_with_what_they_scored_last():
    def hints(step):
        over = step > 30
        return of_method(begun_reward=None if over else 0.8, alone_reward=0.1, begun_share=None if over else 0.9)

    assert kinds(hints) == [("prefix_not_outgrown", "", "problem")]
    assert kinds(hints, 30) == []


def test_settings_know_a_methods_gate():
    from posttrain.methods import HPT, UFT

    args = type("Args", (), {name: getattr(Settings(), name) for name in (
        "num_generations", "max_completion_length", "temperature", "learning_rate", "beta", "loss_type"
    )})()  # fmt: skip
    assert Settings.of(args, None, HPT(gate=2, passing=0.5)) == Settings(method="hpt", gate=2, passing=0.5)
    assert Settings.of(args, None, UFT()) == Settings(method="uft")
