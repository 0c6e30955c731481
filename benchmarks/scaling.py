"""How training and generation scale: tokens per second and peak memory against length, group size and model size.

    cd benchmarks
    OMP_WAIT_POLICY=PASSIVE python scaling.py --json results/scaling.json --svg scaling.svg
    python scaling.py --json results/scaling.json --svg scaling.svg --only-report

Each point is a process of its own, forked from one that has the libraries loaded, so that its peak memory is its own.
The work is made here: a Llama of random weights, prompts and completions of random tokens. Completions in training have
lengths from 1 / rows of the longest up to the longest in even steps; in generation they end by chance, at half the
limit on average, and what came out is what is counted. Seconds are computing time (`time.process_time`) of the least
of the repeats: what runs beside it can only add. Tokens are those of completions: sampled, or trained on.

TRL's own `GRPOTrainer` gets the same rollouts for training, on the same model. The cost model
(`posttrain.planning.cost`) is then fitted to our points with each left out in turn, and the one left out predicted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling_points import Point, points
from scaling_report import drawing, tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("scaling.json"), help="the raw points (default: %(default)s)")
    parser.add_argument("--svg", type=Path, default=None, help="a drawing of the three axes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--budget", type=float, default=1.5, help="seconds of a point's repeats, at least one")
    parser.add_argument("--axes", nargs="*", default=None, help="only these axes; others are kept from --json")
    parser.add_argument("--parts", nargs="*", default=None, help="only training, trl, generation, logprobs, sft")
    parser.add_argument("--again", action="store_true", help="add repeats to the points that --json holds")
    parser.add_argument("--only-report", action="store_true", help="measure nothing; print what --json holds")
    options = parser.parse_args()
    raw = json.loads(options.json.read_text()) if options.json.exists() else {"points": []}
    if not options.only_report:
        before, raw = raw["points"], {"machine": machine(options.threads), "points": []}
        for entry in measured(options, before):
            raw["points"].append(entry)
            write(raw, options.json)
    print(tables(raw, options.json))
    if options.svg:
        options.svg.write_text(drawing(raw))


def measured(options: argparse.Namespace, before: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every point's measurement, those not asked for as they were `before`."""
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    # The server that children are forked from finds modules to preload nowhere else (Python 3.11)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["scaling_loads"])
    known = {json.dumps(entry["point"], sort_keys=True): entry for entry in before}
    for point in points():
        asked = (options.axes is None or point.axis in options.axes) and (
            options.parts is None or point.kind in options.parts
        )
        old = known.get(json.dumps(asdict(point), sort_keys=True))
        if asked:
            entry = in_child(context, point, options)
            if options.again and old:
                entry = least(old, entry)
            print(
                f"{point.axis:8} {point.name:62} {entry['seconds']:8.3f} s {entry['peak'] / 2**20:6.0f} MiB",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            yield entry
        elif old:
            yield old


def least(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two measurements of the same point as one of more repeats."""
    numbers = {name: min(old[name], new[name]) for name in ("seconds", "optimizer", "prepare") if name in new}
    return {**new, **numbers, "repeats": [*old["repeats"], *new["repeats"]]}


def write(raw: dict[str, Any], path: Path) -> None:
    """The file of points, one a line."""
    lines = ",\n".join(json.dumps(entry) for entry in raw["points"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{{"machine": {json.dumps(raw["machine"])},\n"points": [\n{lines}\n]}}\n')


def in_child(context: Any, point: Point, options: argparse.Namespace) -> dict[str, Any]:
    """Measure a point in a process of its own."""
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_measure, args=(theirs, point, options.threads, options.budget))
    child.start()
    theirs.close()
    try:
        result = ours.recv()
    except EOFError:
        child.join()
        raise SystemExit(f"{point.name}: its process ended with {child.exitcode}") from None
    child.join()
    return {"point": asdict(point), **result}


def _measure(pipe: Any, point: Point, threads: int, budget: float) -> None:
    from scaling_loads import MEASURES

    pipe.send(MEASURES[point.part](point, threads=threads, budget=budget))
    pipe.close()


def machine(threads: int) -> str:
    """What is measured on, in words."""
    import platform

    import torch

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return f"{processor}, {threads} thread{'s' if threads > 1 else ''}, float32, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
