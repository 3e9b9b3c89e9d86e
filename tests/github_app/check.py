"""check.py DESCRIPTION EXCHANGES: whether each exchange is one that GitHub's own description (OpenAPI 3.0) has: its
route, every member of its request, its status, and its answer. Prints what is not so, and then ends with 1."""

import json
import sys

from openapi_schema_validator import OAS30Validator, oas30_format_checker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

description = json.load(open(sys.argv[1], encoding="utf-8"))
ROOT = "urn:description"
registry = Registry().with_resource(ROOT, Resource(contents=description, specification=DRAFT4))


def resolved(node):
    while "$ref" in node:
        at = description
        for part in node["$ref"].removeprefix("#/").split("/"):
            at = at[part.replace("~1", "/").replace("~0", "~")]
        node = at
    return node


def absolute(node):
    """The same schema, whose references say which document they mean."""
    if isinstance(node, dict):
        return {k: ROOT + v if k == "$ref" and v.startswith("#") else absolute(v) for k, v in node.items()}
    return [absolute(each) for each in node] if isinstance(node, list) else node


def faults(value, schema, what):
    checker = OAS30Validator(absolute(schema), registry=registry, format_checker=oas30_format_checker)
    for error in checker.iter_errors(value):
        yield f"{what}: {error.json_path}: {error.message[:200]}"


def unknown(value, schema, what):
    """Members that the description does not name: it allows them, and GitHub would not read them."""
    schema = resolved(schema)
    if isinstance(value, dict) and "properties" in schema:
        for name, member in value.items():
            if name not in schema["properties"]:
                yield f"{what}: {name} is not described"
            else:
                yield from unknown(member, schema["properties"][name], f"{what}.{name}")


def check(exchange):
    what = f"{exchange['method']} {exchange['route']} {exchange['status']}"
    operation = description["paths"].get(exchange["route"], {}).get(exchange["method"].lower())
    if operation is None:
        yield f"{what}: no such operation"
        return
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if exchange["request"] is not None and body is None:
        yield f"{what}: it takes no body"
    elif exchange["request"] is not None:
        yield from faults(exchange["request"], body, f"{what}: request")
        yield from unknown(exchange["request"], body, f"{what}: request")
    answer = operation["responses"].get(str(exchange["status"]))
    if answer is None and exchange["status"] < 400:
        yield f"{what}: no such answer"
        return
    # Of most failures it describes but the form.
    basic = {"$ref": "#/components/schemas/basic-error"}
    content = resolved(answer).get("content") if answer is not None else {"application/json": {"schema": basic}}
    if content is None:
        if exchange["answer"] is not None:
            yield f"{what}: this answer has no body"
        return
    yield from faults(exchange["answer"], content["application/json"]["schema"], f"{what}: answer")


exchanges = json.load(open(sys.argv[2], encoding="utf-8"))
found = [fault for exchange in exchanges for fault in check(exchange)]
print("\n".join(found) if found else f"{len(exchanges)} exchanges are as described")
sys.exit(1 if found else 0)
