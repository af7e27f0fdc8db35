"""images.toml -> FactorySpec: what to bake.

Owns the names of the keys, their types, limits and defaults (those of the records in model.py), and the order of a
bake (`select`). Reads images.toml and asks whether the folders and playbooks it names exist; never reads those, never
writes. What it returns is whole and sound: every base exists, no image descends from itself, every path is inside the
factory, every variable can be said in JSON. All faults of the file come in one SpecError.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from factory import schema
from factory.digest import Digest
from factory.errors import UsageError
from factory.model import BaseSpec, CveSpec, FactorySpec, ImageSpec
from factory.schema import Faults, Limits, Table

BASE_KINDS = ("debootstrap", "disk")
BUILDERS = ("rootfs", "qemu")
FORMATS = ("qcow2", "raw", "vmdk")
ARCHES = ("amd64", "arm64")
LATER = ("ami", "amazon-ebs")  # in the design, not in this version: told apart from a mistyped word
MOST_DISK_MIB = 1 << 20
LARGEST_JSON_INTEGER = (1 << 53) - 1  # RFC 8785 writes numbers as IEEE doubles

_NAME = Limits(pattern=re.compile(r"[a-z0-9-]{1,63}"), described="1 to 63 of a-z, 0-9 and -")
_SUITE = Limits(pattern=re.compile(r"[a-z0-9][a-z0-9.-]*"), described='the name of a suite, such as "bookworm"')
_PACKAGE = Limits(pattern=re.compile(r"[a-z0-9][a-z0-9+.-]+"), described="the name of a package")
_SECRET = Limits(pattern=re.compile(r"[A-Z_][A-Z0-9_]*"), described="the name of a variable: A-Z, 0-9 and _")
_TAKEN = re.compile(  # what the environment of a provisioner means already
    r"PATH|HOME|TMPDIR|USER|LOGNAME|LANG|SHELL|IFS|FACTORY_RUN|(?:LD_|LC_|PYTHON|ANSIBLE_|PACKER_|DYLD_).*"
)
_CHECK = Limits(pattern=re.compile(r"[^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?"),
                described="the name of a check")  # fmt: skip
_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_PATH = Limits(pattern=re.compile(r"[^\x00-\x1f\x7f]+"), described="a path without control characters")

_IMAGE_PREFIX = "image:"
_TOP_KEYS = ("store", "cve", "base", "image")
_CVE_KEYS = tuple(field.name for field in fields(CveSpec))
_BASE_KEYS = tuple(field.name for field in fields(BaseSpec) if field.name != "name")
_IMAGE_KEYS = tuple(field.name for field in fields(ImageSpec) if field.name not in ("name", "arch", "layered"))
_DEFAULTS = {field.name: field.default for field in fields(ImageSpec)}


def load(root: Path) -> FactorySpec:
    """images.toml of the factory in `root`. SpecError names every fault of the file."""
    root = Path(root).absolute()
    data, faults = schema.load(root / "images.toml")
    top = Table(data, (), faults)
    store_url = _store(top.table("store"), required=top.has("store"))
    cve = _cve(top.table("cve"))
    bases = {name: _base(root, name, table) for name, table in top.table("base").tables(_NAME).items()}
    tables = top.table("image").tables(_NAME)
    images = {name: _image(root, name, table) for name, table in tables.items()}
    top.close(_TOP_KEYS)
    _check_bases(bases, images, tables)
    _check_cycles(images, faults)
    faults.check()
    return FactorySpec(root, bases, _with_arches(bases, images), store_url, cve)


def _store(table: Table, *, required: bool) -> str | None:
    url = table.optional_text("url", required=required)
    table.close(("url",))
    if url is None:
        return None
    scheme, _, rest = url.partition(":")
    if scheme == "s3":
        table.fault("url", "s3: stores are not supported yet; use file: or https:")
    elif scheme not in ("file", "https"):
        table.fault("url", f"{schema.quoted(url)} must begin with file: or https:")
    elif scheme == "file" and not _file_url_path(url).startswith("/"):
        table.fault("url", f'{schema.quoted(url)} must name an absolute path, such as "file:/srv/images"')
    elif scheme == "https" and not (rest.startswith("//") and urlsplit(url).hostname):
        table.fault("url", f"{schema.quoted(url)} names no host")
    return url


def _cve(table: Table) -> CveSpec:
    named = {key: table.texts(key, _PATH) or () for key in _CVE_KEYS}
    for key, places in named.items():
        for place in places:
            if "://" not in place:
                continue
            problem = url_problem(place) if key != "vex" else "must be a path: statements belong to the factory"
            if problem:
                table.fault(key, f"{schema.quoted(place)} {problem}")
    table.close(_CVE_KEYS)
    return CveSpec(**named)


def url_problem(url: str) -> str | None:
    """What is wrong with a URL that data are to come from; None where nothing is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018 - raises where it is none
    except ValueError as error:
        return f"is no URL: {error}"
    if parts.username is not None or parts.password is not None:
        return "must hold no user and no password"
    if not host or parts.scheme not in ("https", "http"):
        return "must be a path, or begin with https://"
    if parts.scheme == "http" and host not in ("127.0.0.1", "::1", "localhost"):
        return "must begin with https:// (http is for this machine itself)"
    return None


