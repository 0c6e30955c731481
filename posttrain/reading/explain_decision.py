"""One decision of a controller in sentences, each with the numbers it is made of.

A sentence is computed by the formula that the controller's module states, from the state that the record holds; the
decision itself was taken again by the controller (see `decisions`), so what is said here is what it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from posttrain.controllers import (
    GAC,
    SASR,
    Alternate,
    Chord,
    Controller,
    Cosine,
    GRPOOnly,
    Mix,
    SFTOnly,
    State,
    Static,
    Switch,
)
from posttrain.controllers.base import clock, draw
from posttrain.controllers.sasr import GUARD_CEILING


def kind_of(mix: dict[str, Any]) -> str:
    """What a step was made of, in words: "an SFT step", "a GRPO step" or "a step of both losses"."""
    if mix.get("sft") and mix.get("grpo"):
        return "a step of both losses"
    return "an SFT step" if mix.get("sft") else "a GRPO step"


def number(value: float | None) -> str:
    """Four digits, as the record's own reasons have them."""
    return "nothing" if value is None else f"{value:.4g}"


def why(controller: Controller, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    """The sentences of one decision.

    Args:
        controller: Whose.
        before: What it knew.
        mix: What it decided.
        kl_step: The step that `before`'s KL was measured at.
    """
    told = _TELLERS.get(type(controller))
    if told is None:
        return [mix.reason]
    return [*told(controller, before, mix, kl_step), *_drawn_or_blended(controller, before, mix)]


def _sasr(controller: SASR, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    last, warm, gamma = before["g_last"], before["g_warmup"], controller.gamma
    plain = last / (last + gamma * warm)
    text = (
        f"p = G_last / (G_last + gamma * G_warmup) = {number(last)} / ({number(last)} + {gamma:g} * {number(warm)}) = "
        f"{plain:.3f}."
    )
    return [text, _origin(controller, before), *_guard(controller, before, plain, mix, kl_step)]


def _origin(controller: SASR, before: State) -> str:
    measured, age = before["measured_at"], before["step"] - before["measured_at"]
    ratio = before["g_last"] / before["g_warmup"]
    if not measured:
        return (
            f"No SFT gradient has been measured in this stage yet, so G_last is G_warmup, {number(before['g_last'])}."
        )
    when = "the step before" if not age else f"{age + 1} steps earlier"
    warm = "what the warm-up ended with" if controller.g_warmup is None else "G_warmup (set by the recipe)"
    return f"G_last is the SFT gradient's norm at step {measured}, {when}: {ratio:.2f} times {warm}."


def _guard(controller: SASR, before: State, plain: float, mix: Mix, kl_step: int | None) -> list[str]:
    kl, target = before["kl"], controller.kl_target
    if target is None:
        return ["The KL guard is off (kl_target is null)."]
    if kl is None:
        return ["The KL guard added nothing: no KL has been measured yet."]
    measured = f"the KL {number(kl)}" + (f", measured at step {kl_step}," if kl_step else "")
    if kl <= target:
        return [f"The KL guard added nothing: {measured} is not above its target {target:g}."]
    if plain >= GUARD_CEILING:
        return [f"The KL guard added nothing: {measured} is above its target {target:g}, but p is {plain:.3f} already."]
    pull = controller.kappa * (kl / target - 1.0)
    capped = f" (held at its ceiling {GUARD_CEILING})" if mix.p == GUARD_CEILING else ""
    return [
        f"The KL guard acted: {measured} is above its target {target:g}, so logit(p) grew by "
        f"kappa * (KL / kl_target - 1) = {controller.kappa:g} * ({number(kl)} / {target:g} - 1) = {pull:.3g}, "
        f"and p from {plain:.3f} to "
        f"{mix.p:.3f}{capped}."
    ]


def _static(controller: Static, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    return [f"p is fixed: sft_share = {controller.sft_share:g}."]


def _cosine(controller: Cosine, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    start, end, last = controller.start_share, controller.end_share, max(before["total_steps"] - 1, 1)
    done = round(min(clock(before), last), 1)
    return [
        f"p = end + (start - end) * (1 + cos(pi * {done}/{last})) / 2 = {end:g} + ({start:g} - {end:g}) * "
        f"(1 + cos(pi * {done / last:.3f})) / 2 = {mix.p:.3f}: the schedule was {done / last:.0%} through."
    ]


def _alternate(controller: Alternate, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    sft, grpo = controller.sft_steps, controller.grpo_steps
    turn = before["step"] % (sft + grpo)
    return [
        f"The controller alternates {sft} SFT and {grpo} GRPO; this was place {turn + 1} of {sft + grpo} in the cycle: "
        f"{mix.reason}. Nothing is drawn."
    ]


def _switch(controller: Switch, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    if isinstance(controller.at, float) and "clock" in before:
        done = clock(before) / before["total_steps"]
        return [f"SFT until {controller.at:.0%} of the budget is spent, then GRPO; {done:.1%} was. Nothing is drawn."]
    if not controller.adaptive:
        last, share = controller.last_sft_step(before["total_steps"]), f"at: {controller.at}"
        left = last - before["step"]
        where = f"this step leaves {left - 1} more" if left > 0 else f"step {last} was the last one"
        return [f"SFT until step {last} of {before['total_steps']} ({share}), then GRPO: {where}. Nothing is drawn."]
    window, means, after = controller.window, before["means"], before["switched_after"]
    if means is None:
        seen = f"{len(before['losses'])} of the {2 * window} SFT losses that are compared first had been seen"
        return [f"SFT until its loss is flat, then GRPO: {seen}. Nothing is drawn."]
    fall = (means[0] - means[1]) / means[0] if means[0] else 0.0
    sign, what = (">=", "not flat yet") if after is None else ("<", f"flat after step {after}, and GRPO from there on")
    return [
        f"SFT until its loss is flat, then GRPO: the mean loss of {window} SFT steps went from {number(means[0])} to "
        f"{number(means[1])}, by {fall:.2%} {sign} tolerance {controller.tolerance:.2%}: {what}. Nothing is drawn."
    ]


def _chord(controller: Chord, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    if controller.tau is not None:
        seen, reward = before["reward"], before["reward"] or 0.0
        known = f"the last mean reward was {number(seen)}" if seen is not None else "no reward was seen yet, which is 0"
        wanted = controller.tau - reward
        held = f", held at {mix.p:.3f}" if mix.p != wanted else ""
        return [f"mu = tau - reward = {controller.tau:g} - {number(reward)} = {wanted:.3f}{held}: {known}."]
    return [f"mu = {mix.p:.3f} {_on_the_schedule(controller, before['step'])}."]


def _on_the_schedule(controller: Chord | GAC, step: int) -> str:
    rise, fall, valley = controller.mu_warmup_steps, controller.mu_decay_steps, controller.mu_valley
    if step < rise:
        return f"= {controller.mu_peak:g} * {step}/{rise}: it rises for {rise} steps"
    if step >= rise + fall:
        return f"= mu_valley: the schedule's {rise + fall} steps are over"
    done = f"{step - rise}/{fall}"
    return (
        f"= {valley:g} + ({controller.mu_peak:g} - {valley:g}) * (1 + cos(pi * {done})) / 2: it falls over {fall} steps"
    )


def _gac(controller: GAC, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    gap, sft, grpo = (before[name] for name in ("delta_g2", "sigma_s2", "sigma_r2"))
    if before["looked_at"] is None:
        return [f"mu = {mix.p:.3f}, at most {controller.cap:g} a step from init_mu; no statistics were seen yet."]
    prior = controller.prior(clock(before))
    return [
        f"mu = {mix.p:.3f}. mu* = (alpha * D + S_r) / (D + S_s + S_r) = ({controller.alpha_static:g} * {number(gap)} + "
        f"{number(grpo)}) / ({number(gap)} + {number(sft)} + {number(grpo)}) = {controller.target(before):.3f}, from "
        f"statistics last looked at after step {before['looked_at']}; the prior is {prior:.3f}, and mu moves by at "
        f"most {controller.cap:g} a step."
    ]


def _only(controller: Controller, before: State, mix: Mix, kl_step: int | None) -> list[str]:
    return [f"The controller is {controller.name}: every step is, whatever the signals. Nothing is drawn."]


def _drawn_or_blended(controller: Controller, before: State, mix: Mix) -> list[str]:
    if not hasattr(controller, "mode") or mix.p is None:
        return []
    if controller.mode == "blend":
        return [
            f"The mode is blend: both losses in the step, SFT with weight {mix.sft:.3f} and GRPO with {mix.grpo:.3f}"
            + ("; match_norms makes the first SFT's share of the update's norm." if mix.match_norms else ".")
        ]
    u = draw(before)
    digits = next((digits for digits in range(3, 17) if f"{u:.{digits}f}" != f"{mix.p:.{digits}f}"), 17)
    sign, what = ("<", "SFT") if u < mix.p else (">=", "GRPO")
    said = [f"The draw was {u:.{digits}f} {sign} p = {mix.p:.{digits}f}, so: {what}."]
    if mix.measure_sft:
        age = before["step"] - before["measured_at"]
        every = getattr(controller, "refresh_every", 0)
        said.append(
            f"G_last was {age} steps old (refresh_every: {every}), so an SFT gradient was measured again without "
            "stepping on it."
        )
    return said


_TELLERS: dict[type, Callable[..., list[str]]] = {
    SASR: _sasr,
    Static: _static,
    Cosine: _cosine,
    Alternate: _alternate,
    Switch: _switch,
    Chord: _chord,
    GAC: _gac,
    SFTOnly: _only,
    GRPOOnly: _only,
}
