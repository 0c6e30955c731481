"""The order of the rewards of `json_structure`, under schemas as pydantic writes them: less never earns more."""

from __future__ import annotations

import datetime
import json
import random
from enum import Enum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from posttrain.rewards.json_structure import score
from tests.rewards.json_shapes import Shapes, changed, containers, reductions, spoiled

SEEDS = range(40)
ROUNDING = 1e-9


def earns(value, schema, gold, **options):
    return score(json.dumps(value), schema=json.dumps(schema), gold=json.dumps(gold), **options)


def drawn(seed):
    rng = random.Random(seed)
    schema, draw = Shapes(rng).root()
    return rng, schema, draw()


@pytest.mark.parametrize("array_order", ["ordered", "any"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_more_is_taken_from_the_gold_the_less_it_earns(seed, array_order):
    rng, schema, gold = drawn(seed)

    def judge(value):
        return earns(value, schema, gold, array_order=array_order).value

    assert judge(gold) == 1.0
    for _ in range(3):
        value, before, trail = gold, 1.0, []
        while (ways := reductions(value)) and len(trail) < 12:
            what, value = rng.choice(ways)
            trail.append(what)
            now = judge(value)
            case = f"{trail}\n{schema}\n{gold}\n{value}"
            assert now <= before + ROUNDING, case
            before = now
            for path, part in rng.sample(inside := containers(value), min(2, len(inside))):
                if path and isinstance(path[-1], int):
                    continue  # a null among the items may be the gold's own
                assert judge(changed(value, path, None)) <= judge(changed(value, path, type(part)())) + ROUNDING, (
                    f"null {path}\n{case}"
                )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wrong_value_never_earns_more_than_the_right_one(seed):
    rng, schema, gold = drawn(seed)
    value = gold
    for _ in range(3):
        right = earns(value, schema, gold).value
        for path, wrong in rng.sample(ways := spoiled(value), min(6, len(ways))):
            assert earns(wrong, schema, gold).value <= right + ROUNDING, f"{path}\n{schema}\n{gold}\n{value}"
        less = reductions(value)
        if not less:
            break
        value = rng.choice(less)[1]


class Point(BaseModel):
    x: int
    y: int


class Cat(BaseModel):
    kind: Literal["cat"]
    name: str
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str
    owner: Point | None = None


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Shop(BaseModel):
    opened: datetime.date
    place: Point | None
    also: Point | None = None
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    things: list[Point | Colour] = []
    by_name: dict[str, Point] = {}
    corner: tuple[int, int] = (0, 0)
    either: Cat | Point | str = ""


class Tree(BaseModel):
    word: str
    left: Tree | None = None
    right: Tree | None = None


CAT, DOG = {"kind": "cat", "name": "a", "lives": 9}, {"kind": "dog", "name": "b", "owner": {"x": 1, "y": 2}}
SHOP = {
    "opened": "2024-05-06",
    "place": {"x": 1, "y": 2},
    "also": {"x": 3, "y": 4},
    "pets": [CAT, DOG, {**CAT, "name": "c"}],
    "things": [{"x": 5, "y": 6}, "red", {"x": 7, "y": 8}],
    "by_name": {"p": {"x": 1, "y": 1}, "q": {"x": 2, "y": 2}},
    "corner": [3, 4],
    "either": CAT,
}
TREE = {"word": "a", "left": {"word": "b", "right": {"word": "c"}}, "right": {"word": "d"}}
MODELS = [
    (Shop.model_json_schema(), SHOP),
    (Shop.model_json_schema(), {**SHOP, "also": None, "either": "text", "pets": []}),
    (TypeAdapter(list[Cat | Dog]).json_schema(), [DOG, CAT, DOG]),
    (TypeAdapter(Cat | Dog).json_schema(), DOG),
    (TypeAdapter(Point | None).json_schema(), {"x": 1, "y": 2}),
    (Tree.model_json_schema(), TREE),
    (TypeAdapter(dict[str, list[Point | None]]).json_schema(), {"a": [{"x": 1, "y": 2}, None], "b": []}),
]


@pytest.mark.parametrize("array_order", ["ordered", "any"])
@pytest.mark.parametrize(("schema", "gold"), MODELS)
def test_models_of_pydantic(schema, gold, array_order):
    known = {}

    def judge(value):
        if (same := repr(value)) not in known:  # two reductions meet in the other order again
            known[same] = earns(value, schema, gold, array_order=array_order).value
        return known[same]

    assert judge(gold) == 1.0
    for what, less in reductions(gold):
        once = judge(less)
        assert once < 1.0, what
        for again, still_less in reductions(less):
            assert judge(still_less) <= once + ROUNDING, f"{what}, {again}"
    for path, wrong in spoiled(gold):
        assert judge(wrong) < 1.0, path


POINT = Point.model_json_schema()
UNIONS = [
    {"anyOf": [POINT, {"type": "null"}]},
    {"oneOf": [{"type": "null"}, POINT]},
    {"allOf": [{"anyOf": [{"type": "string"}, {"allOf": [POINT]}]}]},
    {"anyOf": [{"anyOf": [{"type": "null"}, {"type": "integer"}]}, POINT]},
    {"anyOf": [{**POINT, "required": ["x"]}, POINT]},
    {"anyOf": [Cat.model_json_schema(), POINT]},
    {"if": {"type": "object"}, "then": POINT},
    {"if": {"type": "string"}, "then": True, "else": POINT},
]


@pytest.mark.parametrize("union", UNIONS)
@pytest.mark.parametrize("required", [["a"], []])
def test_keys_inside_a_union_count_as_keys_anywhere(union, required):
    def judge(value):
        return earns(value, {"type": "object", "properties": {"a": union}, "required": required}, {"a": gold}).value

    gold = {"x": 1, "y": 2}
    begun, wrong, nearly = judge({"a": {"x": 1}}), judge({"a": {"x": 8, "y": 9}}), judge({"a": {"x": 1, "y": 9}})
    assert judge({"a": {}}) < begun < wrong < nearly < judge({"a": gold}) == 1.0
    assert judge({"a": None}) <= judge({"a": {}})
    assert judge({}) <= judge({"a": {}})


@pytest.mark.parametrize("union", [{"anyOf": UNIONS[0]["anyOf"]}, UNIONS[1], UNIONS[5]])
@pytest.mark.parametrize("form", ["items", "prefixItems", "additionalProperties", "patternProperties"])
def test_keys_inside_a_union_inside_another_value_count_too(union, form):
    part = {"items": union, "prefixItems": [union, union], "patternProperties": {"^.$": union}}.get(form, union)
    keyed = form.endswith("Properties")
    one, other = {"x": 1, "y": 2}, {"x": 3, "y": 4}
    gold = {"a": one, "b": other} if keyed else [one, other]

    def judge(first, second):
        value = {"a": first, "b": second} if keyed else [first, second]
        return earns(value, {form: part}, gold)

    assert judge(one, other).value == 1.0
    assert judge(one, {"x": 3}).parts["structure"] < 1.0 == judge(one, {"x": 3, "y": 9}).parts["structure"]
    assert judge(one, {}).value < judge(one, {"x": 3}).value < judge(one, {"x": 8, "y": 9}).value < 1.0
    less = earns({"a": one} if keyed else [one], {form: part}, gold)
    none = earns({} if keyed else [], {form: part}, gold)
    assert none.value <= less.value <= judge(one, {}).value


def test_without_a_gold_the_value_tells_the_branch():
    schema = {"oneOf": [Cat.model_json_schema(), POINT]}

    def structure(value, schema=schema):
        return score(json.dumps(value), schema=json.dumps(schema)).parts["structure"]

    assert structure(CAT) == structure({"x": 1, "y": 2}) == 1.0
    assert structure({"x": 1}) == pytest.approx(2 / 3)  # the root's type, x and y
    assert structure({"kind": "cat", "name": "a"}) == pytest.approx(3 / 4)
    assert structure({}) < 0.5
    nullable = {"type": "object", "properties": {"a": {"anyOf": [POINT, {"type": "null"}]}}, "required": ["a"]}
    assert structure({"a": None}, nullable) == 1.0
    assert structure({"a": {"x": 1}}, nullable) == pytest.approx(3 / 4)
    assert structure({"a": {}}, nullable) > structure({}, nullable)


def test_where_the_gold_is_null_an_invented_object_needs_its_own_keys():
    schema = {"type": "object", "properties": {"a": {"anyOf": [POINT, {"type": "null"}]}}, "required": ["a"]}
    assert earns({"a": None}, schema, {"a": None}).value == 1.0
    whole, half = (earns({"a": value}, schema, {"a": None}) for value in ({"x": 1, "y": 2}, {"x": 1}))
    assert half.value < whole.value < 1.0


@pytest.mark.parametrize("gold", [[True, False, True], [1, 1, 2, 1], [[1, 2], [1, 2, 3]], [{"a": 1}, {}, {"a": 1}]])
def test_an_item_left_out_in_front_does_not_spoil_the_others(gold):
    values = [earns(gold[i:], {}, gold).parts["values"] for i in range(len(gold) + 1)]
    assert values == sorted(values, reverse=True)
    assert earns(gold[1:], {}, gold).parts["values"] > 0.3
    assert earns([*gold, 7], {}, gold).parts["values"] < 1.0
    assert earns([7, *gold], {}, gold).parts["values"] > 0.3


@pytest.mark.parametrize("nothing", [None, [], {}])
def test_null_or_nothing_in_a_place_of_the_gold_is_as_good_as_leaving_it(nothing):
    gold = {"a": 1, "b": [1, 2], "c": {"d": 3}, "e": None}
    for name in "bc":
        without = {key: part for key, part in gold.items() if key != name}
        assert earns({**gold, name: nothing}, {}, gold).parts["values"] == earns(without, {}, gold).parts["values"]