def _file_url_path(url: str) -> str:
    """The path of a `file:` URL, written `file:/path` or `file:///path`; empty where it names another host."""
    parts = urlsplit(url)
    return unquote(parts.path) if parts.netloc in ("", "localhost") else ""


def _choice(table: Table, key: str, choices: tuple[str, ...], *, default: str = "", required: bool = False) -> str:
    value = table.text(key, default=default, required=required)
    if value in LATER:
        table.fault(key, f"{schema.quoted(value)} is not supported yet; valid: {', '.join(choices)}")
    elif value and value not in choices:
        table.fault(key, f"{schema.quoted(value)} is not one of them; {schema.suggestion(value, choices)}")
    return value


def _base(root: Path, name: str, table: Table) -> BaseSpec:
    kind = _choice(table, "kind", BASE_KINDS, required=True)
    arch = table.text("arch", Limits(choices=ARCHES), required=True)
    suite = table.optional_text("suite", _SUITE, required=kind == "debootstrap")
    include = table.texts("include", _PACKAGE) or ()
    path = table.optional_text("path", _PATH)
    url = table.optional_text("url", _PATH)
    sha256 = _sha256(table, required=kind == "disk")
    table.close(_BASE_KEYS)
    _refuse_foreign_keys(table, kind)
    if kind == "disk" and table.has("path") == table.has("url"):
        table.faults.add(table.at(), 'a base of kind "disk" has either "path" or "url"')
    if url is not None and not url.startswith(("https://", "http://", "file:/")):
        table.fault("url", f"{schema.quoted(url)} must begin with https://, http:// or file:/")
    return BaseSpec(name, kind, arch, suite, include, None if path is None else root / path, url, sha256)


def _refuse_foreign_keys(table: Table, kind: str) -> None:
    foreign = {"debootstrap": ("path", "url", "sha256"), "disk": ("suite", "include")}
    for key in foreign.get(kind, ()):
        if table.has(key):
            table.fault(key, f'does not belong to a base of kind "{kind}"')


def _sha256(table: Table, *, required: bool) -> Digest | None:
    value = table.optional_text("sha256", required=required)
    if value is None:
        return None
    if match := _HEX.fullmatch(value):
        return Digest("sha256:" + match[1])
    near = f' (nearest: "{value.strip().lower()}")' if _HEX.fullmatch(value.strip().lower()) else ""
    table.fault("sha256", f"{schema.quoted(value)} must be 64 lower-case hex digits{near}")
    return None


def _image(root: Path, name: str, table: Table) -> ImageSpec:
    base = table.text("base", required=True)
    layered = base.startswith(_IMAGE_PREFIX)
    image = ImageSpec(
        name=name,
        arch="",
        base=base.removeprefix(_IMAGE_PREFIX),
        layered=layered,
        builder=_choice(table, "builder", BUILDERS, default="rootfs"),
        playbook=_inside(root, table, "playbook", table.text("playbook", _PATH, required=True), folder=False),
        vars=_vars(table),
        checks=_checks(root, table),
        skip_checks=table.texts("skip_checks", _CHECK) or (),
        formats=_formats(table),
        state=_state(table),
        ports=_or_default("ports", table.integers("ports", 1, 65535)),
        secrets=_secrets(table),
        disk_mib=_disk_mib(table),
        channel=table.optional_text("channel", _NAME),
    )
    table.close(_IMAGE_KEYS)
    return image


def _or_default(key: str, value: Any) -> Any:
    return _DEFAULTS[key] if value is None else value


def _inside(root: Path, table: Table, key: str, written: str, *, folder: bool) -> str:
    """A path below the factory's folder, that exists and is of the kind; noted where not."""
    if not written:
        return written
    normal = posixpath.normpath(written)
    if normal.startswith(("/", "../")) or normal in ("..", "."):
        table.fault(key, f"{schema.quoted(written)} must be a path inside the factory's folder")
    elif not ((root / normal).is_dir() if folder else (root / normal).is_file()):
        what = "folder" if folder else "file"
        table.fault(key, f"the {what} {schema.quoted(written)} does not exist{_neighbour(root, normal)}")
    return normal


def _neighbour(root: Path, missing: str) -> str:
    path = PurePosixPath(missing)
    folder = root / path.parent
    near = schema.nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else None
    return f'; did you mean "{path.parent / near}"?' if near else ""


def _checks(root: Path, table: Table) -> tuple[str, ...] | None:
    written = table.texts("checks", _PATH)
    if written is None:
        return None
    return tuple(_inside(root, table, "checks", path, folder=True) for path in written)


def _formats(table: Table) -> tuple[str, ...]:
    return tuple(_or_default("formats", table.texts("formats", Limits(choices=FORMATS), least=1)))


