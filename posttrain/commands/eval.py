"""`posttrain eval`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.errors import ConfigError

if TYPE_CHECKING:
    from posttrain.evaluation.asked import Asked

DIGITS = ("n", "pass@1", "ci95", "pass@k", "by", "mean_length", "truncated_share", "errors")
"""What a repeated evaluation has in common with the recorded one, all but the time."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser = commands.add_parser(
        "eval", help="repeat a run's evaluation, or evaluate a model on a task's held-out rows", allow_abbrev=False
    )
    said = "a run's directory or a folder within, a recipe, or a model: a folder, a hub id or a .gguf file"
    parser.add_argument("what", metavar="RUN|MODEL|RECIPE", help=said)
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", help="settings of the recipe, such as task.eval=50"
    )
    parser.add_argument("--task", help="of a model by itself, such as knights_knaves")
    parser.add_argument("--model", help="another model than the run's or the recipe's")
    parser.add_argument("--reward", action="append", help="what judges: a name, FILE.py:FUNCTION or module:function")
    parser.add_argument("--threshold", type=float, help="the score at which a problem passes")
    parser.add_argument("--k", nargs="+", help="the k of pass@k (1 is greedy)")
    parser.add_argument("--samples", type=int, help="completions sampled per row (default: the largest k)")
    parser.add_argument("--temperature", type=float, help="of the samples")
    parser.add_argument("--max-completion-length", type=int, help="tokens")
    parser.add_argument("--chat-template-kwargs", metavar="JSON", help="arguments of the chat template")
    parser.add_argument("--batch-size", type=int, help="completions at a time")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seed", type=int, help="of the task's rows and the samples")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--allow-overlap", action="store_true", help="go on with problems that the run was trained on")
    parser.add_argument("--out", metavar="FILE", help="write the result as JSON")
    parser.set_defaults(command=_eval)
    return parser


def _eval(args: argparse.Namespace) -> None:
    from posttrain.evaluation.asked import asked, held_out, trained_on

    subject = asked(args.what, args.task, _overrides(args), args.model)
    section = subject.recipe.evaluate
    if max(section.k) > max(section.samples, 1):
        seen = f"pass@{max(section.k)} from {section.samples} samples"
        raise ConfigError(seen, where="--samples", fix=f"give --samples {max(section.k)} or more")
    rows = held_out(subject)
    overlap = trained_on(subject, rows, allowed=args.allow_overlap)
    for line in [*_of_what(subject), *([f"note: {overlap}"] if overlap else [])]:
        print(line)

    from posttrain.evaluation.evaluate_model import evaluate_model
    from posttrain.storage.files import write_json

    record = evaluate_model(subject, rows)
    print("\n".join([*_evaluation_lines(record), *_recorded(subject, record)]))
    if args.out:
        write_json(Path(args.out), record)
        print(f"wrote {args.out}")


def _overrides(args: argparse.Namespace) -> list[str]:
    """The flags as overrides of the recipe, after those that are written as such."""
    typed = [*args.overrides, *(text for text in args.k or [] if "=" in text)]
    ks = [text for text in args.k or [] if "=" not in text]
    for name in ("samples", "max_completion_length", "batch_size", "temperature"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise ConfigError(str(value), expected="a number above 0", where="--" + name.replace("_", "-"))
    flags: dict[str, Any] = {
        f"evaluate.{name}": getattr(args, name)
        for name in ("samples", "temperature", "max_completion_length", "batch_size", "threshold")
    }
    flags["hybrid.args.chat_template_kwargs"] = _template_kwargs(args.chat_template_kwargs)
    flags |= {"run.device": args.device, "run.seed": args.seed}
    if args.k:
        flags["evaluate.k"] = _ks(ks)
        flags["evaluate.samples"] = args.samples or max(flags["evaluate.k"])
    if args.reward:
        flags["evaluate.reward"] = [_reward(text) for text in args.reward]
    if args.trust_remote_code:
        flags["model.trust_remote_code"] = True
    return [*typed, *(f"{key}={json.dumps(value)}" for key, value in flags.items() if value is not None)]


def _template_kwargs(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        expected = """a mapping in JSON, such as '{"enable_thinking": false}'"""
        raise ConfigError(text, expected=expected, where="--chat-template-kwargs")
    return value


def _reward(text: str) -> dict[str, Any]:
    from posttrain.commands.rewards.score import reward_config

    found = reward_config(text, {})
    if found.path:
        return {"path": str(Path(found.path).expanduser().absolute())}
    return {"import": found.import_} if found.import_ else {"name": found.name}


def _ks(texts: Sequence[str]) -> list[int]:
    parts = [part for text in texts for part in text.split(",") if part]
    if not parts or not all(part.isdigit() and int(part) for part in parts):
        raise ConfigError(" ".join(texts) or "none", expected="whole numbers above 0, such as 1 8", where="--k")
    return [int(part) for part in parts]


def _of_what(asked: Asked) -> list[str]:
    """What is evaluated and by whose settings."""
    if asked.kept:
        return [f"{asked.model} as the recipe beside it says: " + "; ".join(asked.kept)]
    if not asked.own or asked.layout is None:
        return []
    told = "as its run evaluates, changed: " + "; ".join(asked.changed) if asked.changed else "as its run evaluates"
    return [f"{asked.model} {told}"]


def _recorded(asked: Asked, record: dict[str, Any]) -> list[str]:
    """The recorded evaluation beside the repeated one, where nothing was changed."""
    was = asked.recorded
    if was is None or asked.changed:
        return []
    same = all(was.get(key) == record.get(key) for key in DIGITS)
    if same:
        return ["every digit as the run recorded it"]
    differs = "the rows, a reward's code, versions or the machine differ"
    return [f"the run recorded pass@1 {was['pass@1']:.3f} of {was['n']}: {differs}"]


def _evaluation_lines(record: dict[str, Any]) -> list[str]:
    """An evaluation record in words, one line for each number asked for and each slice."""
    from posttrain.reading.judged import in_words, telling_slices

    low, high = record["ci95"]
    lines = [f"pass@1 {record['pass@1']:.3f}  95% [{low:.3f}, {high:.3f}]  on {record['n']} problems, greedy"]
    lines += [f"pass@{k} {value:.3f}  sampled" for k, value in (record.get("pass@k") or {}).items()]
    for column, slices in telling_slices(record).items():
        lines += [f"  {column} {name}: {part['pass@1']:.3f} of {part['n']}" for name, part in slices.items()]
    return [*lines, *([f"judged by {in_words(record['judge'])}"] if record.get("judge") else [])]
