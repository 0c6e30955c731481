"""Draws the floors of the house from the contract in pyproject.toml:

python docs/draw_floors.py > docs/floors.svg
"""

from __future__ import annotations

import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH, FLOOR, GAP, PAD = 860, 34, 6, 10
STYLE = (
    "text{font:14px ui-sans-serif,system-ui,sans-serif;fill:#1f2933}"
    ".n{text-anchor:end;fill:#7b8794;font-size:11px}"
    "rect{fill:#eef2f6;stroke:#b8c4d0}"
    ".why{fill:#52606d;font-size:12px}"
    "@media(prefers-color-scheme:dark){text{fill:#e4e7eb}.why,.n{fill:#9aa5b1}rect{fill:#1f2933;stroke:#52606d}}"
)
ROLES = {
    "__main__ cli": "parse, call, print",
    "commands": "one file a command",
    "study": "arms at the same cost, judged over seeds",
    "planning export": "before a run; a model to share",
    "running launch": "a run from start to report, on one process or many",
    "report": "pages",
    "reading": "a run's directory, read again",
    "evaluation": "how good a model is",
    "watching": "what is seen while it trains",
    "training": "the hybrid step",
    "packing rollouts": "rows without padding; sampling",
    "inputs": "rows and rewards, resolved and checked",
    "models rundir": "weights; what a run leaves behind",
    "recipe": "a YAML file and its errors",
    "tasks": "what a recipe can name",
    "rewards alarms": "verifiers; troubles in the numbers",
    "scoring": "rewards at work",
    "controllers curricula methods storage drawing": "the mix; the next prompt; whole files; charts",
    "processes": "ranks and what they agree on",
    "errors extras nearest": "messages",
}


def layers() -> list[list[str]]:
    """The rooms of each floor, the top one first, as the contract has them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (floors,) = (contract["layers"] for contract in contracts if contract["id"] == "floors")
    found = [floor.split(" | ") for floor in floors]
    return [[*found[0], *found[1]], *found[2:]]  # __main__ only calls cli


def draw(floors: list[list[str]]) -> str:
    """The house as SVG, top floor first; each room imports from lower floors only."""
    height = len(floors) * (FLOOR + GAP) + 2 * PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="The rooms of posttrain by floor">',
        f"<style>{STYLE}</style>",
    ]
    for place, rooms in enumerate(floors):
        top = PAD + place * (FLOOR + GAP)
        middle = top + FLOOR / 2 + 5
        parts.append(f'<text class="n" x="28" y="{middle:g}">{len(floors) - 1 - place}</text>')
        room_width = (480 - GAP * (len(rooms) - 1)) / len(rooms)
        for number, room in enumerate(rooms):
            left = 40 + number * (room_width + GAP)
            parts.append(f'<rect x="{left:g}" y="{top}" width="{room_width:g}" height="{FLOOR}" rx="4"/>')
            parts.append(f'<text x="{left + room_width / 2:g}" y="{middle:g}" text-anchor="middle">{room}</text>')
        parts.append(f'<text class="why" x="540" y="{middle:g}">{escape(ROLES[" ".join(rooms)])}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(draw(layers()))
