"""Demonstrations of a warm-up as a curriculum draws them: the rows, packed or not, and going on where it stopped."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from posttrain.curricula import BOTS, DMT, DUMP, RIF, Aioli, EasyToHard, Human, MixedSources, Sampler, SkillIt, Table
from posttrain.curricula.base import outcomes_of
from posttrain.errors import ConfigError, DataError
from posttrain.inputs.data import numbered_demonstrations, tokenize_demonstrations
from posttrain.training.warmup import warm_up
from tests.training.conftest import COMMON, ROWS, StopAt

LOOKED = ("step", "sft_loss", "sft_norm", "grad_norm", "entropy", "learning_rate", "demonstration_cursor", "curriculum")
SOURCES = ["even" if row["answer"] % 2 == 0 else "odd" for row in ROWS]
COLUMNS = {"source": SOURCES, "level": [row["answer"] for row in ROWS]}
SHARES = MixedSources(shares={"even": 3, "odd": 1})


class Steps(list[dict[str, Any]]):
    def step(self, record: dict[str, Any]) -> None:
        self.append(json.loads(json.dumps(record)))


@pytest.fixture(scope="module")
def rows(tokenizer) -> Dataset:
    """Of unequal length, so that there is padding."""
    longer = [{**row, "completion": str(row["completion"]) * (1 + i % 3)} for i, row in enumerate(ROWS)]
    return tokenize_demonstrations(longer, tokenizer)


@pytest.fixture
def warmed(model_folder, tokenizer, rows, tmp_path):
    """The steps that a warm-up recorded, and its weights."""

    def train(curriculum: Any, folder: str = "run", *, steps=6, stop=None, resume=None, seed=5, **own: Any):
        set_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        own = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, **own}
        packed = own.pop("packed", True)
        args = SFTConfig(str(tmp_path / folder), max_steps=steps, **COMMON | own)
        recorder = Steps()
        found = warm_up(
            model, tokenizer, rows, args, norm_window=1, recorder=recorder, packed=packed, curriculum=curriculum,
            callbacks=[StopAt(stop)] if stop else [],
            checkpoint=tmp_path / folder / f"checkpoint-{resume}" if resume else None,
        )  # fmt: skip
        lines = [{name: line.get(name) for name in LOOKED} for line in recorder]
        return lines, torch.cat([p.detach().flatten() for p in model.parameters()]), found

    return train


def sampler_of(curriculum, columns=COLUMNS) -> Sampler:
    return Sampler(curriculum, curriculum.table(columns, list(columns), of="demonstrations"))


def drawn(lines) -> list[int]:
    return [row for line in lines for window in line["curriculum"]["windows"] for row in window["rows"]]


def replayed(sampler: Sampler, lines, seed: int = COMMON["seed"]) -> None:
    """Every draw again, from the record alone."""
    state = sampler.start(seed)
    for line in lines:
        for window in line["curriculum"]["windows"]:
            for measured in window.get("measured", ()):
                assert sampler.ask(state).kind == measured["kind"]
                state = sampler.take(state, measured["values"])
            assert sampler.ask(state) is None
            assert sampler.draw(state, len(window["rows"])) == window["rows"]
            again = json.loads(json.dumps(sampler.window(state, outcomes_of(window))))
            assert {**again, "measured": None} == {**window, "measured": None}
            state = sampler.observe(state, outcomes_of(window))


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
def test_a_step_trains_on_the_rows_that_the_curriculum_draws(packed, warmed, model_folder, rows, tokenizer, tmp_path):
    """The same losses and weights as TRL's own trainer on these rows in this order."""
    sampler = sampler_of(EasyToHard(by="level"))
    lines, weights, found = warmed(sampler, packed=packed)
    order = sorted(range(len(ROWS)), key=COLUMNS["level"].__getitem__)[:24]
    assert drawn(lines) == order
    set_seed(5)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    args = SFTConfig(
        str(tmp_path / "trl"), max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        train_sampling_strategy="sequential", shuffle_dataset=False, **COMMON,
    )  # fmt: skip
    theirs = SFTTrainer(model, args, train_dataset=rows.select(order), processing_class=tokenizer)
    theirs.remove_callback(PrinterCallback)
    theirs.train()
    logged = [log for log in theirs.state.log_history if "grad_norm" in log]
    for line, log in zip(lines, logged, strict=True):
        assert line["sft_loss"] == pytest.approx(log["loss"], rel=2e-5)
        assert line["grad_norm"] == pytest.approx(log["grad_norm"], rel=2e-5)
    other = torch.cat([p.detach().flatten() for p in model.parameters()])
    if packed:
        assert torch.linalg.norm(weights - other) <= 1e-5 * torch.linalg.norm(other)
    else:
        assert torch.equal(weights, other)
    assert found.demonstration_cursor == 0, "none of the shuffled stream was taken"


