"""One prompt's rollouts beside a method, as the report shows them: what was given, what was sampled, what counts."""

from __future__ import annotations

from typing import Any

from posttrain.errors import CheckpointError
from posttrain.reading.given import given_and_sampled, newest_group, source_in_words
from posttrain.reading.view import reward_weights
from posttrain.reading.view_shown import as_said
from posttrain.rundir.layout import Layout

ROLLOUTS_SHOWN = 8


def beside(layout: Layout) -> dict[str, Any] | None:
    """The newest recorded prompt of which a beginning or a demonstration was trained on.

    Returns:
        `step`, `prompt`, `rows` (of each: `source`, `about` in words with its numbers, `given` and `sampled` text) and
        `left_out`, rollouts that are not shown. None where no method left any, or the file is torn.
    """
    try:
        rows = newest_group(layout, reward_weights(layout))
    except CheckpointError:  # a report comes of a torn run, too
        return None
    if not rows:
        return None
    rollouts = [row for row in rows if row["source"] != "demonstration"]
    # What went on from a beginning first: it may be the group's last row
    rollouts.sort(key=lambda row: row["source"] != "begun")
    shown = rollouts[:ROLLOUTS_SHOWN] + [row for row in rows if row["source"] == "demonstration"]
    return {
        "step": rows[0]["step"],
        "prompt": as_said(rows[0]["prompt"]),
        "rows": [_shown(row) for row in shown],
        "left_out": len(rows) - len(shown),
    }


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    given, sampled = given_and_sampled(row)
    plain = row["source"] != "begun"
    numbers = [f"reward {row['reward']:.3g}"] if row["reward"] is not None else []
    numbers += [f"advantage {row['advantage']:+.3g}"] if row["advantage"] is not None else []
    numbers += [f"{row['length']} tokens"] if row["length"] is not None else []
    return {
        "source": row["source"],
        "about": ", ".join([source_in_words(row) or "rollout", *numbers]),
        "given": "" if plain else given,
        "sampled": as_said(row["completion"]) if plain else sampled,
    }
