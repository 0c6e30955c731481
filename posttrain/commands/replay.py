"""`posttrain replay`: what another controller would have made of the signals that a run recorded."""

from __future__ import annotations

import argparse
from typing import Any

DESCRIPTION = """Feed the signals that a run recorded (gradient norms, KL) through its controller under other settings,
with the same draws, and show the mix and p of both; or the groups that its method decided on through the method under
other settings, or the prompts or demonstrations that its curriculum drew. Without settings it must give the run's own
decisions; exit code 1: it does not. How the model itself would have moved is not known: its signals and rewards are the
run's."""

STAGES = ("warmup", "hybrid")


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "replay", help="a run's signals through the controller with other settings", description=DESCRIPTION,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="the directory of a run")
    parser.add_argument(
        "overrides", metavar="controller.KEY=VALUE", nargs="*",
        help="such as controller.gamma=2, or controller.name=cosine for another one; or method.gate=2, or "
        "curriculum.temperature=0.2",
    )  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="draw both over the steps: FILE.html or FILE.svg")
    parser.add_argument("--json", action="store_true", help="print the summary and every step as JSON")
    parser.set_defaults(command=_replay)
    return parser


def _replay(args: argparse.Namespace) -> int:
    import json

    from posttrain.reading import replay_method_shown as of_method
    from posttrain.reading.replay import replay
    from posttrain.reading.replay_shown import as_record, check_out, show, write
    from posttrain.storage.files import plain

    check_out(args.out)
    asked = [text for text in args.overrides if _is_of_method(text)]
    if asked:
        return _replay_method(args, asked)
    if drawn := [text for text in args.overrides if _section(text) in ("curriculum", "warmup")]:
        return _replay_curriculum(args, drawn)
    result = replay(args.run, args.overrides)
    method = None if args.overrides or args.out else _own_method(args.run)
    if args.out:
        write(args.out, result)
    if args.json:
        record = as_record(result) | ({"of_method": of_method.as_record(method)} if method else {})
        print(json.dumps(plain(record), ensure_ascii=False))
    else:
        show(result)
        if method:
            print()
            of_method.show(method)
        if args.out:
            print(f"wrote {args.out}")
    other = bool(result.other_than_run or (method and method.other_than_run))
    if not args.overrides and not args.out:
        other |= _own_curriculum(args)
    return int(other and not args.overrides)


def _section(text: str) -> str:
    return text.removeprefix("hybrid.").partition("=")[0].split(".")[0]


def _is_of_method(text: str) -> bool:
    return _section(text) == "method"


def _own_method(run: str) -> Any:
    """The replay of a run's method under its own settings; `None` where it had none."""
    from posttrain.reading.replay_method import has_method, replay_method

    return replay_method(run) if has_method(run) else None


def _own_curriculum(args: argparse.Namespace) -> bool:
    """Whether a run's draws are not what its own settings give, which is said where there are any."""
    from posttrain.reading.replay_curriculum import has_curriculum, replay_curriculum, sentences

    results = [replay_curriculum(args.run, (), stage) for stage in STAGES if has_curriculum(args.run, stage)]
    for result in results if not args.json else ():
        print("\n" + "\n".join(sentences(result)))
    return any(result.other_than_run for result in results)


def _replay_curriculum(args: argparse.Namespace, asked: list[str]) -> int:
    import json

    from posttrain.errors import ConfigError
    from posttrain.reading.replay_curriculum import replay_curriculum, sentences
    from posttrain.storage.files import plain

    stages = {"warmup" if _section(text) == "warmup" else "hybrid": text for text in asked}
    if len(asked) < len(args.overrides) or args.out or len(stages) > 1:
        others = [text for text in args.overrides if text not in asked] or list(stages.values())[1:]
        other = next(iter(others), f"--out {args.out}")
        raise ConfigError(
            f"{asked[0]} together with {other}",
            expected="settings of the curriculum alone, told in words or as --json",
            where="command line",
            fix="leave --out out" if not others else "replay one, then the other",
        )
    result = replay_curriculum(args.run, asked, *stages)
    if args.json:
        print(json.dumps(plain(result.summary()), ensure_ascii=False))
    else:
        print("\n".join(sentences(result)))
    return 0


def _replay_method(args: argparse.Namespace, asked: list[str]) -> int:
    import json

    from posttrain.errors import ConfigError
    from posttrain.reading.replay_method import replay_method
    from posttrain.reading.replay_method_shown import as_record, show, write
    from posttrain.storage.files import plain

    if len(asked) < len(args.overrides):
        other = next(text for text in args.overrides if text not in asked)
        raise ConfigError(
            f"{asked[0]} together with {other}",
            expected="settings of the method, or of the controller: each is replayed by itself",
            where="command line",
            fix="replay one, then the other",
        )
    result = replay_method(args.run, asked)
    if args.out:
        write(args.out, result)
    if args.json:
        print(json.dumps(plain(as_record(result)), ensure_ascii=False))
    else:
        show(result)
        if args.out:
            print(f"wrote {args.out}")
    return 0
