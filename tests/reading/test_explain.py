"""Explaining a run: each sentence's numbers give what it says, and a record that does not add up is called so."""

from __future__ import annotations

import json
import math
import re

import pytest

from posttrain.cli import main
from posttrain.controllers import GAC, SASR, Alternate, Chord, Cosine, GRPOOnly, SFTOnly, Static, Switch
from posttrain.controllers.base import draw
from posttrain.errors import ConfigError
from posttrain.reading.explain import explain_step, read, seconds_in_words
from posttrain.reading.explain_summary import explain_run, ranges
from posttrain.rundir.facts import read_recipe, write_recipe
from posttrain.rundir.rundir import RunDir
from posttrain.storage import files
from posttrain.storage.checkpoints import seal
from tests.reading.recorded import G_WARMUP, recorded_run

NUMBER = r"([-+.\de]+)"


def numbers(sentence: str, pattern: str) -> list[float]:
    """The numbers where `#` stands in a pattern of plain text."""
    found = re.search(re.escape(pattern).replace(r"\#", NUMBER), sentence)
    assert found, f"{pattern!r} is not in {sentence!r}"
    return [float(each.rstrip(".")) for each in found.groups()]


def test_the_numbers_of_a_sasr_step_give_its_p_and_its_draw(tmp_path):
    run = read(recorded_run(tmp_path / "run", SASR(gamma=0.7)))
    for decision in run.decisions:
        told = explain_step(run, decision.step)
        text = " ".join(told["sentences"])
        last, again, gamma, warm, p = numbers(text, "G_warmup) = # / (# + # * #) = #")
        assert last == again
        assert gamma == 0.7
        assert warm == pytest.approx(G_WARMUP)
        assert p == pytest.approx(last / (last + gamma * warm), abs=6e-4) == pytest.approx(told["p"], abs=6e-4)
        assert told["u"] == draw(decision.before)
        sign = "<" if decision.record["mix"]["sft"] else ">="
        u, said = numbers(text, f"The draw was # {sign} p = #")
        assert (u < said) == (sign == "<")
        assert told["follows"] is True
        assert f"Step {decision.step} was {'an SFT' if sign == '<' else 'a GRPO'} step." in text


def test_the_norm_and_the_kl_are_told_with_the_step_they_are_from(tmp_path):
    run = read(recorded_run(tmp_path / "run", SASR(gamma=1.0, kl_target=0.02, kappa=2.0)))
    assert "No SFT gradient has been measured in this stage yet" in " ".join(explain_step(run, 1)["sentences"])
    acted = []
    for decision in run.decisions[1:]:
        text = " ".join(explain_step(run, decision.step)["sentences"])
        earlier = [each.record for each in run.decisions[: decision.step - 1]]
        with_norm = [line for line in earlier if line["sft_norm"] is not None]
        if with_norm:
            assert numbers(text, "gradient's norm at step #,") == [with_norm[-1]["step"]]
        with_kl = [line for line in earlier if line["kl"] is not None]
        if "guard acted" in text:
            kl, step, target = numbers(text, "the KL #, measured at step #, is above its target #,")
            assert (step, kl) == (with_kl[-1]["step"], pytest.approx(with_kl[-1]["kl"], rel=1e-3))
            assert kl > target
            kappa, _, _, pull = numbers(text, "kappa * (KL / kl_target - 1) = # * (# / # - 1) = #")
            assert pull == pytest.approx(kappa * (kl / target - 1), rel=0.01)
            before, after = numbers(text, "and p from # to #")
            logit = math.log(before / (1 - before)) + pull
            assert after == pytest.approx(min(0.95, 1 / (1 + math.exp(-logit))), abs=0.01)
            acted.append(decision.step)
        else:
            assert not with_kl or with_kl[-1]["kl"] <= 0.02
    assert acted
    assert any("guard acted at" in s and str(len(acted)) in s for s in explain_run(run)["sentences"])


