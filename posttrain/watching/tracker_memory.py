"""What a run's trackers have of it: the name they know it by, and how far each of them is; kept in trackers.json.

Each tracker has a place of its own, so that one which is added later, or which failed on the way, gets what it lacks.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

NOTHING = {"sent": 0, "evaluated": -1}
"""The place of a tracker that has nothing: its last step, and its last evaluation, on the axis of both stages."""


class TrackerMemory:
    """What trackers.json says, and is to say.

    Args:
        file: Read if it is there. What cannot be read counts as absent.
        say: Told that it could not be read.
    """

    def __init__(self, file: Path, say: Callable[[str], None]):
        self._file = file
        known = _read(file, say)
        name = known.get("id")
        self.id: str = name if isinstance(name, str) and name else secrets.token_hex(4)
        places = known.get("trackers")
        self._places = {name: _place(place) for name, place in (places.items() if isinstance(places, Mapping) else ())}

    def last(self, tracker: str, kind: str = "sent") -> int:
        """The last step that a tracker has; of its evaluations if `kind` is "evaluated"."""
        return self._places.get(tracker, NOTHING)[kind]

    def has(self, trackers: Iterable[str], kind: str, step: int) -> bool:
        """Whether all of these trackers have that step."""
        return all(self.last(tracker, kind) >= step for tracker in trackers)

    def note(self, trackers: Iterable[str], kind: str, step: int) -> None:
        """Note that these trackers have everything up to that step."""
        for tracker in trackers:
            place = self._places.setdefault(tracker, dict(NOTHING))
            place[kind] = max(place[kind], step)
        self.write()

    def forget_from(self, step: int, kinds: Iterable[str] = tuple(NOTHING)) -> None:
        """Forget that any tracker has that step, and later ones."""
        for place in self._places.values():
            place.update({kind: min(place[kind], step - 1) for kind in kinds})

    def write(self) -> None:
        """Not by `files.write_json`, which waits for the disk: all that a power cut could cost is a step sent twice."""
        temporary = self._file.with_name(f".{self._file.name}.tmp")
        with suppress(OSError):  # a disk that is full ends the run where it writes what it cannot do without
            temporary.write_text(json.dumps({"id": self.id, "trackers": self._places}), encoding="utf-8")
            temporary.replace(self._file)


def _read(file: Path, say: Callable[[str], None]) -> Mapping[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(known, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        say(f"{file} cannot be read ({error}): the trackers begin a new run, and get this one's steps from the first")
        return {}
    return known


def _place(place: Any) -> dict[str, int]:
    given = place if isinstance(place, Mapping) else {}
    return {kind: last if type(last := given.get(kind)) is int else none for kind, none in NOTHING.items()}
