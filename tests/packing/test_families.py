"""Every family that is packed has TRL's gradients, and every one that is not says why; by the table in `families`."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest
import torch

from posttrain.inputs.data import IGNORED
from posttrain.models.positions import count_by_mask
from posttrain.packing import attention, checks, families
from posttrain.packing.scores import install, label_scores, row_scores, supports
from posttrain.training.sft_side import add_untempered_head
from tests.models.test_positions import apart
from tests.packing.families import PACKED, PADDED, configuration, error, small
from tests.training.test_tree import BATCHES, assert_same, gradient, rows

WINDOWS = ("mistral, window", "gpt_oss, window, sinks")


@pytest.mark.parametrize("name", PACKED)
def test_a_family_gives_trls_gradients(name):
    case = PACKED[name]
    model = small(case)
    assert supports(model) is None
    assert supports(model.config) is None
    assert_same(model, rows(BATCHES["groups of one size"]))


@pytest.mark.parametrize("name", PACKED)
def test_padding_does_not_move_a_row_that_is_counted_by_the_mask(name):
    """So that rows may go to other processes and batches."""
    model = small(PACKED[name])
    count_by_mask(model)
    assert apart(model.eval()) < 1e-5


@pytest.mark.parametrize("name", [name for name, case in PACKED.items() if "moe" in case.family or "mixtral" in name])
def test_a_mixture_of_experts_has_experts(name):
    names = [name for name, _ in small(PACKED[name]).named_modules()]
    assert any("experts" in name or "block_sparse_moe" in name for name in names)


@pytest.mark.parametrize("name", PADDED)
def test_a_family_that_stays_padded_says_why_by_its_configuration(name):
    case, why = PADDED[name]
    assert why in supports(configuration(case))


def test_each_family_that_is_allowed_is_in_the_table():
    assert {case.family for case in PACKED.values()} == set(families.FAMILIES)
    windowed = {case.family for name, case in PACKED.items() if "window" in name and "without" not in name}
    assert windowed | {"gemma4_text"} == set(families.WINDOWED)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("window", [1, 7, 64])
def test_windows_shorter_and_longer_than_rows(name, window, batch):
    assert_same(small(PACKED[name], sliding_window=window), rows(BATCHES[batch]))


@pytest.mark.parametrize("name", ["gemma3_text, window in some layers", "gpt_oss, window, sinks"])
def test_a_window_is_seen(name):
    """The table's rows are long enough that another window gives another gradient."""
    batch = rows(BATCHES["groups of one size"])
    found = []
    for window in (4, 5):
        model = small(PACKED[name], sliding_window=window)
        assert install(model) is None
        found.append(gradient(model, row_scores(model, *batch, autocast=nullcontext, entropy=True)))
    assert (found[0] - found[1]).norm() / found[0].norm() > 0.01


def test_sinks_and_the_soft_cap_are_seen():
    batch = rows(BATCHES["groups of one size"])
    for name, changed in (("gpt_oss, window, sinks", None), ("gemma2, window, soft cap", 20.0)):
        logps = []
        for step in range(2):
            model = small(PACKED[name], **({"attn_logit_softcapping": changed} if changed and step else {}))
            if changed is None and step:
                for layer in model.model.layers:
                    layer.self_attn.sinks.data += 2.0
            assert install(model) is None
            logps.append(row_scores(model, *batch, autocast=nullcontext, entropy=False)[0].detach())
        assert (logps[0] - logps[1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "name", ["gpt_oss, window, sinks", "gemma4_text, layers that share keys", "mixtral, window", "qwen3_moe"]
)
def test_gradient_checkpointing(name):
    model = small(PACKED[name])
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    assert_same(model, rows(BATCHES["groups of unequal sizes"]))


@pytest.mark.parametrize("name", ["gemma3_text, window in some layers", "gpt_oss, window, sinks"])
def test_bf16_autocast(name):
    """Loosely: the order in which bf16 rounds differs, and a router may choose another expert."""
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    case = PACKED[name]
    changes = {"num_experts_per_tok": 4} if case.family == "gpt_oss" else {}
    assert_same(
        small(case, **changes), rows(BATCHES["groups of one size"]), logps=0.3, relative=0.08, autocast=autocast
    )


def test_demonstrations_in_a_window():
    model = small(PACKED["mistral, window"])
    add_untempered_head(model)
    assert install(model) is None
    ids, _, more, _ = rows([[9, 3, 5, 1]])
    ids = torch.cat([ids, more], dim=1).roll(-5, dims=1)
    labels = ids.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4, IGNORED)
    head = {"fused_lm_head": True, "untempered": True}
    padded = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, **head).log_probs
    packed = label_scores(model, ids, labels, autocast=nullcontext, untempered=True)
    torch.testing.assert_close(packed, padded, rtol=0.0, atol=2e-5)


def test_a_router_loss_that_only_the_configuration_asks_for_does_not_come_in():
    model = small(PACKED["qwen3_moe"])
    model.config.output_router_logits, model.config.router_aux_loss_coef = True, 0.0
    batch = rows(BATCHES["groups of one size"])
    assert install(model) is None
    asked = row_scores(model, *batch, autocast=nullcontext, entropy=False)[0]
    model.config.output_router_logits = False
    assert torch.equal(row_scores(model, *batch, autocast=nullcontext, entropy=False)[0], asked)


def test_without_a_tree_the_eager_stand_in_is_the_models_own():
    for name in ("gpt_oss, window, sinks", "gemma2, window, soft cap"):
        model = small(PACKED[name]).eval()
        ids, mask, *_ = rows(BATCHES["groups of unequal sizes"])
        sample = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
        logits, written = model(ids, attention_mask=mask).logits, model.generate(**sample)
        assert install(model) is None
        assert torch.equal(model(ids, attention_mask=mask).logits, logits)
        assert torch.equal(model.generate(**sample), written)


def test_a_window_of_which_the_attention_is_not_told_is_found():
    model = small(PACKED["mistral, window"])
    for layer in model.model.layers:
        layer.self_attn.config = type(model.config)(**{**model.config.to_dict(), "sliding_window": None})
        layer.self_attn.config._attn_implementation = checks.TRIAL
    assert "has a mask with a window of 4 and is told 0" in checks.deaf(model)


def test_a_mask_that_is_neither_causal_nor_a_window_is_found(monkeypatch):
    model = small(PACKED["llama"])
    assert checks.deaf(model) is None
    by_chunk = partial(checks._window, mask_function=lambda row, head, query, key: key // 4 == query // 4)
    monkeypatch.setattr(checks, "_window", lambda *args, mask_function, **more: by_chunk(**more))
    assert "neither causal nor a sliding window" in checks.deaf(model)


def test_the_longest_row_decides_whether_a_window_cuts(monkeypatch):
    """A window that no row fills leaves the fast kernels in place."""
    asked = []
    monkeypatch.setattr(attention, "masked", lambda *args: asked.append(args[-1]) or attention._Merged.apply(*args[:5]))
    for window in (64, 4):
        model = small(PACKED["mistral, window"], sliding_window=window)
        assert install(model) is None
        row_scores(model, *rows(BATCHES["one row"]), autocast=nullcontext, entropy=False)
        assert asked == ([] if window == 64 else [4, 4])


def test_the_page_has_the_table():
    page = (Path(__file__).parents[2] / "docs" / "packing.md").read_text()
    for name in (*PACKED, *PADDED):
        assert f"| {name} | " in page
    for name in ("llama", *WINDOWS):
        said = float(page.split(f"| {name} | ")[1].split(" |")[0])
        assert 0.1 * said < error(PACKED[name]) < 10 * said
