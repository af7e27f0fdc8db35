"""Which image somebody means: by name, by name and architecture, by its digest or the beginning of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from factory import schema
from factory.catalog.database import Catalog
from factory.digest import Digest, packed, unpacked
from factory.errors import UsageError

_HEX = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})\Z")
_AT_A_TIME = 500
COLUMNS = "images.id, images.digest, images.kind, images.name, images.arch, recorded_at, builder, package_set"


class KnownImage(NamedTuple):
    """One row of `images`: a golden image (`kind` is `image`) or a base (`debootstrap`, `disk`, `ami`).

    `recorded_at` is None for one that is known only as the parent of another; so is what follows it, and of a base.
    A tuple, because answers have tens of thousands of them and a frozen dataclass takes three times as long to make.
    """

    id: int
    digest: Digest
    kind: str
    name: str
    arch: str
    recorded_at: str | None
    builder: str | None
    package_set: int | None

    @property
    def who(self) -> str:
        """NAME/ARCH."""
        return f"{self.name}/{self.arch}"

    @property
    def role(self) -> str:
        """`image`, or `base`."""
        return "image" if self.kind == "image" else "base"


def of_row(row: dict[str, Any]) -> KnownImage:
    """The image of a row that has COLUMNS."""
    return KnownImage(**{**row, "digest": unpacked(row["digest"])})


def one(catalog: Catalog, target: str, as_of: str | None = None) -> KnownImage:
    """The image that NAME, NAME/ARCH or DIGEST means: of a name, the one recorded last (until `as_of`).

    DIGEST may be shortened to 6 hex digits. UsageError: there is none, or more than one.
    """
    if (found := _HEX.match(target)) and (by_digest := _by_digest(catalog, found[1], as_of)):
        if len(by_digest) > 1:
            raise UsageError(
                f"{target} begins {len(by_digest)} digests: " + ", ".join(one.digest for one in by_digest[:4]),
                hint="give more of it",
            )
        return by_digest[0]
    name, _, arch = target.partition("/")
    rows = catalog.query(
        f"SELECT {COLUMNS}, max(bakes.id) AS bake FROM images JOIN bakes ON bakes.image = images.id"
        " WHERE images.name = :name AND (:arch = '' OR images.arch = :arch)"
        " AND (:as_of IS NULL OR baked_at <= :as_of) GROUP BY images.arch",
        {"name": name, "arch": arch, "as_of": as_of},
    )
    if not rows:
        rows = catalog.query(
            f"SELECT {COLUMNS}, max(images.id) AS bake FROM images WHERE name = :name AND kind <> 'image'"
            " AND (:arch = '' OR arch = :arch) AND (:as_of IS NULL OR recorded_at <= :as_of) GROUP BY arch",
            {"name": name, "arch": arch, "as_of": as_of},
        )
    if len(rows) > 1:
        archs = " or ".join(f"{name}/{row['arch']}" for row in rows)
        raise UsageError(f"there is more than one {name}: say {archs}")
    if not rows:
        raise _unknown(catalog, target, as_of)
    return of_row({key: value for key, value in rows[0].items() if key != "bake"})


def is_known(catalog: Catalog, target: str) -> bool:
    """Whether there is an image, or a base, of the name NAME or NAME/ARCH."""
    name, _, arch = target.partition("/")
    sql = "SELECT EXISTS (SELECT 1 FROM images WHERE name = ? AND ? IN ('', arch)) AS there"
    return bool(catalog.query(sql, [name, arch])[0]["there"])


def refuse_unknown(catalog: Catalog, target: str) -> None:
    """UsageError where there is no image, and no base, of the name NAME or NAME/ARCH."""
    if not is_known(catalog, target):
        raise _unknown(catalog, target, None)


def by_id(catalog: Catalog, number: int) -> KnownImage:
    """The image of a row id."""
    return of_row(catalog.query(f"SELECT {COLUMNS} FROM images WHERE id = ?", [number])[0])


def by_digests(catalog: Catalog, digests: Iterable[Digest]) -> dict[Digest, KnownImage]:
    """Of these digests, the images that the catalog knows."""
    found: dict[Digest, KnownImage] = {}
    wanted = sorted(set(digests))
    for start in range(0, len(wanted), _AT_A_TIME):
        part = [packed(digest) for digest in wanted[start : start + _AT_A_TIME]]
        sql = f"SELECT {COLUMNS} FROM images WHERE digest IN ({', '.join('?' * len(part))})"
        found.update({image.digest: image for image in map(of_row, catalog.query(sql, part))})
    return found


def by_artifact(catalog: Catalog, digest: Digest) -> KnownImage | None:
    """The image of which a stored file has this digest; None where there is none."""
    sql = (
        f"SELECT {COLUMNS} FROM artifacts JOIN bakes ON bakes.id = bake JOIN images ON images.id = image"
        " WHERE substr(artifacts.digest, 1, 8) = substr(:digest, 1, 8) AND artifacts.digest = :digest"
        " ORDER BY bakes.id DESC LIMIT 1"
    )
    rows = catalog.query(sql, {"digest": packed(digest)})
    return of_row(rows[0]) if rows else None


def by_native(catalog: Catalog, native: str) -> KnownImage | None:
    """The image that is published somewhere under this id (an AMI's, say); None where there is none."""
    sql = (
        f"SELECT {COLUMNS} FROM locations JOIN bakes ON bakes.id = bake JOIN images ON images.id = image"
        " WHERE native = ? ORDER BY bakes.id DESC LIMIT 1"
    )
    rows = catalog.query(sql, [native])
    return of_row(rows[0]) if rows else None


def _by_digest(catalog: Catalog, digits: str, as_of: str | None) -> list[KnownImage]:
    low, high = packed("sha256:" + digits.ljust(64, "0")), packed("sha256:" + digits.ljust(64, "f"))
    sql = (
        f"SELECT {COLUMNS} FROM images WHERE digest BETWEEN ? AND ?"
        " AND (? IS NULL OR recorded_at <= ?) ORDER BY digest LIMIT 20"
    )
    return [of_row(row) for row in catalog.query(sql, [low, high, as_of, as_of])]


def _unknown(catalog: Catalog, target: str, as_of: str | None) -> UsageError:
    names = [row["name"] for row in catalog.query("SELECT DISTINCT name FROM images ORDER BY name LIMIT 10000")]
    if as_of is not None and is_known(catalog, target):
        problem = f"no {target[:80]} was recorded by {as_of}"
    else:
        problem = f"the catalog knows no image {target[:80]!r}; {schema.suggestion(target[:80], names)}"
    return UsageError(
        problem,
        where=str(catalog.path),
        hint="factory images lists them",
    )
