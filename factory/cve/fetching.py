"""Files at URLs: fetched over https (http from this machine itself; `spec.url_problem` says which).

They are kept under .factory/cache/cve/ with their ETag, and a fetch asks only for what changed. Where nobody answers
(or a server is in trouble) the copy of before serves, and its age is told; `offline` asks nobody. Where a server says
that there is no such file, that is an error, as is a web page in place of data. A copy is replaced whole, and
`discard`ed by whoever finds that it cannot be read.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any

from factory import digest as digests
from factory import files
from factory.digest import hex_of
from factory.errors import CveError
from factory.spec import url_problem

MAX_BYTES = 4 << 30
TIMEOUT_S = 60  # of one answer from the network
DEADLINE_S = 900  # of the whole
_BLOCK_BYTES = 1 << 20
_SPACE = b" \t\r\n"
_GONE = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)


@dataclass(frozen=True)
class Copy:
    """What is here of a URL. Times are UTC, ISO 8601. `published_at`: when the server says that it was last changed;
    `checked_at`: when it last said that this is what it has."""

    url: str
    checked_at: str
    published_at: str | None = None
    etag: str | None = None
    modified: str | None = None

    @property
    def as_of(self) -> datetime:
        """The time that it speaks of: of the server's last change, else when it was had."""
        checked = datetime.fromisoformat(self.checked_at)
        return min(checked, datetime.fromisoformat(self.published_at)) if self.published_at else checked


def is_url(text: str) -> bool:
    """Whether this is a URL, and not a path."""
    return "://" in text


def fetch(url: str, cache: Path, *, offline: bool, say: Callable[[str], None]) -> tuple[Path, Copy]:
    """The file at a URL, and what is known of it. Raises CveError."""
    if problem := url_problem(url):
        raise CveError(f"{url} {problem}", where=url)
    path, notes = _places(cache, url)
    if offline:
        copy = _known(path, notes, url)
        if copy is None:
            raise CveError(f"there is no copy of {url} here", where=str(cache), hint="once without --offline gets one")
        say(f"{url}: {_age(copy)}, as --offline asks")
        return path, copy
    with files.exclusive(path.with_suffix(".lock")):
        copy = _known(path, notes, url)
        try:
            fresh = _ask(url, copy, path)
        except _Unreachable as error:
            if copy is None:
                raise CveError(
                    f"cannot get {url}: {error}",
                    where=url,
                    hint="is the network there? a file can be given by its path",
                ) from error
            say(f"{url} cannot be had now ({error}): {_age(copy)}")
            return path, copy
        files.replace(notes, json.dumps(asdict(fresh)).encode())
        return path, fresh


def discard(url: str, cache: Path) -> None:
    """Forget the copy of a URL, which cannot be read, so that the next fetch asks for all of it."""
    for place in _places(cache, url):
        with suppress(OSError):
            place.unlink(missing_ok=True)


class _Unreachable(Exception):
    """Nobody answers, or what answers is in trouble."""


def _places(cache: Path, url: str) -> tuple[Path, Path]:
    name = hex_of(digests.of_bytes(url.encode("utf-8", "surrogatepass")))[:32]
    return cache / f"{name}.data", cache / f"{name}.json"


def _known(path: Path, notes: Path, url: str) -> Copy | None:
    """The copy that is here; None where there is none, or none that we wrote."""
    try:
        copy = Copy(**json.loads(notes.read_bytes()))
        copy.as_of  # noqa: B018 - raises where it holds no times
        return copy if copy.url == url and path.is_file() else None
    except (OSError, ValueError, TypeError):
        return None


def _ask(url: str, copy: Copy | None, path: Path) -> Copy:
    """What the server has now, in `path`. Raises _Unreachable, CveError."""
    headers = {"User-Agent": "factory", "Accept-Encoding": "identity"}
    if copy is not None:
        headers |= {"If-None-Match": copy.etag} if copy.etag else {}
        headers |= {"If-Modified-Since": copy.modified} if copy.modified else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - see url_problem
    opener = urllib.request.build_opener(_NoDetours, urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            _receive(response, path, url)
            return _described(url, response.headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.NOT_MODIFIED and copy is not None:
            return Copy(**{**asdict(copy), "checked_at": _now()})
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _Unreachable(f"the server answers {error.code}") from error
        what = "there is no such file" if error.code in _GONE else f"the server answers {error.code}"
        raise CveError(f"cannot get {url}: {what}", where=url, hint="is the address right?") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _Unreachable(str(getattr(error, "reason", None) or error or type(error).__name__)) from error


def _receive(response: Any, path: Path, url: str) -> None:
    """Put an answer in the place of the copy, once it is whole."""
    length = response.headers.get("Content-Length") or ""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as target:
            received = _copy(response, target, url)
            if length.isdigit() and received != int(length):
                raise _Unreachable(f"it broke off after {received} of {length} bytes")
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)


def _copy(response: Any, target: IO[bytes], url: str) -> int:
    started, received, begun = time.monotonic(), 0, b""
    while block := response.read(_BLOCK_BYTES):
        begun = begun or block.lstrip(_SPACE)[:1]
        received += len(block)
        if begun == b"<":
            raise CveError(
                f"{url} is a web page (HTML or XML), not data",
                where=url,
                hint="is that the address of the data itself, or does somebody ask for a login?",
            )
        if received > MAX_BYTES:
            raise CveError(f"{url} is too large: at most {MAX_BYTES} bytes are read", where=url)
        if time.monotonic() - started > DEADLINE_S:
            raise _Unreachable(f"it took more than {DEADLINE_S} s")
        target.write(block)
    return received


def _described(url: str, headers: Any) -> Copy:
    modified = headers.get("Last-Modified")
    published = None
    with suppress(TypeError, ValueError):
        published = parsedate_to_datetime(modified).astimezone(UTC).isoformat(timespec="seconds")
    return Copy(url, _now(), published, headers.get("ETag"), modified)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _age(copy: Copy) -> str:
    age = datetime.now(UTC) - datetime.fromisoformat(copy.checked_at)
    hours = max(int(age.total_seconds()), 0) // 3600
    said = f"{hours // 24} days" if hours >= 48 else f"{hours} hours" if hours else "less than an hour"
    return f"the copy of {copy.checked_at} is used, {said} old"


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """Redirects go to where data may come from, or nowhere; from https never to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if url_problem(newurl) or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            raise CveError(
                f"{req.full_url} redirects to where no data are taken from", where=req.full_url, hint="only https is"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
