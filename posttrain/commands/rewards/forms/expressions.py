"""Of an expression that reaches a target: the same one written in other ways, and what is no such expression."""

from __future__ import annotations

from collections.abc import Iterator

from posttrain.commands.rewards.forms import Form

_OTHER_SIGNS = str.maketrans({"*": "\u00d7", "/": "\u00f7", "-": "\u2212"})


def forms(expression: str, target: int) -> Iterator[Form]:
    """Whole completions.

    Args:
        expression: Which reaches it, with + - * /.
        target: What it reaches.
    """

    def answer(text: str) -> str:
        return f"<answer>{text}</answer>"

    yield Form("no tags", expression, True)
    yield Form("the target behind it", answer(f"{expression} = {target}"), True)
    yield Form("the target before it", answer(f"{target} = {expression}"), True)
    yield Form("no spaces", answer(expression.replace(" ", "")), True)
    yield Form("brackets around it", answer(f"({expression})"), True)
    yield Form("signs of print", answer(expression.translate(_OTHER_SIGNS)), True)
    yield Form("words before it", f"The answer is {expression}.", True)

    yield Form("one more", answer(f"{expression} + 1"), False)
    yield Form("another target behind it", answer(f"{expression} = {target + 1}"), False)
    yield Form("the target alone", answer(str(target)), False)
    yield Form("cut short", answer(expression[: max(expression.rfind(sign) for sign in "+-*/") + 1]), False)
    yield Form("a power", answer(f"({expression}) ** 1"), False)
    yield Form("two expressions", answer(f"{expression} or {expression} + 1"), False)
