"""What an AdaLoRA adapter's arguments may be: what the stage would divide by or never come to is refused."""

from __future__ import annotations

import pytest

from posttrain.recipe.model_sections import LoraSection


@pytest.mark.parametrize(
    "args",
    [{"deltaT": 0}, {"deltaT": None}, {"tinit": -3}, {"tinit": 2.5}, {"tfinal": "x"}, {"init_r": 5.5},
     {"orth_reg_weight": -1.0}, {"orth_reg_weight": float("nan")}, {"init_r": 2}],
)  # fmt: skip
def test_numbers_that_are_none_are_refused(args):
    (name,) = args
    with pytest.raises(ValueError, match=name):
        LoraSection(kind="adalora", r=2, args=args)


def test_the_others_are_taken():
    args = {"deltaT": 2, "tinit": 0, "tfinal": 3, "init_r": 4, "orth_reg_weight": 0}
    fields = LoraSection(kind="adalora", r=2, args=args).peft_kwargs()
    assert (fields["deltaT"], fields["init_r"], fields["target_r"]) == (2, 4, 2)