def _state(table: Table) -> tuple[str, ...]:
    written = table.texts("state", _PATH)
    for path in written or ():
        normal = "/" + posixpath.normpath(path).lstrip("/")
        if not path.startswith("/") or ".." in PurePosixPath(path).parts:
            table.fault("state", f'{schema.quoted(path)} must be an absolute path without ".."')
        elif normal == "/":
            table.fault("state", '"/" would allow everything; name the folders it may write to')
        elif path != normal:
            table.fault(
                "state", f"{schema.quoted(path)} is not in its shortest form (nearest: {schema.quoted(normal)})"
            )
    return tuple(_or_default("state", written))


def _secrets(table: Table) -> tuple[str, ...]:
    names = table.texts("secrets", _SECRET) or ()
    for name in names:
        if _TAKEN.fullmatch(name):
            table.fault("secrets", f"{schema.quoted(name)} means something to the programs of a bake; use another name")
    return names


def _disk_mib(table: Table) -> int:
    value = table.integer("disk_mib", default=ImageSpec.disk_mib)
    if value % 1024 or not 1024 <= value <= MOST_DISK_MIB:
        close = min(max(round(value / 1024) * 1024 if abs(value) < 1 << 40 else value, 1024), MOST_DISK_MIB)
        table.fault(
            "disk_mib",
            f"must be a multiple of 1024 from 1024 to {MOST_DISK_MIB}, is {schema.quoted(value)} (nearest: {close})",
        )
    return value


def _vars(table: Table) -> Mapping[str, Any]:
    values = table.take("vars", dict, "a table") or {}
    pending: list[tuple[tuple[str, ...], Any]] = [(("vars", key), value) for key, value in values.items()]
    while pending:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            pending += [((*path, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [((*path, str(index)), item) for index, item in enumerate(value)]
        elif problem := _no_json(value):
            table.faults.add(table.at(*path), problem)
    return values


def _no_json(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} cannot be said in JSON"
    if isinstance(value, int) and abs(value) > LARGEST_JSON_INTEGER:
        return "a whole number this large cannot be said exactly in JSON; write it as a string"
    if not isinstance(value, (str, int, float)):
        return f'a date or time cannot be said in JSON; write it as a string: "{value}"'
    return None


def _check_bases(bases: Mapping[str, BaseSpec], images: Mapping[str, ImageSpec], tables: Mapping[str, Table]) -> None:
    for name, image in images.items():
        known: Iterable[str] = images if image.layered else bases
        if image.base in known:
            continue
        written = [*bases, *(_IMAGE_PREFIX + other for other in images if other != name)]
        asked = (_IMAGE_PREFIX if image.layered else "") + image.base
        if asked:
            other = image.base if image.layered else _IMAGE_PREFIX + image.base
            advice = f'did you mean "{other}"?' if other in written else schema.suggestion(asked, written)
            tables[name].fault("base", f"there is no base {schema.quoted(asked)}; {advice}")


def _check_cycles(images: Mapping[str, ImageSpec], faults: Faults) -> None:
    settled: set[str] = set()
    for start in images:
        trail: dict[str, None] = {}
        name: str | None = start
        while name is not None and name not in settled and name not in trail:
            trail[name] = None
            name = _parent(images, name)
        if name in trail:
            ring = list(trail)[list(trail).index(str(name)) :]
            faults.add(
                schema.dotted("image", ring[0], "base"), "descends from itself: " + " -> ".join([*ring, ring[0]])
            )
        settled.update(trail)


def _parent(images: Mapping[str, ImageSpec], name: str) -> str | None:
    image = images[name]
    return image.base if image.layered and image.base in images else None


def _lineage(images: Mapping[str, ImageSpec], name: str) -> list[str]:
    """The image and its ancestors, itself first. The images must be free of cycles."""
    line = [name]
    while (parent := _parent(images, line[-1])) is not None:
        line.append(parent)
    return line


def _with_arches(bases: Mapping[str, BaseSpec], images: Mapping[str, ImageSpec]) -> dict[str, ImageSpec]:
    def arch(name: str) -> str:
        return bases[images[_lineage(images, name)[-1]].base].arch

    return {name: replace(image, arch=arch(name)) for name, image in images.items()}


def find(spec: FactorySpec, name: str) -> ImageSpec:
    """The image that NAME or NAME/ARCH means; UsageError with the nearest spelling where there is none."""
    plain, slash, arch = name.partition("/")
    image = spec.images.get(plain)
    if image is None:
        raise UsageError(
            f"there is no image {schema.quoted(plain)}", where="images.toml", hint=schema.suggestion(plain, spec.images)
        )
    if slash and arch != image.arch:
        raise UsageError(
            f"the image {plain} is not built for {schema.quoted(arch)}",
            where="images.toml",
            hint=f"did you mean {plain}/{image.arch}?",
        )
    return image


def select(spec: FactorySpec, names: Sequence[str] = ()) -> list[ImageSpec]:
    """The named images (all of them where no name is given) with their ancestors, parents first, else by name."""
    wanted = sorted({find(spec, name).name for name in names} if names else spec.images)
    ordered: dict[str, ImageSpec] = {}
    for name in wanted:
        for member in reversed(_lineage(spec.images, name)):
            ordered.setdefault(member, spec.images[member])
    return list(ordered.values())
