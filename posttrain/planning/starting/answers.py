"""Where in a completion its answer stands. `posttrain init` writes one of these functions into a reward, as it is here:
each gets the completion and the wanted answer, needs nothing but `re`, and takes time linear in their lengths.
"""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """A text without case, spare white space, and a full stop at its end."""
    return " ".join(text.lower().split()).strip().rstrip(".").rstrip()


def same(said: str, wanted: str) -> bool:
    """Whether two answers are the same: as text, or as numbers."""
    if plain(said) == plain(wanted):
        return True
    try:
        return float(said.replace(",", "")) == float(wanted.replace(",", ""))
    except ValueError:
        return False


def whole(completion: str, wanted: str) -> str | None:
    """All of the completion."""
    return completion.strip() or None


def after_hashes(completion: str, wanted: str) -> str | None:
    """What follows the last ####."""
    _, hashes, rest = completion.rpartition("####")
    return rest.strip() or None if hashes else None


def boxed(completion: str, wanted: str) -> str | None:
    r"""What is in the last \boxed{...}."""
    _, found, rest = completion.rpartition("\\boxed{")
    depth = 1 if found else 0
    for place, letter in enumerate(rest if found else ""):
        depth += (letter == "{") - (letter == "}")
        if not depth:
            return rest[:place]
    return None


def tagged(completion: str, wanted: str) -> str | None:
    """What is in the last <answer>...</answer>."""
    before, closed, _ = completion.rpartition("</answer>")
    _, opened, inside = before.rpartition("<answer>")
    return inside.strip() if closed and opened else None


def after_colon(completion: str, wanted: str) -> str | None:
    """What follows the last `answer:` or `answer is` on its line."""
    found = re.findall(r"\banswer(?: is|:)[ \t]*([^\n]*)", completion, re.IGNORECASE)
    return found[-1].strip() or None if found else None


def last_line(completion: str, wanted: str) -> str | None:
    """The last line."""
    lines = completion.strip().splitlines()
    return lines[-1].strip() if lines else None


def last_number(completion: str, wanted: str) -> str | None:
    """The last number."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", completion)
    return found[-1].rstrip(",") if found else None


def ending(completion: str, wanted: str) -> str | None:
    """Its end, as long as the wanted answer."""
    text, length = plain(completion), len(plain(wanted))
    before = text[-length - 1 : -length] if length else ""
    return text[-length:] or None if length and not before.isalnum() else None


PLACES = (whole, after_hashes, boxed, tagged, after_colon, last_line, last_number, ending)
"""From the strictest to the most lenient."""
MARKED = (after_hashes, boxed, tagged)
"""Places that answers themselves may have, as GSM8K's do."""
