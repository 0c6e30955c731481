"""The page of `posttrain compare` in a browser: quiet, not wider than the window, flips by keyboard, in both themes."""

from __future__ import annotations

import shutil

import pytest

from posttrain.reading.compare import compare
from posttrain.report.compare_page import compare_page
from tests.report.runs import HOSTILE, UNSEEN, hostile_run


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    one = hostile_run(folder / "<b>one & 'co'")
    (one / "recipe.yaml").write_text("task: '<b>'\n")
    other = shutil.copytree(one, folder / ("other" * 30))
    shutil.copy(one / "completions" / "eval-start-000000.parquet", other / "completions" / "eval-final-000040.parquet")
    compared = compare([one, other])
    runs = [run | {"weights": {"Weights since the start": HOSTILE}} for run in compared["runs"]]
    compared |= {"runs": runs, "settings": {HOSTILE: [UNSEEN, HOSTILE]}}
    (folder / "page.html").write_text(compare_page(compared), encoding="utf-8")
    return folder / "page.html"


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_it_is_shown_whole_and_quietly(chromium, page, tmp_path, width, dark):
    chromium.open(page, width=width, dark=dark)
    chromium.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert chromium.value("document.scrollingElement.scrollWidth") == width, "it scrolls sideways"
    outside = chromium.value("""
        [...document.querySelectorAll('main *, header *')]
          .filter(each => !each.closest('.scroll, svg, .away') && each.checkVisibility())
          .filter(each => { const box = each.getBoundingClientRect();
                            return box.width && (box.left < -1 || box.right > innerWidth + 1); })
          .map(each => each.outerHTML.slice(0, 80))""")
    assert outside == []
    assert chromium.value("document.scripts.length + document.querySelectorAll('img, iframe').length") == 0
    assert HOSTILE in chromium.value("[...document.querySelectorAll('pre')].map(each => each.textContent)")
    assert len(chromium.screenshot(tmp_path / "page.png", whole=False).read_bytes()) > 10_000
    assert chromium.complaints() == []
    assert chromium.requests() == [page.resolve().as_uri()]


def test_the_keyboard_opens_a_flip(chromium, page):
    chromium.open(page, width=1280)
    chromium.value("document.querySelector('#flips summary').focus()")
    chromium.key("Enter", 13)
    assert chromium.value("document.querySelector('#flips details').open")
    sides = chromium.value("[...document.querySelectorAll('#flips .pair')].map(each => "
                           "[...each.querySelectorAll('.side strong')].map(one => one.textContent))")  # fmt: skip
    right, wrong = "\N{CHECK MARK} right", "\N{BALLOT X} wrong"
    assert sides == [[right, wrong]] * 8 + [[wrong, right]] * 8  # regressions, then wins; the baseline first
