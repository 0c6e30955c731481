"""What a page must be before any browser sees it: well formed, named, small, and readable in both themes."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from importlib.resources import files as resources

import numpy as np
import pytest

from posttrain.drawing import page
from posttrain.report.report import write_report
from tests.report.runs import HOSTILE, LONG, UNSEEN, long_run

VOID = {"meta", "link"}
STYLE = resources("posttrain.drawing").joinpath("style.html.j2").read_text()
COLOURS = [
    dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\n *\}", STYLE, re.DOTALL)[:2]
]


class Tree(HTMLParser):
    """Elements in their order as (tag, attributes, the tags around it); a tag that is not closed fails."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        self.elements.append((tag, dict(attrs), list(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), list(self._open)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text.append(data)

    def named(self, tag: str):
        return [(attributes, around) for name, attributes, around in self.elements if name == tag]


@pytest.fixture(scope="module", params=["hostile", "real"])
def tree(request, pages) -> Tree:
    return Tree(pages[request.param].read_text(encoding="utf-8"))


def test_it_can_be_found_ones_way_in(tree):
    assert [attributes["lang"] for attributes, _ in tree.named("html")] == ["en"]
    headings = [int(name[1]) for name, _, _ in tree.elements if re.fullmatch(r"h\d", name)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings)), "a level of headings left out"
    ids = [attributes["id"] for _, attributes, _ in tree.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = [attributes["href"] for attributes, _ in tree.named("a")]
    assert links[0] == "#content"
    assert {"#results", "#mix", "#curves", "#flips", "#recipe"} <= set(links)
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_drawings_and_tables_have_names(tree):
    for attributes, _ in tree.named("svg"):
        assert attributes.get("role") == "img" or attributes.get("aria-hidden") == "true"
        assert attributes.get("aria-label") or attributes.get("aria-hidden")
    assert len(tree.named("desc")) == len(tree.named("figure"))
    regions = [attributes for attributes, _ in tree.named("div") if attributes.get("class") == "scroll"]
    assert all(each["tabindex"] == "0" and each["role"] == "region" and each["aria-label"] for each in regions)
    assert len(regions) == len(tree.named("table"))
    assert all(attributes.get("scope") in ("row", "col") for attributes, _ in tree.named("th"))
    figures = len(tree.named("figure"))
    assert figures > 8
    assert sum("figure" in around for _, around in tree.named("table")) == figures, "numbers behind each drawing"
    assert all(around[-1] == "details" for _, around in tree.named("summary"))


def test_nothing_runs_and_nothing_is_loaded(tree):
    names = {name for name, _, _ in tree.elements}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "base", "video", "audio", "input"}
    values = [(name, value) for _, attributes, _ in tree.elements for name, value in attributes.items()]
    assert not [name for name, _ in values if name.startswith("on") or name in ("src", "srcset", "xlink:href")]
    assert {value for name, value in values if name == "href" and not value.startswith("#")} == {"data:,"}
    policies = [
        each["content"] for each, _ in tree.named("meta") if each.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert not re.search(r"@import|url\(|https?:", STYLE)


def test_what_is_hostile_is_text(pages):
    html = pages["hostile"].read_text(encoding="utf-8")
    text = "".join(Tree(html).text)
    assert text.count(HOSTILE) > 20
    assert not set("\u202e\u2066\u2069\u200b\u200f\u2028\x1b\x07\x00\ufeff\x9b") & set(html)
    assert page.visible(UNSEEN) in text
    assert LONG not in text
    assert "start of a long one" in text
    assert "end of a long one" in text
    assert re.search(r"\[\.\.\. 9\d,\d\d\d characters left out \.\.\.\]", text)
    assert "Wrong, then right: 8 (the first 6 are shown)" in " ".join(text.split())
    assert len(html) < 1_500_000


def test_a_text_is_cut_in_its_middle():
    assert page.cut("abc", 3) == "abc"
    assert page.cut("abcdefgh" * 2, 8) == "abcdef\n[... 8 characters left out ...]\ngh"
    assert page.cut("\x1b" * 10, 8).startswith("<U+00"), "counted as it is shown"
    assert page.cut(None) == ""


def test_ten_thousand_steps_are_a_small_page(tmp_path):
    html = write_report(long_run(tmp_path / "long", 10_000)).read_text(encoding="utf-8")
    tree = Tree(html)
    text = " ".join("".join(tree.text).split())
    assert len(html) < 450_000
    assert "10,000" in text
    assert "between 0.01 and 100" in text, "the KL's description"
    assert "beyond 360 points" in text
    assert "995 more, steps 60 to 10000, in alarms.jsonl" in text
    assert "380 more values are in eval.jsonl" in text
    pins = [attributes for attributes, around in tree.named("a") if around[-1] == "li" and "title" in attributes]
    assert 8 <= len(pins) <= 12
    assert text.count("Try:") == 5


# -- colours -----------------------------------------------------------------------------------------------------------


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB under D65, of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    scaled = xyz / [0.9505, 1.0, 1.089]
    root = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


# How colours look without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_lines_can_be_read(theme):
    colours = COLOURS[theme]
    for ink in ("ink", "soft", "good", "bad", "warn", "c0"):
        for ground in ("page", "card", "code"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["card"], colours["bad"]) >= 4.5, "the text of a pin"
    for line in ("c0", "c1", "c2", "c3"):
        assert contrast(colours[line], colours["card"]) >= 3, line


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_series_differ_to_every_eye(theme, sight):
    seen = {name: lab(np.array(SIGHT[sight]) @ linear(COLOURS[theme][name])) for name in ("c0", "c1", "c2", "c3")}
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in itertools.combinations(seen, 2)}
    assert apart["c0", "c1"] > 40, "SFT and GRPO"
    assert min(apart.values()) > 12, apart  # and each has its own dashes


def test_both_themes_are_whole():
    assert COLOURS[0].keys() == COLOURS[1].keys()
    dashes = [re.search(rf"\.s{number} \{{ stroke-dasharray: ([\d ]+);", STYLE) for number in (1, 2, 3)]
    assert len({found[1] for found in dashes}) == 3
