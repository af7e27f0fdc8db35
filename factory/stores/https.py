"""A shared store behind a web server: `https://host/path`, read only. Goes on where an earlier fetch broke off.

Speaks HTTP/1.1 GET with Range (RFC 9110, section 14). The host's certificate is checked as the system says
(SSL_CERT_FILE and SSL_CERT_DIR are honoured); a redirect away from https is refused.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from factory.digest import Digest, hex_of
from factory.errors import StoreError

_TIMEOUT_S = 60  # of one read, not of the whole
_BLOCK_BYTES = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/")


class HttpsStore:
    """Reads a web server's files."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, digest: Digest, target: IO[bytes]) -> None:
        """See SharedStore."""
        url = f"{self._url}/sha256/{hex_of(digest)}"
        offset = target.tell()
        request = urllib.request.Request(url, headers={"Range": f"bytes={offset}-"} if offset else {})  # noqa: S310
        opener = urllib.request.build_opener(
            _OnlyHttps, urllib.request.HTTPSHandler(context=ssl.create_default_context())
        )
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as response:
                if not _continues(response, offset):
                    target.seek(0)
                    target.truncate()
                _receive(response, target, url)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # 416: we have all of it
                raise StoreError(f"{url}: {error.code} {error.reason}", where=url) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise StoreError(
                f"cannot fetch {url}: {reason}", where=url, hint="try again: it goes on from here"
            ) from error

    def put(self, digest: Digest, source: Path) -> None:
        """See SharedStore; not possible here."""
        raise StoreError(
            f"cannot write to {self._url}: https: stores are read only",
            where=self._url,
            hint="push to a file: store that the server serves",
        )


def _continues(response: Any, offset: int) -> bool:
    match = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    return bool(response.status == http.HTTPStatus.PARTIAL_CONTENT and match and int(match[1]) == offset)


def _receive(response: Any, target: IO[bytes], url: str) -> None:
    length = response.headers.get("Content-Length", "")
    received = 0
    while block := response.read(_BLOCK_BYTES):
        target.write(block)
        received += len(block)
    target.flush()
    if length.isdigit() and received < int(length):
        raise http.client.IncompleteRead(b"", int(length) - received)


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl.partition(':')[0]}:, away from https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
