from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.errors import ConfigError
from posttrain.recipe.recipe import load_recipe
from posttrain.recipe.yamlfile import Layer, load_layers, merge, overrides_layer, read_layer

KINDS = {("tool",): ("name",), ("model",): ("name", "init")}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def layer(text: str, tmp_path: Path, name: str = "one.yaml") -> Layer:
    return read_layer(write(tmp_path, name, text))


def test_origins_are_the_lines_of_keys_and_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = layer("a: 1\nb:\n  c: [1,\n    2]\n  d:\n  - x: 1\n", tmp_path)
    assert read.data == {"a": 1, "b": {"c": [1, 2], "d": [{"x": 1}]}}
    assert read.origin(("b", "c")) == "one.yaml:3"
    assert read.origin(("b", "c", 1)) == "one.yaml:4"
    assert read.origin(("b", "d", 0, "x")) == "one.yaml:6"
    assert read.origin(("b", "absent")) == "one.yaml:2"
    assert read.origin(("absent",)) == "one.yaml"


@pytest.mark.parametrize("text", ["1e-5", "1.0e-5", "1E-5", "0.00001"])
def test_exponents_are_numbers_in_files_and_on_the_command_line(text: str, tmp_path: Path) -> None:
    assert layer(f"a: {text}\n", tmp_path).data == {"a": 1e-5}
    assert overrides_layer([f"a={text}"]).data == {"a": 1e-5}


def test_data_is_plain_python(tmp_path: Path) -> None:
    read = layer('a: &x true\nb: *x\nc: "5"\nd: 0x10\ne: ~\nf: &y {g: 1}\nh: {<<: *y, i: 2}\n', tmp_path)
    assert read.data == {"a": True, "b": True, "c": "5", "d": 16, "e": None, "f": {"g": 1}, "h": {"g": 1, "i": 2}}
    assert [type(read.data[key]) for key in "abcde"] == [bool, bool, str, int, type(None)]
    assert type(read.data["h"]) is dict


def test_merge_goes_key_by_key_and_replaces_lists(tmp_path: Path) -> None:
    under = layer("a: {b: 1, c: [1, 2]}\n", tmp_path)
    over = layer("a: {c: [3], d: 4}\n", tmp_path, "two.yaml")
    merged = merge(under, over)
    assert merged.data == {"a": {"b": 1, "c": [3], "d": 4}}
    assert merged.origin(("a", "b")).endswith("one.yaml:1")
    assert merged.origin(("a", "c", 0)).endswith("two.yaml:1")
    assert ("a", "c", 1) not in merged.origins
    assert under.data == {"a": {"b": 1, "c": [1, 2]}}


@pytest.mark.parametrize(
    ("under", "over", "expected"),
    [
        ("tool: {name: x, size: 1}", "tool: {name: y}", {"name": "y"}),
        ("tool: {name: x, size: 1}", "tool: {name: x, color: 2}", {"name": "x", "size": 1, "color": 2}),
        ("tool: {name: x, size: 1}", "tool: {color: 2}", {"name": "x", "size": 1, "color": 2}),
        ("tool: {size: 1}", "tool: {name: x}", {"size": 1, "name": "x"}),
        ("tool: {name: x, size: 1}", "tool: null", None),
    ],
)
def test_another_kind_of_section_replaces_it(under: str, over: str, expected: object, tmp_path: Path) -> None:
    merged = merge(layer(under, tmp_path), layer(over, tmp_path, "two.yaml"), KINDS)
    assert merged.data["tool"] == expected


def test_a_section_can_be_told_by_which_key_it_has(tmp_path: Path) -> None:
    under = layer("model: {init: {layers: 2}}", tmp_path)
    assert merge(under, overrides_layer(["model.name=x"]), KINDS).data["model"] == {"name": "x"}
    assert merge(under, overrides_layer(["model.init.heads=3"]), KINDS).data["model"] == {
        "init": {"layers": 2, "heads": 3}
    }


