"""The pages in a browser: no error, no request, no sideways scrolling, every control by keyboard, in both themes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.report.runs import HOSTILE

WIDTHS = (390, 1280)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["real", "hostile", "compare", "replay", "method", "replay_method"])
def test_a_page_is_shown_whole_and_quietly(chromium, pages, tmp_path, which, width, dark):
    chromium.open(pages[which], width=width, dark=dark)
    chromium.value("document.querySelectorAll('details').forEach(each => each.open = true)")
    shown = chromium.value("({wide: document.scrollingElement.scrollWidth, title: document.title, "
                           "background: getComputedStyle(document.body).backgroundColor})")  # fmt: skip
    assert shown["wide"] == width, "it scrolls sideways"
    assert shown["title"].endswith("· posttrain")
    assert (sum(map(int, shown["background"][4:-1].split(","))) < 150) == dark
    picture = chromium.screenshot(tmp_path / "page.png", whole=False).read_bytes()
    assert len(picture) > 10_000, "more than an empty page"
    assert chromium.complaints() == []
    assert chromium.requests() == [pages[which].resolve().as_uri()]


@pytest.mark.parametrize("which", ["hostile", "compare", "method"])
def test_nothing_leaves_its_place(chromium, pages, which):
    """What the page wrote is inside its box, whatever the width; a table may be wider than its own scrolling box."""
    for width in WIDTHS:
        chromium.open(pages[which], width=width)
        chromium.value("document.querySelectorAll('details').forEach(each => each.open = true)")
        outside = chromium.value("""
            [...document.querySelectorAll('main *, header *')]
              .filter(each => !each.closest('.scroll, svg, .away') && each.checkVisibility())
              .filter(each => { const box = each.getBoundingClientRect();
                                return box.width && (box.left < -1 || box.right > innerWidth + 1); })
              .map(each => each.outerHTML.slice(0, 80))""")
        assert outside == []


def test_hostile_text_is_seen_and_does_nothing(chromium, pages):
    chromium.open(pages["hostile"], width=1280)
    assert chromium.value("document.scripts.length + document.querySelectorAll('img, iframe').length") == 0
    texts = chromium.value("[...document.querySelectorAll('pre')].map(each => each.textContent)")
    assert HOSTILE in texts
    sections = chromium.value("[...document.querySelectorAll('main > section')].map(each => each.id)")
    assert sections == ["results", "mix", "alarms", "curves", "flips", "samples", "go-on", "recipe"]


def test_every_control_is_reached_by_tab_and_can_be_seen(chromium, pages):
    chromium.open(pages["real"], width=390)
    chromium.value("document.querySelectorAll('*').forEach((each, number) => each.dataset.number = number)")
    wanted = chromium.value("""
        [...document.querySelectorAll('a, summary, [tabindex="0"]')].filter(each => each.checkVisibility())
          .map(each => each.dataset.number)""")
    assert len(wanted) > 20
    reached = []
    for _ in wanted:
        chromium.key("Tab", 9)
        at = chromium.value("""(() => { const one = document.activeElement, style = getComputedStyle(one),
            box = one.getBoundingClientRect();
            return {number: one.dataset.number, outline: style.outlineStyle, wide: parseFloat(style.outlineWidth),
                    seen: box.bottom > 0 && box.top < innerHeight}; })()""")
        reached.append(at["number"])
        assert at["outline"] == "solid", at
        assert at["wide"] >= 2, at
        assert at["seen"], at
    assert reached == wanted


def test_the_keyboard_opens_and_goes(chromium, pages):
    chromium.open(pages["real"], width=1280)
    chromium.value("document.querySelector('#recipe summary').focus()")
    assert not chromium.value("document.querySelector('#recipe details').open")
    chromium.key("Enter", 13)
    assert chromium.value("document.querySelector('#recipe details').open")
    chromium.value("document.querySelector('.pins a').focus()")
    chromium.key("Enter", 13)
    assert chromium.value("location.hash") == "#alarm-1"
    assert chromium.value("(({top}) => top >= 0 && top < innerHeight)"
                          "(document.querySelector('#alarm-1').getBoundingClientRect())")  # fmt: skip
    assert chromium.complaints() == []


def test_what_a_screen_reader_is_told(chromium, pages):
    chromium.open(pages["real"], width=1280)
    nodes = chromium("Accessibility.getFullAXTree")["nodes"]
    told = [
        (node["role"]["value"], node.get("name", {}).get("value", ""), node.get("description", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    ]
    images = [(name, description) for role, name, description in told if role == "image"]
    assert all(name and description for name, description in images), images
    assert any(name == "pass@1, held out" and " at start, " in said for name, said in images)
    unnamed = [
        role for role, name, _ in told if role in ("link", "region", "navigation", "DisclosureTriangle") and not name
    ]
    assert unnamed == []
    assert any(role == "link" and name.startswith("Hybrid step ") and "Dead groups" in name for role, name, _ in told)


def test_fingers_can_hit_the_controls(chromium, pages):
    chromium.open(pages["real"], width=390)
    small = chromium.value("""
        [...document.querySelectorAll('a:not(.skip), summary')].filter(each => each.checkVisibility())
          .map(each => [each.textContent.slice(0, 30), each.getBoundingClientRect()])
          .filter(([, box]) => box.height < 24 || box.width < 24)
          .map(([text, box]) => `${text}: ${box.width}x${box.height}`)""")
    assert small == []


@pytest.mark.parametrize("which", ["real", "replay"])
def test_no_heading_of_a_table_is_broken_into_letters(chromium, pages, which):
    chromium.open(pages[which], width=390)
    tall = chromium.value("""
        [...document.querySelectorAll('thead th')].map(each => [each.textContent, each.getBoundingClientRect().height])
          .filter(([text, height]) => text.length < 60 && height > 110)""")
    assert tall == []


def test_print_shows_everything(chromium, pages, tmp_path):
    chromium.open(pages["real"], width=1280)
    chromium("Emulation.setEmulatedMedia", media="print")
    assert not chromium.value("document.querySelector('nav').checkVisibility()")
    assert chromium.value("document.querySelector('#recipe pre').checkVisibility({contentVisibilityAuto: true})")
    chromium("Emulation.setEmulatedMedia", media="")


def test_the_driver_hears_complaints_and_requests(chromium, tmp_path: Path):
    """So that a silent page is a quiet one and not one that nobody listened to."""
    page = tmp_path / "loud.html"
    page.write_text(
        "<script>console.error('x'); nothing()</script><img src=http://127.0.0.1:9/z><p style='width:900px'>w"
    )
    chromium.open(page, width=390)
    assert len(chromium.complaints()) >= 2
    assert json.dumps(chromium.requests()).count("127.0.0.1:9/z") == 1
    assert chromium.value("document.scrollingElement.scrollWidth") > 390


def test_all_cells_of_the_results_are_in_sight_on_a_phone(chromium, pages):
    chromium.open(pages["real"], width=390)
    told = chromium.value("""[...document.querySelectorAll('#results td')].map(each => {
        const box = each.getBoundingClientRect();
        return {in: box.left >= 0 && box.right <= 390 && box.height > 0,
                label: getComputedStyle(each, '::before').content}; })""")
    assert len(told) > 10
    assert all(cell["in"] for cell in told)
    assert all(len(cell["label"]) > len('""') for cell in told), "each says what it is"
    chromium.open(pages["real"], width=1280)
    assert chromium.value("getComputedStyle(document.querySelector('#results td'), '::before').content") == "none"


@pytest.mark.parametrize("which", ["compare"])
def test_a_table_that_goes_on_behind_the_edge_shows_it_on_a_phone(chromium, pages, which):
    """pass@1 can be seen without scrolling, and what the shadow is drawn on lies in sight, not under the table."""
    chromium.open(pages[which], width=390)
    told = chromium.value("""(() => { const box = document.querySelector('#results .scroll');
        const at = getComputedStyle(box), table = box.querySelector('table');
        return {goes: box.scrollWidth > box.clientWidth, layers: at.backgroundImage.split('gradient').length - 1,
                stays: at.backgroundAttachment, table: getComputedStyle(table).backgroundColor,
                pass: table.rows[1].cells[1].getBoundingClientRect().right,
                head: table.rows[0].cells[1].textContent}; })()""")
    assert told["goes"]
    assert told["layers"] == 4
    assert told["stays"].startswith("local, local, scroll, scroll")
    assert told["table"] == "rgba(0, 0, 0, 0)"
    assert "pass@1" in told["head"]
    assert told["pass"] < 390