@pytest.mark.parametrize(
    "curriculum",
    [SHARES, MixedSources(caps={"even": 4}), Human(), DMT(special=("odd",), k=0.5), EasyToHard(by="level")],
    ids=["shares", "caps", "human", "dmt", "easy_to_hard"],
)
def test_a_warm_up_that_stops_and_goes_on_is_one_that_never_stopped(curriculum, warmed):
    sampler = sampler_of(curriculum, {**COLUMNS, "level": [value % 3 for value in COLUMNS["level"]]})
    whole, weights, _ = warmed(sampler, "whole")
    first, *_ = warmed(sampler, "cut", stop=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint")
        rest, other, _ = warmed(sampler, "cut", resume=4, seed=99)
    assert torch.equal(weights, other)
    assert first[:4] + rest == whole
    replayed(sampler, whole)
    counts = [line["curriculum"]["sources"] for line in whole]
    assert all(sum(of["demonstrations"] for of in some.values()) == 4 for some in counts)
    if curriculum is SHARES:
        assert counts == [{"even": {"demonstrations": 3}, "odd": {"demonstrations": 1}}] * 6


BY_LOSSES = {
    "skill_it": SkillIt(update_steps=2, held_out=3, eta=1.0, graph={"odd": ("even",)}),
    "aioli": Aioli(sweeps=1, probe_steps=1, update_steps=4, held_out=3, eta=3.0),
}


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("name", BY_LOSSES)
@pytest.mark.parametrize("stop", [3, 4])
def test_what_was_measured_is_measured_alike_after_a_stop(name, stop, packed, warmed):
    """Stopped before a measurement is due, and where it is."""
    sampler = sampler_of(BY_LOSSES[name])
    whole, weights, _ = warmed(sampler, "whole", steps=7, packed=packed)
    warmed(sampler, "cut", steps=7, stop=stop, packed=packed)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the checkpoint")
        rest, other, _ = warmed(sampler, "cut", steps=7, resume=stop, seed=99, packed=packed)
    assert torch.equal(weights, other)
    assert rest == whole[stop:]
    replayed(sampler, whole)
    measured = [m for line in whole for window in line["curriculum"]["windows"] for m in window.get("measured", ())]
    assert len(measured) == {"skill_it": 3, "aioli": 6}[name]
    assert all(each["kind"] == "losses" and each["rows"] == 6 and each["tokens"] > 6 for each in measured)
    assert sum(each["rows"] for each in measured) == sampler.curriculum.passes(sampler.table, 7)


def test_a_loss_is_the_mean_nll_of_what_is_held_out(warmed, model, rows):
    """Of the weights as they were handed in, by transformers' own loss, one row at a time."""
    sampler = sampler_of(BY_LOSSES["aioli"])
    held = sampler.curriculum.held(sampler.table, COMMON["seed"])
    for packed in (True, False):
        lines, *_ = warmed(sampler, steps=5, packed=packed, per_device_train_batch_size=4)
        (first,) = lines[0]["curriculum"]["windows"][0]["measured"]
        for name, some in held.items():
            total, count = 0.0, 0
            for row in some:
                ids, labels = (torch.tensor([rows[row][key]]) for key in ("input_ids", "labels"))
                labelled = int((labels[:, 1:] != -100).sum())
                with torch.no_grad():
                    total += float(model.eval()(input_ids=ids, labels=labels).loss) * labelled
                count += labelled
            assert first["values"][name] == pytest.approx(total / count, rel=1e-5)
        assert not set(drawn(lines)) & {row for some in held.values() for row in some}


def test_another_curriculum_begins_anew_where_the_checkpoint_stands(warmed):
    warmed(sampler_of(Human()), "cut", stop=2)
    lines, *_ = warmed(sampler_of(EasyToHard(by="level")), "cut", resume=2)
    order = sorted(range(len(ROWS)), key=COLUMNS["level"].__getitem__)
    assert drawn(lines) == order[8:24]


@pytest.mark.parametrize(
    ("curriculum", "says"),
    [
        (DUMP(), "goes by what rollouts gave, and a warm-up has none"),
        ("bots", "goes by what rollouts gave"),
        (RIF(), "measures pass rates by rollouts, and demonstrations are not sampled(.|\n)*easy_to_hard with `by`"),
        (EasyToHard(), "measures pass rates by rollouts"),
        (Sampler(BOTS(), Table(25)), "goes by what rollouts gave"),
        (Sampler(EasyToHard(by="level"), Table(3, {"level": [1, 2, 3]})), "over 3 rows(.|\n)*the 25 demonstrations"),
        ("hard_to_easy", "no curriculum named 'hard_to_easy'"),
    ],
)
def test_what_goes_by_rollouts_is_refused(curriculum, says, warmed):
    with pytest.raises(ConfigError, match=says):
        warmed(curriculum)


def test_columns_may_stand_in_the_demonstrations(rows, model, tokenizer, tmp_path):
    named = rows.add_column("source", SOURCES)
    args = SFTConfig(str(tmp_path), max_steps=1, per_device_train_batch_size=4, **COMMON)
    steps = Steps()
    warm_up(model, tokenizer, named, args, norm_window=1, recorder=steps, curriculum=SHARES)  # type: ignore[arg-type]
    assert steps[0]["curriculum"]["sources"] == {"even": {"demonstrations": 3}, "odd": {"demonstrations": 1}}
    with pytest.raises(DataError, match="the demonstrations have no column 'level'"):
        warm_up(model, tokenizer, named, args, norm_window=1, recorder=steps, curriculum=Human())  # type: ignore[arg-type]


def test_demonstrations_that_trl_would_cut_are_refused(warmed):
    with pytest.raises(ConfigError, match=r"a demonstration of .. tokens, and max_length 10"):
        warmed(sampler_of(SHARES), max_length=10)


def test_rows_without_a_label_left_are_not_drawn_from(tokenizer):
    long = {"prompt": "0 plus 0 is " * 9, "completion": " 0."}
    kept, numbers = numbered_demonstrations([long, *ROWS, long], tokenizer, max_length=12)
    assert numbers == list(range(1, 1 + len(ROWS)))
    assert kept[0] == tokenize_demonstrations(ROWS[:1], tokenizer)[0]
