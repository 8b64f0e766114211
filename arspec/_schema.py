"""The JSON Schema of a spec document, generated from the penalty classes."""

import sys
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal, get_args, get_origin

from arspec._axes import AXIS_NAMES, MEAN, NUMERICS, SHORTHANDS
from arspec._placements import PARAMETERS, PLACEMENTS
from arspec._rule import WHEN
from arspec._schedules import Schedule, schedules
from arspec._spec import SPEC_VERSION
from arspec.penalties import Penalty, Sum, registered

_NUMBER = {"type": "number", "minimum": 0, "maximum": sys.float_info.max}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the documents that `Spec.from_json` reads.

    Example
    -------
    >>> import arspec as ar
    >>> sorted(ar.json_schema()["$defs"])
    ['penalty', 'rule']
    """
    penalties = [_sum_schema(), *(_penalty_schema(cls) for cls in registered().values())]
    document = _object({"arspec": {"const": SPEC_VERSION}, "rules": _list({"$ref": "#/$defs/rule"})})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"arspec {SPEC_VERSION}",
        **document,
        "$defs": {"rule": _rule_schema(), "penalty": {"oneOf": penalties}},
    }


def _rule_schema() -> dict[str, Any]:
    names = {"type": "array", "items": {"enum": list(AXIS_NAMES)}, "uniqueItems": True}
    rule = _object(
        {
            "penalty": {"$ref": "#/$defs/penalty"},
            "layer": {"type": "string", "pattern": r"[^./ ]", "description": "path or glob of a layer"},
            "placement": {"oneOf": [{"const": name, "description": text} for name, text in PLACEMENTS.items()]},
            "mean_over": {"oneOf": [names, {"enum": [*SHORTHANDS, MEAN]}, {"type": "null"}]},
            "numerics": {"enum": list(NUMERICS)},
            "schedule": {"oneOf": [{"type": "null"}, *(_schedule_schema(cls) for cls in schedules().values())]},
            "when": {"enum": list(WHEN)},
            "trainable_only": {"type": "boolean"},
        },
        optional=("mean_over", "schedule", "numerics", "when", "trainable_only"),
    )
    at_parameter = {"properties": {"placement": {"enum": list(PARAMETERS)}}}
    only = {"properties": {"trainable_only": {"const": True}}, "required": ["trainable_only"]}
    return {**rule, "if": only, "then": at_parameter}


def _schedule_schema(cls: type[Schedule]) -> dict[str, Any]:
    whole = {"type": "integer", "minimum": 1}
    kinds = {int: whole, float: {"type": "number", "minimum": 0}, tuple[int, ...]: {**_list(whole), "minItems": 1}}
    described = fields(cls)  # pyright: ignore[reportArgumentType]
    optional = tuple(f.name for f in described if f.default is not MISSING)
    return _object({"name": {"const": cls.name}, **{f.name: kinds[f.type] for f in described}}, optional)


def _sum_schema() -> dict[str, Any]:
    part = _object({"factor": _NUMBER, "penalty": {"$ref": "#/$defs/penalty"}})
    return _object({"name": {"const": Sum.name}, "summands": {**_list(part), "minItems": 1}})


def _penalty_schema(cls: type[Penalty]) -> dict[str, Any]:
    described = fields(cls)  # pyright: ignore[reportArgumentType]
    properties = {f.name: _parameter_schema(f.type) for f in described}
    optional = tuple(f.name for f in described if f.default is not MISSING)
    return _object({"name": {"const": cls.name}, **properties}, optional)


def _parameter_schema(kind: Any) -> dict[str, Any]:
    """Describe a field by its type, to which `Annotated` may add a range."""
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        return {**_parameter_schema(base), **limits}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    axes = {"type": "array", "items": {"enum": list(AXIS_NAMES)}, "uniqueItems": True, "minItems": 1}
    kinds = {float: _NUMBER, bool: {"type": "boolean"}, str: {"type": "string"}, tuple[str, ...]: axes}
    return dict(kinds.get(kind, {}))


def _object(properties: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
