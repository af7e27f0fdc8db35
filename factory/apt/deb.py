"""Reading .deb files: an ar archive with a control.tar in it (deb(5))."""

from __future__ import annotations

import io
import lzma
import tarfile
import urllib.parse
import zlib
from pathlib import Path

from factory import proc
from factory.apt.index import fields
from factory.digest import Digest, hex_of
from factory.errors import BaseError

_SUFFIXES = (".deb", ".udeb", ".ddeb")
_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_LARGEST_CONTROL = 64 << 20


def is_deb_url(url: str) -> bool:
    """Whether a URL names a package, and not an index."""
    return urllib.parse.urlsplit(url).path.endswith(_SUFFIXES)


def describe(path: Path, digest: Digest) -> tuple[str, str]:
    """The package name in a .deb, and its stanza of a Packages file but for Filename. BaseError where it is none."""
    control = _control(path).strip("\n")
    found = fields(control)
    name = found.get("Package", "")
    if not name or "/" in name or "Version" not in found or "Architecture" not in found:
        raise _not_a_deb(path, "its control file names no package")
    return name, f"{control}\nSize: {path.stat().st_size}\nSHA256: {hex_of(digest)}\n"


def _control(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise _not_a_deb(path, "it is no ar archive")
            while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
                name, size = header[:16].decode("ascii").rstrip(" /"), int(header[48:58])
                if name.startswith("control.tar"):
                    if name.endswith(".zst"):
                        return proc.run(["dpkg-deb", "--field", str(path)]).text
                    return _control_of_tar(file.read(min(size, _LARGEST_CONTROL)))
                file.seek(size + size % 2, io.SEEK_CUR)
    except (OSError, EOFError, ValueError, KeyError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise _not_a_deb(path, str(error)) from error
    raise _not_a_deb(path, "it has no control.tar")


def _control_of_tar(data: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        member = next((item for item in archive if item.name.removeprefix("./") == "control"), None)
        file = archive.extractfile(member) if member is not None else None
        if file is None:
            raise ValueError("its control.tar has no control file")
        return file.read().decode("utf-8", "replace")


def _not_a_deb(path: Path, why: str) -> BaseError:
    return BaseError(f"not a Debian package: {why}", where=str(path))
