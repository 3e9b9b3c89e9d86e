"""Holds objects against the schemas of their kinds: validate.py SCHEMAS OBJECTS. Says what does not fit."""

import json
import sys

import jsonschema

schemas, objects = (json.load(open(path)) for path in sys.argv[1:])
wrong = []
for one in objects:
    kind = f"{one['apiVersion']}/{one['kind']}"
    if kind not in schemas:
        wrong.append(f"{kind}: no schema")
        continue
    validator = jsonschema.Draft202012Validator(schemas[kind])
    for error in validator.iter_errors(one):
        wrong.append(f"{kind} {one['metadata']['name']}, {error.json_path}: {error.message[:200]}")
print("\n".join(wrong))
sys.exit(1 if wrong else 0)
