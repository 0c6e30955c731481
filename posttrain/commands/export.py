"""`posttrain export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  posttrain export runs/kk --to kk-model
  posttrain export runs/gsm8k --to gsm8k-model --merge-lora --dtype bfloat16
  HF_TOKEN=... posttrain export runs/gsm8k --to gsm8k-model --push my-org/gsm8k-model
"""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="the final model as a folder to share",
        description="Write a run's model to a folder that transformers and vLLM load, with a model card, the recipe "
        "and the mix as a drawing. Secrets and paths of this machine are left out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument("--to", metavar="DIR", required=True, help="a new or an empty folder")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--stage", choices=["final", "averaged", "warmup"], default="final", help="which model (default: final)"
    )
    which.add_argument("--checkpoint", type=int, metavar="N", help="the hybrid stage's checkpoint of step N instead")
    parser.add_argument("--merge-lora", action="store_true", help="add an adapter to the weights of its base model")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights (default: as they trained; merged: float32, which is exact)",
    )
    parser.add_argument("--base-model", metavar="ORG/NAME", help="the base model's id, where the recipe has a folder")
    parser.add_argument("--license", metavar="ID", help="such as apache-2.0 (default: the base model's, if known)")
    parser.add_argument("--force", action="store_true", help="replace DIR if an earlier export wrote it")
    parser.add_argument("--push", metavar="ORG/NAME", help="upload it too; the token is taken from HF_TOKEN")
    parser.add_argument("--public", action="store_true", help="push to a public repository (default: a private one)")
    parser.set_defaults(command=_export)
    return parser


def _export(args: argparse.Namespace) -> int:
    from posttrain.export.pushing import check_name, push, token_of

    token = ""
    if args.push:  # before anything is written
        check_name(args.push)
        token = token_of()

    from posttrain.export.export import export
    from posttrain.storage.files import size_in_words

    exported = export(
        args.run, args.to, stage=args.stage, checkpoint=args.checkpoint, merge_lora=args.merge_lora, dtype=args.dtype,
        base_model=args.base_model, license=args.license, force=args.force, name=args.push,
    )  # fmt: skip
    print(f"{exported.what}: {args.to} ({size_in_words(exported.bytes)})")
    for note in exported.notes:
        print(f"note: {note}")
    if args.push:
        address = push(Path(args.to), args.push, token=token, public=args.public)
        print(f"uploaded to {address} ({'public' if args.public else 'private'})")
    return 0
