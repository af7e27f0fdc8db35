"""Fetching a file whose sha256 is known, from a path or URL into a cache of files by digest.

A file in the cache is whole and has its digest: it is hashed as it comes and put there by a rename. What came of a
download that broke off is kept and gone on with; what has the wrong digest is removed.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import stat
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from factory import files
from factory.digest import Digest, hex_of
from factory.errors import BaseError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60


def fetch(source: str, sha256: Digest, folder: Path) -> Path:
    """The file at `source` (an absolute path, or a file:, http: or https: URL), in `folder` by its digest.

    Does nothing where it is there. Raises BaseError: not to be had, or not what it should be.
    """
    target = folder / hex_of(sha256)
    with files.exclusive(folder / f".{hex_of(sha256)}.lock"):
        if target.exists():
            return target
        part = folder / f".{hex_of(sha256)}.part"
        found = _receive(source, part)
        if found != sha256:
            part.unlink()
            raise BaseError(
                f"{source} is not the file that was asked for: its digest is {found}, and {sha256} is wanted",
                where=source,
                hint="if the file was replaced on purpose, put the new sha256 into images.toml",
            )
        part.chmod(0o444)
        part.replace(target)
        files.sync_folder(folder)
    return target


def _receive(source: str, part: Path) -> Digest:
    """Bring all of `source` into `part`, going on where a download broke off; the digest of it all."""
    hasher = hashlib.sha256()
    with part.open("a+b") as out:
        out.seek(0)
        while chunk := out.read(_CHUNK_BYTES):
            hasher.update(chunk)
        with _opened(source, out.tell()) as (file, resumed):
            if not resumed:
                out.truncate(0)
                hasher = hashlib.sha256()
            while chunk := _read(file, source):
                out.write(chunk)
                hasher.update(chunk)
        out.flush()
        os.fsync(out.fileno())
    return Digest("sha256:" + hasher.hexdigest())


@contextmanager
def _opened(source: str, have: int) -> Iterator[tuple[IO[bytes], bool]]:
    """`source` from byte `have` on (True), or from its beginning where that is all there is (False)."""
    address = urllib.parse.urlsplit(source)
    if address.scheme in ("", "file"):
        if address.netloc not in ("", "localhost"):
            raise BaseError(f"a file: URL names a file of this host: {source}", where=source)
        with _open_file(Path(urllib.parse.unquote(address.path) if address.scheme else source)) as file:
            yield file, False
    elif address.scheme in ("http", "https"):
        response = _open_url(source, have)
        with response:
            yield response, response.status == http.HTTPStatus.PARTIAL_CONTENT
    else:
        raise BaseError(f"cannot fetch {source}", where=source, hint="use a path, or a file:, http: or https: URL")


def _open_file(path: Path) -> IO[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BaseError(f"{path} is a symbolic link", where=str(path), hint="name the file it points to") from error
        raise BaseError(f"{path} cannot be read: {error.strerror}", where=str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BaseError(f"{path} is not a file", where=str(path), hint="name a disk image, raw or qcow2")
    return os.fdopen(descriptor, "rb")


def _open_url(url: str, have: int) -> http.client.HTTPResponse:
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
        return response
    except urllib.error.HTTPError as error:
        error.close()
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open_url(url, 0)
        raise BaseError(
            f"{url} cannot be fetched: the server answered {error.code} {error.reason}", where=url
        ) from error
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, error) from error


def _read(file: IO[bytes], source: str) -> bytes:
    try:
        data = file.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(source, error) from error
    if not data and getattr(file, "length", None):  # what urllib still waits for: it takes a short body for a whole one
        raise _unreachable(source, ConnectionError("the connection broke off"))
    return data


def _unreachable(source: str, error: Exception) -> BaseError:
    reason = getattr(error, "reason", error)
    return BaseError(
        f"{source} is not cached and cannot be fetched: {reason}",
        where=source,
        hint="connect this host to the network and try again; what came so far is kept",
    )
