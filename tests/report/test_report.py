"""The report: one page from whatever a run has left, with hostile completions as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from posttrain.drawing.charts import Series, draw
from posttrain.drawing.scale import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, number
from posttrain.drawing.strip import mix_strip
from posttrain.drawing.thinning import MOST_POINTS, extremes
from posttrain.evaluation.statistics import bootstrap_ci, paired_difference, pass_at_k, share_ci
from posttrain.report.report import write_report
from posttrain.report.tables import sums
from posttrain.rundir.rundir import RunDir
from posttrain.storage import files

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


class Page(HTMLParser):
    """The tags, attributes and text of a page; fails on a closing tag that nothing opened."""

    VOID = {"meta", "link"}

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def page_of(run_dir) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def evaluation(run: RunDir, stage: str, step: int, passed: list[bool]) -> None:
    by = {"people": {"2": {"n": len(passed), "pass@1": sum(passed) / len(passed)}}}
    record = {"stage": stage, "step": step, "n": len(passed), "pass@1": sum(passed) / len(passed), "ci95": [0.1, 0.9]}
    rows = [
        {"row": row, "sample": sample, "prompt": f"problem {row} {HOSTILE}", "completion": f"answer {HOSTILE}",
         "passed": good and sample is None, "score": float(good), "note": f"{stage} {good} {HOSTILE}",
         "error": None, "people": 2}
        for row, good in enumerate(passed)
        for sample in (None, 0)
    ]  # fmt: skip
    run.evaluation({**record, "pass@k": {"4": 0.75}, "by": by}, rows)


@pytest.fixture
def finished(tmp_path):
    recipe = {"model": {"name": HOSTILE}, "hybrid": {"steps": 80}}
    with RunDir.open(tmp_path / f"kk {HOSTILE.replace('/', '')}", recipe, {"data": "x"}) as run:
        evaluation(run, "start", 0, [False] * 50)
        for step in range(1, 21):
            run.step({"stage": "warmup", "step": step, "mix": {"sft": 1.0, "grpo": 0.0}, "sft_norm": 2.0,
                      "sft_loss": 1 / step, "seconds": {"total": 2.0, "sft": 1.5}, "tokens": {"sft": 100}})  # fmt: skip
        evaluation(run, "warmup", 20, [True] * 20 + [False] * 30)
        for step in range(1, 81):
            sft = step % 4 == 0
            run.step({"stage": "hybrid", "step": step, "mix": {"sft": float(sft), "grpo": float(not sft)}, "p": 0.25,
                      "reward": None if sft else step / 80, "kl": float("nan") if step == 3 else 0.01,
                      "sft_norm": 1.0 if sft else None, "grpo_norm": None if sft else 0.0, "rollouts": 64 * step,
                      "skipped": step == 3})  # fmt: skip
        evaluation(run, "hybrid", 40, [True] * 25 + [False] * 25)
        evaluation(run, "final", 80, [False] * 2 + [True] * 33 + [False] * 15)
    return run


def test_a_finished_run(finished):
    page = page_of(finished.path)
    text = " ".join(page.text.split())
    difference, lo, hi = paired_difference([1] * 20 + [0] * 30, [0] * 2 + [1] * 33 + [0] * 15)
    assert difference == pytest.approx(0.26)
    assert "Warm-up 40.0 % → final 66.0 % pass@1: +26.0 points" in text
    assert f"(95 % interval +{100 * lo:.1f} to +{100 * hi:.1f}, 50 problems)" in text
    assert "Of 50 problems 15 turned right and 2 turned wrong since the warm-up" in text
    assert "80 steps: 60 GRPO, 20 SFT" in text
    assert "5,120 completions" in text
    assert "Skipped steps1" in text
    assert "pass@1 by people" not in text  # of one number of people only: the table above says it
    for title in ("pass@1, held out", "Reward of the rollouts", "Gradient norms", "Chance of an SFT step, p",
                  "KL from the warm-up's end", "pass@4, sampled"):  # fmt: skip
        assert title in text
    assert "Entropy" not in text, "nothing was measured"
    assert "not finished" not in text


def test_hostile_text_stays_text(finished):
    page = page_of(finished.path)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(f"answer {HOSTILE}") == 6 + 2 * (6 + 2), "three right, three wrong, and what flipped"


def test_the_page_asks_the_network_for_nothing(finished):
    html = write_report(finished.path).read_text()
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert [link for link in links if not link.startswith("#")] == ["data:,"]
    assert not re.search(r"@import|url\(", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


def test_what_flipped(finished):
    text = " ".join(page_of(finished.path).text.split())
    assert "changed between warm-up and final" in text
    right, wrong = text.split("Wrong, then right: 15 (the first 6 are shown)")[1].split("Right, then wrong: 2")
    rows = [int(row) for row in re.findall(r"Problem (\d+) ", right)]
    assert rows == list(range(20, 26))
    assert [int(row) for row in re.findall(r"Problem (\d+) ", wrong)] == [0, 1]
    first = right.split("Problem 21")[0]
    assert first.startswith(f" Problem 20 warmup False {HOSTILE} Prompt"), "what was wrong with the wrong one"
    assert wrong.startswith(f" Problem 0 final False {HOSTILE} Prompt")
    assert f"Promptproblem 20 {HOSTILE}" in first
    assert first.index("Warm-up ✗ wrong, score 0.00") < first.index("Final ✓ right, score 1.00")


def test_flips_are_counted_from_the_start_without_a_warmup(tmp_path):
    with RunDir.open(tmp_path / "kk", {}, {}) as run:
        for step in (1, 2):
            run.step({"stage": "hybrid", "step": step, "mix": {"sft": 0.0, "grpo": 1.0}})
        evaluation(run, "start", 0, [True, False])
        evaluation(run, "hybrid", 2, [True, True])
    text = " ".join(page_of(tmp_path / "kk").text.split())
    assert "changed between start and hybrid" in text
    assert "Wrong, then right: 1" in text
    assert "Right, then wrong: none" in text
    assert "2 steps: 2 GRPO" in text
    assert "Steps 1 to 2: 0 % SFT, 100 % GRPO" in text


def test_a_run_of_a_warmup_only(tmp_path):
    with RunDir.open(tmp_path / "kk", {}, {}) as run:
        run.step({"stage": "warmup", "step": 1, "mix": {"sft": 1.0, "grpo": 0.0}, "sft_loss": 2.0})
        evaluation(run, "warmup", 1, [True, False])
    text = " ".join(page_of(tmp_path / "kk").text.split())
    assert "Hybrid none so far" in text.replace("Hybridnone", "Hybrid none")
    assert "1 right and 1 wrong; the first 2 are shown" in text
    assert "What flipped" not in text


def test_alarms_are_listed_and_pointed_at(finished):
    for step, kind, level in (
        (10, "kl_blow_up", "problem"),
        (12, "dead_groups", "warning"),
        (70, "kl_blow_up", "problem"),
    ):
        line = {"step": step, "kind": kind, "level": level, "change": "began" if step < 70 else "came back"}
        line |= {"evidence": f"seen at {step} {HOSTILE}", "advice": f"try {kind}"}
        files.append_line(finished.path / "alarms.jsonl", line)
    page = page_of(finished.path)
    text = " ".join(page.text.split())
    assert "2 problems, 1 warning" in text
    blow_up, dead = text.split("KL blow-up problem, 2 times")[1].split("Dead groups warning")
    assert f"Step 10: seen at 10 {HOSTILE}" in blow_up
    assert "Step 70, came back: seen at 70" in blow_up
    assert blow_up.count("Try: try kl_blow_up") == 1
    assert "Try: try dead_groups" in dead
    places = [float(value[5:-1]) for name, value in page.attributes if name == "style"]
    assert places == pytest.approx([29.5, 89.5]), "of 100 steps; two close ones share a pin"
    labels = [value for name, value in page.attributes if name == "aria-label" and value.startswith("Hybrid step ")]
    assert [" ".join(label.split()) for label in labels] == [
        "Hybrid step 10: KL blow-up, Dead groups, 2 alarms",
        "Hybrid step 70: KL blow-up",
    ]  # fmt: skip
    (finished.path / "steps.jsonl").unlink()
    assert "seen at 10" in page_of(finished.path).text


def test_sampled_passes_have_intervals(tmp_path):
    counts = [0, 1, 2, 4] * 10
    with RunDir.open(tmp_path / "kk", {}, {}) as run:
        rows = [{"row": row, "sample": sample, "prompt": f"p{row}", "passed": sample is not None and sample < count}
                for row, count in enumerate(counts) for sample in (None, 0, 1, 2, 3)]  # fmt: skip
        passes = [pass_at_k(4, count, 2) for count in counts]
        record = {"stage": "final", "step": 1, "n": 40, "pass@1": 0.0, "pass@k": {"2": sum(passes) / 40, "9": 0.9}}
        run.evaluation(record, rows)
    lo, hi = bootstrap_ci(passes)
    text = " ".join(page_of(tmp_path / "kk").text.split())
    assert f"{100 * sum(passes) / 40:.1f} % {100 * lo:.1f} % to {100 * hi:.1f} %" in text
    assert "90.0 %" in text, "nine of four samples: no interval"


def test_a_torn_environment_does_not_stop_the_report(finished):
    finished.environment_file.write_text('{"versions": {"post')
    assert "unreadable" in page_of(finished.path).text
    assert "Warm-up 40.0 %" in " ".join(page_of(finished.path).text.split())


def test_an_empty_directory_gives_a_page(tmp_path):
    page = page_of(tmp_path)
    assert "No evaluation yet" in page.text
    assert "not finished" in page.text


def test_every_beginning_of_a_run_gives_a_page(finished):
    for name in ("environment.json", "recipe.yaml", "steps.jsonl"):
        (finished.path / name).unlink()
        page_of(finished.path)
    for file in sorted(finished.completions_folder.iterdir(), reverse=True):
        file.unlink()
        assert "Before and after" in page_of(finished.path).text
    assert "+26.0 points" not in page_of(finished.path).text, "no completions, no paired difference"
    lines = finished.eval_file.read_bytes().splitlines(keepends=True)
    for count in (3, 2, 1, 0):
        finished.eval_file.write_bytes(b"".join(lines[:count]) + b'{"stage": "fi')
        assert "not finished" in page_of(finished.path).text


def test_bare_lines_are_enough(tmp_path):
    files.append_line(tmp_path / "steps.jsonl", {"stage": "hybrid", "step": 1})
    files.append_line(tmp_path / "eval.jsonl", {"stage": "hybrid", "step": 1, "n": 3, "pass@1": None})
    files.append_line(tmp_path / "eval.jsonl", {"stage": "final", "step": 1, "n": 3, "pass@1": 0.5})
    assert "50.0 %" in page_of(tmp_path).text


def test_problems_are_paired_by_row_and_prompt(tmp_path):
    with RunDir.open(tmp_path / "kk", {}, {}) as run:
        rows = [{"row": row, "prompt": f"p{row}", "passed": False} for row in range(4)]
        run.evaluation({"stage": "warmup", "step": 1, "n": 4, "pass@1": 0.0}, rows)
        other = [{"row": row, "prompt": f"p{row}" if row < 3 else "new", "passed": True} for row in (2, 3, 1, 0)]
        run.evaluation({"stage": "final", "step": 1, "n": 4, "pass@1": 1.0}, other)
    assert "+100.0 points (95 % interval \N{EN DASH}, 3 problems; no clear change)" in " ".join(
        page_of(tmp_path / "kk").text.split()
    )


def test_lines_are_where_their_values_are():
    drawn = draw("t", [Series("a", [(0, 0.0), (10, 1.0), (5, float("nan"))])], limits=(0, 1), unit="nats", across="lap")
    svg = str(drawn.svg)
    assert f'points="{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"' in svg
    assert "nan" not in svg
    assert ">nats</text>" in svg
    assert ">lap</text>" in svg
    assert "<desc>a: 0 at lap 0, 1 at 10, between 0 and 1.</desc>" in svg
    assert drawn.rows == [["0", "0"], ["10", "1"]]


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-3e9, 4e12], [1e-12, 2e-12], [5.0] * 100, [0.5, float("inf")]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_can_be_drawn(values, log):
    series = [Series("a & b", [(float(step), value) for step, value in enumerate(values)])]
    drawn = draw("<t>", series, log=log, boundary=3)
    assert drawn
    assert not re.search(r"\b(nan|inf)\b", str(drawn.svg))
    assert ("aria-label", "<t>") in Page(str(drawn.svg)).attributes


def test_zeros_lie_at_the_foot_of_a_logarithmic_chart_and_are_counted():
    points = [(1.0, 0.0), (2.0, 0.1), (3.0, 10.0), (4.0, 0.0)]
    drawn = draw("t", [Series("SFT", [(5.0, 1.0)]), Series("GRPO", points)], log=True, unit="norm")
    svg = str(drawn.svg)
    assert drawn.note == "2 of the 4 values of GRPO are 0: at the foot of the chart."
    assert svg.count(f'y="{HEIGHT - BOTTOM - 4}" width="2"') == 2
    assert drawn.rows[0] == ["1", "\N{EN DASH}", "0"], "the table has them, too"
    nothing = draw("t", [Series("GRPO", [(1.0, 0.0), (2.0, 0.0)])], log=True)
    assert "logarithmic" not in str(nothing.svg), "with nothing above 0 the axis is an even one"
    both = draw("t", [Series("SFT", [(1.0, 2.0)]), Series("GRPO", [(1.0, 0.0), (2.0, 0.0)])], log=True)
    assert both.note == "All 2 values of GRPO are 0: at the foot of the chart."


def test_steps_are_called_as_the_commands_take_them():
    points = [(float(place), 1.0) for place in range(0, 61)]
    drawn = draw("t", [Series("a", points)], boundary=20.0, marks=[(50.0, "KL")])
    svg = str(drawn.svg)
    assert "<title>hybrid 30: KL</title>" in svg
    assert "1 at start, 1 at hybrid 40" in svg
    assert drawn.across == "Hybrid step"
    assert drawn.rows[0][0] == "start to warm-up 3"
    assert drawn.rows[-1][0] == "hybrid 40"
    assert re.findall(r'text-anchor="middle">([\d.]+)<', svg) == ["0", "10", "20", "30", "40"]
    alone = draw("t", [Series("a", points[:21])], boundary=20.0)
    assert alone.across == "Warm-up step"
    assert "<title>warm-up 20: a 1</title>" in str(alone.svg)


def test_charts_share_an_axis():
    lines = {
        draw("t", [Series("a", points)], boundary=20.0, span=(0, 60)).svg.split('class="edge" x1="')[1].split('"')[0]
        for points in ([(0.0, 1.0), (60.0, 2.0)], [(21.0, 1.0)], [(30.0, 5.0), (40.0, 5.0)])
    }
    assert len(lines) == 1


def test_a_chart_marks_alarms_and_keeps_a_series_colour():
    points = [(float(step), 1.0) for step in range(1, 11)]
    svg = str(draw("t", [Series("GRPO", points)], first=1, marks=[(10, "KL <blow-up>"), (11, "beyond")]).svg)
    assert 'class="s1"' in svg
    assert 'class="s0"' not in svg
    assert f'd="M{WIDTH - RIGHT:.1f} {TOP}' in svg
    assert "<title>step 10: KL &lt;blow-up&gt;</title>" in svg
    assert svg.count('class="mark"') == 1, "what is outside is not drawn"


def test_nothing_to_draw_draws_nothing():
    assert draw("t", [Series("a", []), Series("b", [(1, float("nan"))])]) is None
    assert mix_strip("t", []) is None


def test_the_mix_is_stacked():
    drawn = mix_strip("t", [(1, 1.0, 0.0), (2, 0.25, 0.75), (3, 0.0, 0.0)], boundary=1)
    svg = str(drawn.svg)
    assert 'class="f0" d="M0.00 0h240.00v40.00h-240.00z"' in svg, "under the other, nothing where there was no update"
    assert 'class="f1" d="M120.00 0h120.00v30.00h-120.00z"' in svg
    assert 'x1="120.0"' not in svg, "a boundary at the end of the drawing says nothing"
    assert drawn.rows == [["warm-up 1", "100 %", "0 %"], ["hybrid 1", "25 %", "75 %"], ["hybrid 2", "none", "none"]]
    assert "<title>hybrid 1: 25 % SFT" in svg


def test_a_step_of_one_loss_is_a_column_of_one_colour():
    steps = [(float(step), float(step % 3 == 0), float(step % 3 != 0)) for step in range(1, 1001)]
    drawn = mix_strip("t", steps)
    assert set(re.findall(r"v([\d.]+)h", str(drawn.svg))) == {"40.00"}
    assert drawn.note == ""
    longer = mix_strip("t", [(float(step), 0.0, 1.0) for step in range(1, 2401)])
    assert longer.note == "Each column is 20 steps, and its colours are their shares."


def test_a_long_run_stays_a_small_page():
    steps = [(float(step), float(step % 2), float(1 - step % 2)) for step in range(50_000)]
    assert len(mix_strip("t", steps).svg) < 40_000
    drawn = draw("t", [Series("a", [(x, y) for x, y, _ in steps])])
    assert len(drawn.svg) < 30_000
    assert len(drawn.rows) == 20


def test_thinning_keeps_every_spike():
    points = [(float(step), 0.0) for step in range(20_000)]
    points[777], points[15_001] = (777.0, 9.0), (15_001.0, -9.0)
    thin = extremes(points)
    assert len(thin) <= MOST_POINTS
    assert {(777.0, 9.0), (15_001.0, -9.0)} <= set(thin)
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert extremes(points[:300]) == points[:300]


def test_labels_are_short():
    assert [number(value) for value in (0, 0.25, 1234, 2e-5, 3.0e7)] == ["0", "0.25", "1234", "2e-5", "3e7"]
    assert number(0.5, percent=True) == "50 %"


def test_without_a_flip_there_is_no_interval_and_at_0_the_exact_one(tmp_path):
    with RunDir.open(tmp_path / "kk", {}, {}) as run:
        for stage in ("warmup", "final"):
            rows = [{"row": row, "sample": None, "prompt": f"p{row}", "passed": False} for row in range(4)]
            record = {"stage": stage, "step": 1, "n": 4, "pass@1": 0.0, "ci95": list(share_ci([0.0] * 4))}
            run.evaluation(record, rows)
    text = " ".join(page_of(tmp_path / "kk").text.split())
    assert "+0.0 points (95 % interval \N{EN DASH}, 4 problems; no clear change)" in text
    assert "0.0 % 0.0 % to 60.2 %" in text
    assert "+0.0 \N{EN DASH} \N{EN DASH}" in text, "in the table: since the warm-up, and there is no start"


def test_tokens_are_those_sampled_and_those_of_demonstrations():
    sft = {"stage": "hybrid", "step": 1, "mix": {"sft": 1.0}, "tokens": {"sft": 2880}, "rollouts": 0}
    grpo = {"stage": "hybrid", "step": 2, "mix": {"grpo": 1.0}, "rollouts": 64, "completion_length": 20.5}
    assert dict(sums([sft, grpo]))["Tokens"] == "1,312 sampled for GRPO, 2,880 of SFT demonstrations"
    assert "Tokens" not in dict(sums([{"stage": "warmup", "step": 1}]))
