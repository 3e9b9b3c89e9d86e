"""Holds manifests, a JSON list on standard input, against Istio's schemas and Kubernetes' own, strictly: an unknown
field is an error. Prints one line for each thing that is wrong.

Istio's are the models of the package cloudcoil-models-istio, which are generated from its CRDs. That package is unpacked
beside this interpreter, and what it takes from a client of Kubernetes stands in here, with nothing allowed that is not
named. (Rules in CEL are not in these models.)
"""

import __future__

import functools
import json
import pathlib
import sys
import types
from typing import Any, ClassVar, Generic, TypeVar

import kubernetes_validate
import pydantic
import typing_extensions

MODELS = pathlib.Path(sys.prefix) / "models" / "cloudcoil"
KUBERNETES = "1.37"
T, U = TypeVar("T"), TypeVar("U")


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class ObjectMeta(Strict):
    Builder: ClassVar[Any] = Any
    BuilderContext: ClassVar[Any] = Any
    name: str
    namespace: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Resource(Strict):
    apiVersion: str
    kind: str
    metadata: ObjectMeta


class Builder:
    pass


class Generic1(Generic[T]):
    pass


class Generic2(Generic[T, U]):
    pass


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def models():
    stand_in("cloudcoil")
    stand_in("cloudcoil.apimachinery", ObjectMeta=ObjectMeta)
    stand_in("cloudcoil.resources", Resource=Resource)
    stand_in(
        "cloudcoil.pydantic",
        UNSET=object(),
        BaseModel=Strict,
        BaseBuilder=Builder,
        BaseModelBuilder=Builder,
        BuilderContextBase=Generic1,
        GenericListBuilder=Generic2,
        ListBuilderContext=Generic1,
        Never=typing_extensions.Never,
        Self=typing_extensions.Self,
    )


@functools.cache
def model(api, kind):
    """Annotations are read when they are needed, as the Python that the package is for does."""
    group, version = api.split("/")
    path = MODELS / "models" / "istio" / group.split(".")[0] / f"{version}.py"
    name = f"models.{path.parent.name}.{path.stem}"
    if name not in sys.modules:
        stand_in(name)
        code = compile(path.read_text(), path, "exec", __future__.annotations.compiler_flag, dont_inherit=True)
        exec(code, sys.modules[name].__dict__)
    return getattr(sys.modules[name], kind)


def istio(manifest):
    model(manifest["apiVersion"], manifest["kind"]).model_validate_json(json.dumps(manifest), strict=True)


def wrong(manifest):
    try:
        if manifest["apiVersion"].split("/")[0].endswith("istio.io"):
            istio(manifest)
        else:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except (AttributeError, FileNotFoundError) as error:
        return [str(error)]
    return []


models()
for manifest in json.load(sys.stdin):
    for line in wrong(manifest):
        print(f"{manifest['kind']} {manifest['metadata']['name']}: {line}")
