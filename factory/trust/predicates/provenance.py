"""How an image was made: SLSA provenance v1 (slsa.dev/spec/v1.0/provenance), with a build type of our own.

The build type is documented in docs/attestations.md; whoever changes what a field means raises its number. Files are
not listed one by one: a role, or all that lies beside, is one dependency whose digest covers its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from factory.digest import Digest, is_digest, of_json
from factory.errors import TamperedError
from factory.trust import predicates
from factory.trust.facts import BASE, IMAGE, Ancestor, BakeFacts, ImageFacts
from factory.trust.predicates import as_set, digest, digest_set, items, table, text, texts, whole, word
from factory.trust.statements import PROVENANCE, Statement, time_of, time_text

BUILD_TYPE = "urn:x-factory:bake:v1"
BUILDER = "urn:x-factory:builder:"
FILE_DIGEST, INPUT_DIGEST = "factoryFile", "factoryInput"
"""What is not the sha256 of some bytes as they lie there has an algorithm's name of its own: see the docs."""

MAX_DEPENDENCIES = 1024
MAX_VERSIONS = 256

_ALGORITHMS = {IMAGE: "sha256", BASE: "sha256", "file": FILE_DIGEST, "input": INPUT_DIGEST, "files": INPUT_DIGEST}


class Provenance(NamedTuple):
    """What a provenance says. `inputs`: input -> digest, as in images.lock; `parameters`: what images.toml said."""

    image: ImageFacts
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Digest]
    builder: str
    versions: Mapping[str, str]
    run: str
    started_at: datetime
    finished_at: datetime


def statement(bake: BakeFacts) -> Statement:
    """The provenance of a bake. ValueError where the facts do not fit together."""
    image = bake.image
    if not image.ancestors or image.ancestors[0].digest != image.base:
        raise ValueError("the first ancestor is not the base")
    playbook = bake.inputs.get("playbook", {})
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"arch": image.arch, "image": plain(bake.parameters), "name": image.name},
        "internalParameters": {
            "bakeKey": image.bake_key,
            "inputs": {name: of_json(dict(parts)) for name, parts in bake.inputs.items()},
            "versions": {part: value for part, value in playbook.items() if not is_digest(value)},
        },
        "resolvedDependencies": [*_ancestry(image), *_inputs(bake.inputs), *_playbook(bake)],
    }
    run = {
        "builder": {"id": BUILDER + bake.builder, "version": dict(bake.versions)},
        "byproducts": [{"digest": as_set(image.tree), "name": "tree"}],
        "metadata": {
            "finishedOn": time_text(bake.finished_at),
            "invocationId": bake.run,
            "startedOn": time_text(bake.started_at),
        },
    }
    subjects = predicates.subjects_of(image)
    return Statement(PROVENANCE, subjects, {"buildDefinition": definition, "runDetails": run})


def read(statement: Statement, what: str = "the provenance") -> Provenance:
    """What a provenance of ours says. Raises TamperedError."""
    predicate = table(statement.predicate, what, ("buildDefinition", "runDetails"))
    definition = table(
        predicate["buildDefinition"],
        f"{what}: buildDefinition",
        ("buildType", "externalParameters", "internalParameters", "resolvedDependencies"),
    )
    word(definition["buildType"], f"{what}: buildType", BUILD_TYPE)
    run = table(predicate["runDetails"], f"{what}: runDetails", ("builder", "byproducts", "metadata"))
    where = f"{what}: internalParameters"
    inner = table(definition["internalParameters"], where, ("bakeKey", "inputs", "versions"))
    texts(inner["versions"], f"{where}.versions", MAX_VERSIONS)
    parameters, named = _parameters(definition["externalParameters"], f"{what}: externalParameters")
    image, arch = predicates.image_of(statement.subjects, what)
    if (image, arch) != named:
        raise TamperedError(f"{what} is of {'/'.join(named)}, but speaks of {image}/{arch}")
    ancestors = _ancestors(definition["resolvedDependencies"], f"{what}: resolvedDependencies", arch)
    builder, versions = _builder(run["builder"], f"{what}: builder")
    invocation, started_at, finished_at = _metadata(run["metadata"], f"{what}: metadata")
    return Provenance(
        image=ImageFacts(
            name=image,
            arch=arch,
            digest=statement.subjects[0].sha256,
            bake_key=digest(inner["bakeKey"], f"{where}.bakeKey"),
            base=ancestors[0].digest,
            tree=_tree(run["byproducts"], f"{what}: byproducts"),
            ancestors=ancestors,
            artifacts=predicates.artifacts_of(statement.subjects, what),
        ),
        parameters=parameters,
        inputs=_digests(inner["inputs"], f"{where}.inputs"),
        builder=builder,
        versions=versions,
        run=invocation,
        started_at=started_at,
        finished_at=finished_at,
    )