@pytest.mark.parametrize(
    ("controller", "said"),
    [
        (Static(sft_share=0.3), "p is fixed: sft_share = 0.3."),
        (Cosine(start_share=0.9, end_share=0.1), "the schedule was 26% through"),
        (Alternate(sft_steps=2, grpo_steps=3), "this was place 1 of 5 in the cycle: SFT, 1 of 2"),
        (SFTOnly(), "The controller is sft_only: every step is"),
        (GRPOOnly(), "The controller is grpo_only: every step is"),
        (SASR(mode="blend", match_norms=True), "match_norms makes the first SFT's share"),
        (Switch(), "SFT until step 20 of 40 (at: 0.5), then GRPO: this step leaves 9 more."),
        (Switch(at=5), "step 5 was the last one."),
        (Switch(at="flat", window=5), "the mean loss of 5 SFT steps went from 0."),
        (Chord(mu_decay_steps=20), "mu = 0.475 = 0.05 + (0.9 - 0.05) * (1 + cos(pi * 10/20)) / 2: it falls over 20"),
        (Chord(mu_decay_steps=5), "= mu_valley: the schedule's 5 steps are over"),
        (Chord(mu_warmup_steps=20), "mu = 0.450 = 0.9 * 10/20: it rises for 20 steps"),
        (Chord(tau=0.6), "mu = tau - reward = 0.6 - 0.5 = 0.100: the last mean reward was 0.5"),
        (GAC(), "mu* = (alpha * D + S_r) / (D + S_s + S_r) = (0.5 * 2 + 1) / (2 + 0.525 + 1) = 0.567, from"),
        (SASR(gamma=50.0, refresh_every=4), "was measured again without stepping on it"),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_every_controller_is_explained(tmp_path, controller, said):
    run = read(recorded_run(tmp_path / "run", controller))
    texts = [" ".join(explain_step(run, step)["sentences"]) for step in range(1, 41)]
    if controller.name == "cosine":
        *_, p = numbers(texts[10], "= 0.1 + (0.9 - 0.1) * (1 + cos(pi * #)) / 2 = #:")
        assert p == pytest.approx(0.1 + 0.8 * (1 + math.cos(math.pi * 10 / 39)) / 2, abs=6e-4)
    if controller.name == "sasr" and controller.mode == "blend":
        assert all(sum(numbers(text, "SFT with weight # and GRPO with #")) == pytest.approx(1) for text in texts)
    assert said in (texts[10] if "refresh" not in said and "measured again" not in said else " ".join(texts))
    told = explain_run(run)
    assert told["follows"] is True
    assert told["controller"]["name"] == controller.name
    assert any("All 40 decisions were taken again" in sentence for sentence in told["sentences"])


def test_what_does_not_follow_from_the_record_is_said(tmp_path, capsys):
    folder = recorded_run(tmp_path / "run", SASR())
    lines = files.read_lines(folder / "steps.jsonl")
    lines[4]["p"] += 0.01
    lines[9]["mix"] = {"sft": 1.0 - lines[9]["mix"]["sft"], "grpo": 1.0 - lines[9]["mix"]["grpo"]}
    lines[14]["controller"]["g_last"] = 9.0
    (folder / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["explain", str(folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["follows"]
    assert [step for step, _ in told["differs"]][:3] == [5, 10, 10]
    words = dict(reversed(told["differs"]))
    assert "p is recorded as" in words[5]
    assert "the weight of SFT" in words[10]
    assert "afterwards the controller held g_last = 9" in words[15]
    assert main(["explain", str(folder), "--step", "5"]) == 1
    assert "This does not add up: p is recorded as" in capsys.readouterr().out
    assert main(["explain", str(folder), "--step", "4"]) == 0


def test_a_recipe_that_changed_on_the_way_is_not_blamed_on_the_numbers_that_agree(tmp_path):
    folder = recorded_run(tmp_path / "run", SASR(gamma=1.0))
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("gamma: 1.0", "gamma: 2.0"))
    told = explain_run(read(folder))
    assert told["follows"] is False
    assert any("--accept-changes" in sentence for sentence in told["sentences"])
    recipe.write_text(recipe.read_text().replace("name: sasr", "name: cosine").split("    gamma")[0])
    run = read(folder)
    assert "not of the controller that recipe.yaml names" in run.decisions[3].differs[0]
    assert 'The record says why: "u=' in " ".join(explain_step(run, 4)["sentences"])


def test_a_change_that_was_accepted_is_named_with_the_step_it_is_from(tmp_path):
    folder = recorded_run(tmp_path / "run", SASR(gamma=1.0))
    lines = files.read_lines(folder / "steps.jsonl")
    files.write_jsonl(folder / "steps.jsonl", lines[:20])
    checkpoint = folder / "checkpoints" / "hybrid" / "checkpoint-20"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state").write_text("x")
    seal(checkpoint)
    recipe = read_recipe(folder / "recipe.yaml")
    recipe["hybrid"]["controller"]["gamma"] = 4.0
    for _ in range(2):  # the second time it is the run's own recipe
        RunDir.open(folder, recipe, {}, accept_changes=True).close()
    run, changed = read(folder), "hybrid.controller.gamma: 1.0 -> 4.0"
    said = explain_run(run)["sentences"][-1]
    assert f"from step 21 on the run went on under changed settings ({changed})" in said
    assert "--accept-changes" not in said
    assert f"Settings were changed later, from step 21 on: {changed}." in explain_step(run, 5)["sentences"]
    files.write_jsonl(folder / "steps.jsonl", lines)  # those from step 21 on follow from no settings that were given
    said = explain_run(read(folder))["sentences"][-1]
    assert "do NOT follow" in said
    assert changed not in said
    assert not any("changed later" in sentence for sentence in explain_step(read(folder), 25)["sentences"])


def test_a_step_without_a_spread_a_skipped_one_and_a_clipped_one(tmp_path):
    run = read(recorded_run(tmp_path / "run", Alternate(), skipped=(6, 7), dead=(8, 10, 12)))
    text = " ".join(explain_step(run, 8)["sentences"])
    assert "every advantage is 0 and the GRPO loss with it" in text
    assert "loss 0," in text
    assert "taught nothing" not in " ".join(explain_step(run, 4)["sentences"])
    assert "its gradient was not finite" in " ".join(explain_step(run, 6)["sentences"])
    told = " ".join(explain_run(run)["sentences"])
    assert "At 3 GRPO steps (steps 8, 10, 12) no group had one" in told
    assert "Skipped, for a gradient that was not finite: steps 6-7." in told
    assert "20 SFT" in told
    assert "20 GRPO" in told


@pytest.mark.parametrize(
    ("controller", "grpo"),
    [
        (Static(mode="blend"), {}),
        (GRPOOnly(), {"beta": 0.1}),
        (GRPOOnly(), {"entropy_coef": -0.01}),
        (GRPOOnly(), None),
    ],
    ids=["blend", "beta", "entropy", "no-recipe"],
)
def test_a_step_without_a_spread_that_had_another_loss_is_not_said_to_have_taught_nothing(tmp_path, controller, grpo):
    folder = recorded_run(tmp_path / "run", controller, dead=(8,))
    if grpo is None:
        (folder / "recipe.yaml").unlink()
    else:
        recipe = read_recipe(folder / "recipe.yaml")
        recipe["hybrid"]["grpo"] = {"beta": 0.0, "entropy_coef": 0.0} | grpo
        write_recipe(folder / "recipe.yaml", recipe)
    run = read(folder)
    for sentences in (explain_step(run, 8)["sentences"], explain_run(run)["sentences"]):
        text = " ".join(sentences)
        assert "no advantage came from the rewards" in text
        assert "taught nothing" not in text
    assert "no advantage" not in " ".join(explain_step(run, 7)["sentences"])


def test_norms_are_compared_with_the_warm_up_from_which_the_ratio_began(tmp_path):
    def told(*, ratios: dict[int, float]) -> str:
        """Of a run that measured SFT norms of so many times G_warmup at some of its 40 steps, and at no other."""
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        recorded_run(folder, SASR(gamma=1.0))
        lines = files.read_lines(folder / "steps.jsonl")
        for line in lines:
            line["sft_norm"] = ratios[line["step"]] * G_WARMUP if line["step"] in ratios else None
        files.write_jsonl(folder / "steps.jsonl", lines)
        return next(s for s in explain_run(read(folder))["sentences"] if s.startswith("p is 1/2"))

    late = told(ratios={35: 0.2, 36: 0.2})
    assert "by quarter -, -, -, 0.20 times G_warmup, from 1 at the start" in late
    assert "alone they pulled p down" in late
    assert "alone they pulled p up" in told(ratios={3: 2.0, 30: 1.5})
    assert "alone" not in told(ratios={3: 0.3, 36: 1.02})


def test_a_warm_up_norm_that_the_recipe_gives_is_not_called_the_warm_ups(tmp_path):
    def origin(controller: SASR) -> str:
        run = read(recorded_run(tmp_path / str(controller.g_warmup), controller))
        step = next(each.step for each in run.decisions if each.before["measured_at"])
        return next(s for s in explain_step(run, step)["sentences"] if s.startswith("G_last is the SFT"))

    assert origin(SASR()).endswith("times what the warm-up ended with.")
    assert origin(SASR(g_warmup=2.0)).endswith("times G_warmup (set by the recipe).")


def test_time_is_told_by_half_and_scoring_that_passes_beside_sampling_is_not_counted(tmp_path):
    run = read(recorded_run(tmp_path / "run", Alternate()))
    told = next(s for s in explain_run(run)["sentences"] if s.startswith("The steps took"))
    # 20 steps of 0.2 of 0.25 s, 20 of which 1.0 s (0.5 + 0.1 + 0.1, and 0.3 beside them) of 1.25 s
    assert told == (
        "The steps took 30s: 13% in the SFT half, 67% in the GRPO half (generate 33%, score 7%, kl 7%, grpo 20%), "
        "20% in the rest."
    )
    assert seconds_in_words({"total": 2.0, "generate": 1.0, "grpo": 0.9, "scored_ahead": 1.0}) == (
        "It took 2 s: generate 1 s (50%), grpo 0.9 s (45%), the rest 0.1 s."
    )
    assert seconds_in_words({}) == ""


def test_runs_that_lack_something_say_what(tmp_path, capsys):
    folder = recorded_run(tmp_path / "run", SFTOnly(), steps=4)
    assert "There was no GRPO step" in " ".join(explain_run(read(folder))["sentences"])
    (folder / "steps.jsonl").unlink()
    assert main(["explain", str(folder)]) == 0
    assert "No hybrid step is recorded yet" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigError, match="no hybrid step yet"):
        explain_step(read(folder), 1)
    library = recorded_run(tmp_path / "library", SASR(), steps=4)
    (library / "recipe.yaml").unlink()
    run = read(library)
    told, text = explain_run(run), " ".join(explain_step(run, 2)["sentences"])
    assert told["follows"] is None
    assert "could not be taken again" in " ".join(told["sentences"])
    assert "There is no recipe.yaml" in text
    assert "The record says why" in text
    with pytest.raises(ConfigError, match="one of 1 to 4"):
        explain_step(run, 5)
    files.keep_lines(library / "steps.jsonl", lambda line: line["step"] != 2)
    assert main(["explain", str(tmp_path)]) == 2
    assert "is no run" in capsys.readouterr().err


def test_a_line_that_is_not_there_is_missed(tmp_path):
    folder = recorded_run(tmp_path / "run", SASR(), steps=6)
    files.keep_lines(folder / "steps.jsonl", lambda line: line["step"] != 3)
    run = read(folder)
    assert [each.step for each in run.decisions if each.differs] == [4]
    assert run.decisions[2].differs == ("the line of step 3 is not there",)


def test_steps_are_written_as_stretches():
    assert ranges([3, 4, 5, 9, 11, 12]) == "steps 3-5, 9, 11-12"
    assert ranges([7]) == "step 7"
    assert ranges(range(1, 40, 2)).endswith("15 and 12 more stretches")


def test_a_column_of_zeros_is_shown_and_one_of_nothing_is_not(tmp_path, monkeypatch, capsys):
    """Rewards and gradients that are 0 all along are what one has to see; the table fits 80 columns."""
    folder = recorded_run(tmp_path / "run", SASR())
    lines = files.read_lines(folder / "steps.jsonl")
    for line in lines:
        line |= {"kl": None}
        if line["mix"]["grpo"]:
            line |= {"reward": 0.0, "grpo_norm": 0.0, "zero_std_share": 0.0}
    (folder / "steps.jsonl").unlink()
    for line in lines:
        files.append_line(folder / "steps.jsonl", line)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["explain", str(folder)]) in (0, 1)
    out = capsys.readouterr().out.splitlines()
    head = next(line for line in out if "steps" in line and "GRPO norm" in line)
    assert head.split() == ["steps", "SFT", "GRPO", "p", "SFT", "loss", "SFT", "norm", "GRPO", "norm", "reward", "dead"]
    assert next(line for line in out if line.startswith(" 1-10")).split()[-3:] == ["0", "0", "0"]
