from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, Field

from posttrain.rewards.json_drafts import DRAFTS
from posttrain.rewards.json_unknown import unknown_keywords
from tests.rewards.json_cases import SCHEMA

OLD = "http://json-schema.org/draft-07/schema#"


class Model(BaseModel):
    number: int = Field(ge=0, description="d", examples=[1], deprecated=True)
    other: Model | None = None
    pairs: dict[str, tuple[int, str]] = {}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        SCHEMA,
        Model.model_json_schema(),
        {"properties": {"requierd": {"const": {"requierd": 1}}, "dependencies": True}},
        {"default": {"minimun": 1}, "enum": [{"minimun": 1}], "examples": [{"minimun": 1}]},
        {"$defs": {"requierd": {}}, "definitions": {"minimun": {}}, "patternProperties": {"minimun": {}}},
        {"x-order": 1, "discriminator": {"propertyName": "a"}, "readOnly": True, "$comment": "", "contentEncoding": ""},
        {"$schema": OLD, "dependencies": {"a": ["b"]}, "items": [{}], "additionalItems": False, "definitions": {}},
        {"$schema": "http://json-schema.org/draft-04/schema#", "id": "a", "exclusiveMinimum": True, "minimum": 1},
        {"$schema": "https://json-schema.org/draft/2019-09/schema", "$recursiveAnchor": True, "dependentRequired": {}},
        *(
            {"$schema": draft.validator.ID_OF(draft.validator.META_SCHEMA), "type": "object"}
            for draft in DRAFTS.values()
        ),
        {"$schema": "https://example.com/unknown", "requierd": []},
        "not JSON",
    ],
)
def test_keywords_of_the_draft_and_data_are_not_named(schema):
    assert unknown_keywords(schema) == []
    assert unknown_keywords(json.dumps(schema)) == []


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"requierd": ["a"]}, "schema: no keyword 'requierd' (nearest: 'required')"),
        ({"properties": {"a": {"minimun": 1}}}, "schema.properties.a: no keyword 'minimun' (nearest: 'minimum')"),
        ({"anyOf": [{}, {"maxlength": 1}]}, "schema.anyOf[1]: no keyword 'maxlength' (nearest: 'maxLength')"),
        ({"$defs": {"a": {"propertys": {}}}}, "schema.$defs.a: no keyword 'propertys' (nearest: 'properties')"),
        ({"items": {"zzz": 1}}, "schema.items: no keyword 'zzz'"),
        ({"nullable": True}, "schema: no keyword 'nullable' (instead: null among the types)"),
        (
            {"dependencies": {"a": ["b"]}},
            "schema: 'dependencies' is no keyword of draft/2020-12 (instead: dependentRequired or dependentSchemas)",
        ),
        (
            {"$schema": OLD, "prefixItems": []},
            "schema: 'prefixItems' is no keyword of draft-07 (a keyword of draft/2020-12)",
        ),
        ({"not": {"if": {"formt": ""}}}, "schema.not.if: no keyword 'formt' (nearest: 'format')"),
    ],
)
def test_what_is_no_keyword_is_named_with_what_is_likely_meant(schema, said):
    assert unknown_keywords(schema) == [said]
    assert unknown_keywords(json.dumps(schema)) == [said]
