"""The report: one page from whatever a run has left, with hostile completions as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from posttrain import files
from posttrain.evaluate import paired_difference
from posttrain.report import write_report
from posttrain.report.charts import Series, line_chart, mix_strip, number
from posttrain.rundir import RunDir

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
         "passed": good and sample is None, "score": float(good), "note": HOSTILE, "error": None, "people": 2}
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
    for title in ("pass@1, held out", "Reward of the rollouts", "Gradient norms", "Chance of an SFT step, p",
                  "KL from the warm-up's end", "pass@1 by people", "pass@4, sampled"):  # fmt: skip
        assert title in text
    assert "Entropy" not in text, "nothing was measured"
    assert "not finished" not in text


def test_hostile_text_stays_text(finished):
    page = page_of(finished.path)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(f"answer {HOSTILE}") == 6


def test_the_page_asks_the_network_for_nothing(finished):
    html = write_report(finished.path).read_text()
    page = Page(html)
    links = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action")]
    assert links == ["data:,"]
    assert not re.search(r"@import|url\(", html)
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


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
    assert "+100.0 points (95 % interval +100.0 to +100.0, 3 problems)" in " ".join(
        page_of(tmp_path / "kk").text.split()
    )


def test_lines_are_where_their_values_are():
    svg = str(line_chart("t", [Series("a", [(0, 0.0), (10, 1.0), (5, float("nan"))])], limits=(0, 1)))
    assert 'points="44.0,148.0 352.0,10.0"' in svg
    assert "nan" not in svg


@pytest.mark.parametrize("values", [[1.0], [0.0, 0.0], [-3e9, 4e12], [1e-12, 2e-12], [5.0] * 100, [0.5, float("inf")]])
@pytest.mark.parametrize("log", [False, True])
def test_any_values_can_be_drawn(values, log):
    series = [Series("a & b", [(float(step), value) for step, value in enumerate(values)])]
    svg = str(line_chart("<t>", series, log=log, boundary=3))
    if svg:
        assert not re.search(r"\b(nan|inf)\b", svg)
        page = Page(svg)
        assert ("aria-label", "<t>") in page.attributes
    else:
        assert log
        assert max(values) == 0


def test_nothing_to_draw_draws_nothing():
    assert line_chart("t", [Series("a", []), Series("b", [(1, float("nan"))])]) == ""
    assert line_chart("t", [Series("a", [(1, 0.0)])], log=True) == ""
    assert mix_strip("t", []) == ""


def test_the_mix_is_stacked():
    svg = str(mix_strip("t", [(1, 1.0, 0.0), (2, 0.25, 0.75)]))
    assert 'class="f0" x="0.00" width="180.00" y="0.00" height="40.00"' in svg
    assert 'class="f1" x="180.00" width="180.00" y="0.00" height="30.00"' in svg
    assert 'class="f0" x="180.00" width="180.00" y="30.00" height="10.00"' in svg
    assert "step 2: 25% SFT" in svg


def test_a_long_run_stays_a_small_page():
    steps = [(float(step), float(step % 2), float(1 - step % 2)) for step in range(50_000)]
    assert len(mix_strip("t", steps)) < 100_000
    assert len(line_chart("t", [Series("a", [(x, y) for x, y, _ in steps])])) < 30_000


def test_labels_are_short():
    assert [number(value) for value in (0, 0.25, 1234, 2e-5, 3.0e7)] == ["0", "0.25", "1234", "2e-5", "3e7"]
    assert number(0.5, percent=True) == "50 %"