def test_overrides_index_lists_and_know_no_order(tmp_path: Path) -> None:
    under = layer("rewards: [{name: a}, {name: b}]\ntool: {name: x, size: 1}", tmp_path)
    merged = merge(under, overrides_layer(["rewards.1.weight=0.5", "tool.color=3", "tool.name=y"]), KINDS)
    assert merged.data == {"rewards": [{"name": "a"}, {"name": "b", "weight": 0.5}], "tool": {"color": 3, "name": "y"}}
    assert merged.origin(("rewards", 1, "weight")) == "command line"
    assert merged.origin(("rewards", 1, "name")).endswith("one.yaml:1")
    assert merged.origin(("rewards",)).endswith("one.yaml:1")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("steps", "is not an override"),
        ("a..b=1", "is not an override"),
        ("=1", "is not an override"),
        ("a=[1", "not valid YAML"),
        ("extends=x.yaml", "cannot be overridden"),
    ],
)
def test_bad_override(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        overrides_layer([override])
    assert caught.value.where == "command line"


def test_override_into_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which another override gave the value 1"):
        overrides_layer(["a=1", "a.b=2"])
    with pytest.raises(ConfigError, match="an index from 0 to 0") as caught:
        merge(layer("a: [1]", tmp_path), overrides_layer(["a.1=2"]))
    assert caught.value.where == "command line"


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "recipes/base/root.yaml", "a: 1\nb: 1\nc: 1\n")
    write(tmp_path, "recipes/base/middle.yaml", "extends: root.yaml\nb: 2\nc: 2\n")
    child = write(tmp_path, "recipes/child.yaml", "extends: base/middle.yaml\nc: 3\n")
    monkeypatch.chdir(tmp_path)
    read = load_layers(child)
    assert read.data == {"a": 1, "b": 2, "c": 3}
    assert [read.origin((key,)) for key in "abc"] == [
        "recipes/base/root.yaml:1",
        "recipes/base/middle.yaml:2",
        "recipes/child.yaml:2",
    ]


def test_extends_in_a_circle(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "extends: b.yaml\n")
    path = write(tmp_path, "b.yaml", "x: 1\nextends: a.yaml\n")
    with pytest.raises(ConfigError, match=r"b\.yaml -> .*a\.yaml -> .*b\.yaml"):
        load_layers(path)


def test_extends_to_an_absent_file(tmp_path: Path) -> None:
    write(tmp_path, "lora.yaml", "x: 1\n")
    path = write(tmp_path, "a.yaml", "x: 1\nextends: loar.yaml\n")
    with pytest.raises(ConfigError, match=r"did you mean .*lora\.yaml") as caught:
        load_layers(path)
    assert caught.value.where == f"{path}:2: extends"


@pytest.mark.parametrize("parent", ["[a.yaml, b.yaml]", "3"])
def test_extends_is_one_path(parent: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the path of one YAML file"):
        load_layers(write(tmp_path, "a.yaml", f"extends: {parent}\n"))


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("", "the file is empty", None),
        ("# only a comment\n", "the file is empty", None),
        ("- 1\n", "holds a list", 1),
        ("just text\n", "holds a str", 1),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 'found duplicate key "c"', 4),
        ("a: 1\nb: [1, 2\nc: 3\n", "not valid YAML", 3),
        ("a: 1\n\tb: 2\n", "spaces, not tabs", 2),
        ("a: 1\n---\nb: 2\n", "not valid YAML", 2),
        ("a: *nowhere\n", "undefined alias", 1),
    ],
)
def test_files_that_are_no_recipe(text: str, said: str, line: int | None, tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError, match=said) as caught:
        load_layers(path)
    assert caught.value.where == (f"{path}:{line}" if line else str(path))


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_layers(path)
    with pytest.raises(ConfigError, match="is a folder"):
        load_layers(tmp_path)


def test_absent_file_names_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "quickstart.yaml", "a: 1\n")
    with pytest.raises(ConfigError, match=r"did you mean .*quickstart\.yaml"):
        load_layers(tmp_path / "quikstart.yaml")
    with pytest.raises(ConfigError, match=r"did you mean .*quickstart\.yaml"):
        load_layers(tmp_path / "quickstart")
    with pytest.raises(ConfigError, match=r"holds quickstart\.yaml"):
        load_layers(tmp_path / "x.yaml")
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist either"):
        load_layers(tmp_path / "nowhere" / "x.yaml")


def test_recipes_that_ship_have_a_name_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: posttrain:base/lora\nmodel: some/model\n")
    assert load_layers("mine.yaml").data["lora"]
    assert load_recipe("posttrain:quickstart").run.dir == "runs/quickstart"
    Path("typo.yaml").write_text("extends: posttrain:base/lorra\n")
    with pytest.raises(ConfigError, match=r"no recipe 'base/lorra' ships") as caught:
        load_layers("typo.yaml")
    assert "typo.yaml:1: extends" in str(caught.value)
    assert "did you mean base/lora?" in str(caught.value)
