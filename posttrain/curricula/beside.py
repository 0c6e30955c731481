"""What a curriculum does not go with, said alike for a recipe and for the trainers' arguments."""

from __future__ import annotations

from typing import Any

from posttrain.curricula.base import Curriculum

EXPECTED = "GRPO steps, and rollouts whose rewards say how well the policy does by itself"


def refused(curriculum: Curriculum, controller: Any, method: Any) -> str | None:
    """Why not, if it does not go with a controller or a method.

    Args:
        curriculum: The curriculum.
        controller: A `controllers.Controller`.
        method: A `methods.Method`, or `None`.
    """
    if curriculum.asks:
        return (
            f"the curriculum {curriculum.name} goes by {curriculum.asks} of demonstrations, measured while they train, "
            "and draws no prompts"
        )
    if not controller.shares()[1]:
        return (
            f"the curriculum {curriculum.name}, but the controller {controller.name} takes no GRPO step, and draws none"
        )
    if curriculum.adaptive and method is not None and method.begins_rollouts:
        return (
            f"the curriculum {curriculum.name} goes by the rewards of rollouts, and the method {method.name} begins "
            "them with demonstrations"
        )
    return None


ON_DEMONSTRATIONS = "one that needs no rollouts: by columns, or by what demonstrations show"


def refused_on_demonstrations(curriculum: Curriculum) -> str | None:
    """Why not, if it cannot draw the demonstrations of a warm-up.

    Args:
        curriculum: The curriculum.
    """
    if curriculum.asks:
        return None
    if curriculum.adaptive:
        return f"the curriculum {curriculum.name} goes by what rollouts gave, and a warm-up has none"
    if curriculum.completions:
        return f"the curriculum {curriculum.name} measures pass rates by rollouts, and demonstrations are not sampled"
    return None
