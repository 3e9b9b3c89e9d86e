"""Renders and lints the chart with Helm's own library, and validates objects against Kubernetes' schemas, strictly.

A question is a line of JSON on standard input, its answer one on standard output; an error of Helm's is an answer.
"""
import json
import sys

import helm_python as helm
import kubernetes_validate
import yaml


def render(question):
    values = helm.values_from_yaml(question["values"])
    try:
        with helm.Chart.load(question["chart"]) as chart:
            files = chart.render(values, name=question["release"], namespace=question["namespace"])
        report = helm.lint(question["chart"], values, strict=True, namespace=question["namespace"])
    except helm.HelmError as error:
        return {"error": str(error)}
    notes = [text for file, text in files.items() if file.endswith("NOTES.txt")]
    manifests = (text for file, text in sorted(files.items()) if not file.endswith("NOTES.txt"))
    objects = [each for text in manifests for each in yaml.safe_load_all(text) if each]
    findings = [f"{each['path']}: {each['error']}" for each in report["messages"] if each["severity"] > 1]
    return {"objects": objects, "notes": notes[0], "findings": findings + report["errors"]}


def validate(question):
    """What is wrong with objects of Kubernetes' own kinds; which others there are."""
    wrong, others = [], []
    for each in question["objects"]:
        name = f"{each['kind']}/{each['metadata'].get('name')}"
        try:
            for version in question["versions"]:
                kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            others.append(each)
        except kubernetes_validate.ValidationError as error:
            wrong.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message} (Kubernetes {error.version})")
    return {"wrong": wrong, "others": others}


def parse(question):
    return {"objects": [each for each in yaml.safe_load_all(question["text"]) if each]}


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"render": render, "validate": validate, "parse": parse}[asked["do"]](asked)), flush=True)