def plain(value: Any) -> Any:
    """A value of images.toml as our JSON can say it: a number that is not whole, or not exact, becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) or (isinstance(value, int) and abs(value) >= 2**53):
        return repr(value)
    return value


def _ancestry(image: ImageFacts) -> Iterator[dict[str, Any]]:
    for depth, ancestor in enumerate(image.ancestors, start=1):
        yield {
            "annotations": {"depth": depth, "role": ancestor.role},
            "digest": as_set(ancestor.digest),
            "name": ancestor.name,
            "uri": _uri(ancestor, image.arch),
        }


def _inputs(inputs: Mapping[str, Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """The inputs that are things, not settings, each by the digest that images.lock has too."""
    for name in ("packages", "template", "checks"):
        if name in inputs:
            yield _group("input", name, inputs[name])


def _playbook(bake: BakeFacts) -> Iterator[dict[str, Any]]:
    """The playbook's file, the manifest of each installed collection, each role, and what else of files it uses."""
    files = {path: Digest(value) for path, value in bake.inputs.get("playbook", {}).items() if is_digest(value)}
    playbook = str(bake.parameters.get("playbook", ""))
    if playbook in files:
        yield {
            "annotations": {"role": "file"},
            "digest": as_set(files.pop(playbook), FILE_DIGEST),
            "name": playbook,
        }
    for name in [path for path in files if path.startswith("collection ")]:
        yield {"annotations": {"role": "file"}, "digest": as_set(files.pop(name), FILE_DIGEST), "name": name}
    roles = playbook[: playbook.rfind("/") + 1] + "roles/"
    groups: dict[str, dict[str, str]] = {}
    for path, value in files.items():
        role, slash, _ = path.removeprefix(roles).partition("/")
        in_role = path.startswith(roles) and slash
        groups.setdefault(roles + role if in_role else "other files", {})[path] = value
    for name, parts in sorted(groups.items()):
        yield _group("files", name, parts)


def _group(role: str, name: str, parts: Mapping[str, str]) -> dict[str, Any]:
    annotations = {"count": len(parts), "role": role}
    return {"annotations": annotations, "digest": as_set(of_json(dict(parts)), INPUT_DIGEST), "name": name}


def _uri(ancestor: Ancestor, arch: str) -> str:
    return f"urn:x-factory:{ancestor.role}:{ancestor.name}/{arch}"


def _parameters(value: object, what: str) -> tuple[Mapping[str, Any], tuple[str, str]]:
    found = table(value, what, ("arch", "image", "name"))
    if not isinstance(found["image"], dict):
        raise TamperedError(f"{what}.image is not an object")
    return found["image"], (text(found["name"], f"{what}.name"), text(found["arch"], f"{what}.arch"))


def _ancestors(value: object, what: str, arch: str) -> tuple[Ancestor, ...]:
    """The ancestors among the dependencies; that the others are well-formed is looked at, too."""
    found: list[Ancestor] = []
    for item in items(value, what, MAX_DEPENDENCIES):
        entry = table(item, what, ("annotations", "digest", "name"), ("uri",))
        named = text(entry["name"], f"{what}: name")
        notes = table(entry["annotations"], f"{what}: {named}", ("role",), ("depth", "count"))
        role = notes["role"]
        if not isinstance(role, str) or role not in _ALGORITHMS:
            raise TamperedError(f"{what}: the role of {named!r} is not known here")
        value = digest_set(entry["digest"], f"{what}: {named}", _ALGORITHMS[role])
        if role in (IMAGE, BASE):
            ancestor = Ancestor(value, predicates.name(named, f"{what}: name"), role)
            word(entry.get("uri"), f"{what}: the uri of {named}", _uri(ancestor, arch))
            if whole(notes.get("depth"), f"{what}: the depth of {named}") != len(found) + 1:
                raise TamperedError(f"{what}: the ancestors are not in their order")
            found.append(ancestor)
    if not found:
        raise TamperedError(f"{what} name no base")
    if any(ancestor.role == BASE for ancestor in found[:-1]):
        raise TamperedError(f"{what}: a base has no ancestors")
    return tuple(found)


def _builder(value: object, what: str) -> tuple[str, Mapping[str, str]]:
    found = table(value, what, ("id", "version"))
    identity = text(found["id"], f"{what}.id")
    if not identity.startswith(BUILDER):
        raise TamperedError(f"{what}.id is no builder of ours")
    kind = predicates.name(identity.removeprefix(BUILDER), f"{what}.id")
    return kind, texts(found["version"], f"{what}.version", MAX_VERSIONS)


def _metadata(value: object, what: str) -> tuple[str, datetime, datetime]:
    found = table(value, what, ("finishedOn", "invocationId", "startedOn"))
    started_at = time_of(found["startedOn"], f"{what}.startedOn")
    finished_at = time_of(found["finishedOn"], f"{what}.finishedOn")
    if finished_at < started_at:
        raise TamperedError(f"{what}: it ends before it begins")
    return text(found["invocationId"], f"{what}.invocationId"), started_at, finished_at


def _tree(value: object, what: str) -> Digest:
    for item in items(value, what, 1):
        found = table(item, what, ("digest", "name"))
        word(found["name"], f"{what}: name", "tree")
        return digest_set(found["digest"], what)
    raise TamperedError(f"{what} name no tree")


def _digests(value: object, what: str) -> Mapping[str, Digest]:
    if not isinstance(value, dict) or len(value) > MAX_VERSIONS:
        raise TamperedError(f"{what} is no object of at most {MAX_VERSIONS} digests")
    return {text(key, what): digest(item, f"{what}.{key}") for key, item in value.items()}
