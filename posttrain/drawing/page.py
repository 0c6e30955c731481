"""What every page of a run shares: how a template becomes one self-contained HTML page, and what is shown of a text.

A page runs no script and asks the network for nothing. Whatever a model wrote is text in it: markup is escaped, and
characters that hide or that turn the direction of reading are written as their numbers.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
LONGEST = 4000  # characters of one text that a page shows

# Characters that turn the direction of the text around them, those that nothing shows, and halves of characters
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def render(package: str, template: str, **values: Any) -> str:
    """A page from a template of a package.

    Args:
        package: Where the template lies, such as "posttrain.report".
        template: Its file name, such as "report.html.j2". It extends "page.html.j2" beside this file, whose head names
            the blocks.
        values: What it shows. A name that the template uses and nobody gave is an error.
    """
    return _jinja(package).get_template(template).render(**values)


def visible(value: Any) -> Any:
    """A text with the characters that could make it look like something else written as their numbers."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _HIDDEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", value)


def cut(text: str | None, longest: int = LONGEST) -> str:
    """A text as it is shown: visible, without its middle when it is long: the answer is often at the end."""
    shown = visible(text or "")
    if len(shown) <= longest:
        return shown
    tail = longest // 4
    left_out = len(shown) - longest
    return f"{shown[: longest - tail]}\n[... {left_out:,} characters left out ...]\n{shown[-tail:]}"


def percent(share: float | None) -> str:
    """A share as a percentage with one digit, or a dash."""
    return DASH if share is None else f"{100 * share:.1f} %"


def points(change: float | None) -> str:
    """A difference of shares in percentage points with its sign, or a dash."""
    return DASH if change is None else f"{100 * change:+.1f}".replace("-", MINUS)


def p_in_words(p: float) -> str:
    """A p value, as small as it makes a difference."""
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


@cache
def _jinja(package: str) -> Environment:
    places = ChoiceLoader([PackageLoader("posttrain.drawing", "."), PackageLoader(package, ".")])
    jinja = Environment(loader=places, autoescape=True, undefined=StrictUndefined, finalize=visible)
    jinja.filters.update(percent=percent, points=points, cut=cut, p=p_in_words)
    jinja.trim_blocks = jinja.lstrip_blocks = True
    return jinja
