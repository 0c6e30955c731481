"""`posttrain merge`: the weighted sum of several models."""

from __future__ import annotations

import argparse
from typing import Any

EXAMPLES = """examples:
  posttrain merge runs/one runs/two --to average
  posttrain merge INSTRUCT DISTILLED PRETRAINED --bai 0.5,0.5 --to start
  posttrain merge runs/kk/checkpoints/hybrid/checkpoint-400 runs/kk --ratios 0.3,0.7 --to average --dtype bfloat16
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "merge",
        help="the weighted sum of several models",
        description="Add up the weights of models of one architecture and one tokenizer, in float32, and write a model "
        "that transformers and vLLM load. Adapters are added to their bases first. The tokenizer and the configuration "
        "are the first model's.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", help="hub ids, folders, or runs with a final model")
    parser.add_argument("--to", metavar="DIR", required=True, help="a new or an empty folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--ratios", metavar="R,R,...", type=_numbers, help="one a model, sum 1 (default: all alike)")
    which.add_argument(
        "--bai", metavar="ALPHA,BETA", type=_numbers,
        help="of three: BETA * (ALPHA * first + (1 - ALPHA) * second) + (1 - BETA) * third",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of what is saved"
    )
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the models")
    parser.set_defaults(command=_merge)
    return parser


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers with commas between them, such as 0.3,0.7") from None


def _merge(args: argparse.Namespace) -> int:
    from posttrain.recipe.ratios import bai_of
    from posttrain.storage.files import size_in_words

    ratios = bai_of(args.models, args.bai, "--bai") if args.bai else args.ratios

    from posttrain.export.averaged import merge_models

    done = merge_models(args.models, ratios, args.to, dtype=args.dtype, trust_remote_code=args.trust_remote_code)
    for model, ratio in zip(done.models, done.ratios, strict=True):
        print(f"{ratio:8.4g} * {model}")
    print(f"merged: {args.to} ({size_in_words(done.bytes)}, {args.dtype})")
    return 0
