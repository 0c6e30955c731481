"""`posttrain data leaks`: how much of a recipe's held-out problems stands in what it trains on."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Compare the held-out rows of a recipe with what it trains on, prompts and demonstrations: which are the
same, and how many share more than half of their tokens, in runs of eight, with one trained row (Tulu 3's
decontamination). Exit code 1: some are the same, or more than 2 % overlap."""
SHOWN = 160


def add(tasks: Any) -> argparse.ArgumentParser:
    """Add the command to those of `posttrain data`."""
    parser: argparse.ArgumentParser = tasks.add_parser(
        "leaks", help="what of a recipe's held-out rows stands in its training rows", description=DESCRIPTION,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="recipe keys, such as task.eval=100")
    parser.add_argument("--tokens", type=int, default=8, metavar="N", help="in a run (default: %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="SHARE", help="of a row's tokens (default: %(default)s)"
    )
    parser.add_argument("--limit", type=int, default=3, metavar="N", help="pairs that are shown (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(command=_leaks)
    return parser


def _leaks(args: argparse.Namespace) -> int:
    import json

    from posttrain.errors import ConfigError
    from posttrain.inputs.judged import rows_of
    from posttrain.inputs.leaks import content_key
    from posttrain.inputs.overlap import overlaps, summed_up, text_of
    from posttrain.recipe.recipe import load_recipe

    if args.tokens < 1 or not 0.0 < args.threshold <= 1.0:
        wrong = ("--tokens", str(args.tokens)) if args.tokens < 1 else ("--threshold", f"{args.threshold:g}")
        raise ConfigError(wrong[1], expected="1 token or more, and a share between 0 and 1", where=wrong[0])
    data = rows_of(load_recipe(args.recipe, args.overrides))
    trained = [*data.train, *data.demonstrations]
    seen = {content_key(row) for row in trained}
    exact = sum(content_key(row) in seen for row in data.eval)
    held_out = [text_of({"prompt": row["prompt"]}) for row in data.eval]
    found = overlaps(held_out, map(text_of, trained), size=args.tokens)
    short = sum(each.tokens < args.tokens for each in found)
    told = {**summed_up(found, args.threshold), "exact": exact, "short": short}
    worst = sorted((n for n, each in enumerate(found) if each.text is not None), key=lambda n: -found[n].share)
    pairs = [
        {"row": n, "share": found[n].share, "held_out": held_out[n], "trained": text_of(trained[found[n].text or 0])}
        for n in worst[: args.limit]
    ]
    if args.json:
        print(json.dumps({**told, "trained": len(trained), "pairs": pairs}, ensure_ascii=False))
    else:
        _show(told, len(data.train), len(data.demonstrations), pairs, args)
    return int(told["contaminated"] or exact > 0)


def _show(
    told: dict[str, Any], prompts: int, demonstrations: int, pairs: list[dict[str, Any]], args: argparse.Namespace
) -> None:
    from posttrain.drawing.page import visible

    rows, over = told["rows"], told["overlapping"]
    print(f"{rows:,} held-out rows against {prompts:,} prompts and {demonstrations:,} demonstrations")
    print(f"the same prompt, white space and case apart: {told['exact']:,}")
    verdict = "more" if told["contaminated"] else "no more"
    print(
        f"more than {args.threshold:.0%} of the tokens in runs of {args.tokens} shared with one trained row: {over:,} "
        f"({told['share']:.1%}), {verdict} than the 2 % from which Tulu 3 takes a data set for contaminated"
    )
    if told["short"]:
        print(f"{told['short']:,} rows have fewer than {args.tokens} tokens of their own: only exact matches find them")
    for pair in pairs:
        print(f"\nheld-out row {pair['row']}, {pair['share']:.0%} shared")
        for name in ("held_out", "trained"):
            text = visible(" ".join(pair[name].split()))
            print(f"  {name.replace('_', '-'):<9} {text[:SHOWN]}{'...' if len(text) > SHOWN else ''}")
