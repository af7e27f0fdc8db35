"""Small sources of vulnerabilities in the formats of the real ones, of packages that this factory's own images hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UNASSIGNED = "not yet assigned"


def release(status: str, fixed: str | None = None, urgency: str = UNASSIGNED, **more: Any) -> dict[str, Any]:
    """What the tracker says of one release."""
    said = {"status": status, "repositories": {"bookworm": "1"}, "urgency": urgency, **more}
    return said if fixed is None else {**said, "fixed_version": fixed}


def entry(**releases: dict[str, Any]) -> dict[str, Any]:
    """What the tracker says of one vulnerability of a source package."""
    return {"description": "for a test", "scope": "local", "releases": releases}


def tracker() -> dict[str, Any]:
    """A cut of the tracker: open and resolved, harmless and not, in two releases."""
    return {
        "expat": {"CVE-2023-52426": entry(bookworm=release("open", urgency="unimportant"))},
        "glibc": {
            "CVE-2023-4911": entry(bookworm=release("resolved", "2.36-9+deb12u3", "high")),
            "CVE-2019-1010022": entry(bookworm=release("open", urgency="unimportant"), sid=release("open")),
        },
        "linux": {
            "CVE-2024-21803": entry(bookworm=release("open", urgency="medium")),
            "CVE-2024-1086": entry(bookworm=release("resolved", "6.1.76-1", "high"), trixie=release("resolved", "0")),
            "CVE-2025-99999": entry(bookworm=release("resolved", "6.1.999-1", "high*")),
        },
        "ncurses": {"CVE-2023-50495": entry(bookworm=release("open", nodsa="Minor issue", nodsa_reason=""))},
        "nginx": {"CVE-2026-90001": entry(bookworm=release("resolved", "1.22.1-9+deb12u99", "high"))},
        "openssl": {
            "CVE-2024-5535": entry(bookworm=release("resolved", "3.0.15-1~deb12u1"), trixie=release("resolved", "3.3")),
            "CVE-2026-90002": entry(bookworm=release("open", urgency="low")),
        },
        "tar": {"CVE-2005-2541": entry(bookworm=release("open", urgency="unimportant"))},
        "zlib": {"CVE-2023-45853": entry(bookworm=release("open"), trixie=release("resolved", "1:1.3.dfsg-3"))},
    }


def osv(identifier: str, source: str, *events: dict[str, str], **more: Any) -> dict[str, Any]:
    """An OSV record of a package of Debian 12."""
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *events]}]
    package = {"ecosystem": "Debian:12", "name": source, "purl": f"pkg:deb/debian/{source}?arch=source"}
    affected = {"package": package, "ranges": ranges, "ecosystem_specific": {"urgency": UNASSIGNED}}
    return {"schema_version": "1.7.3", "id": identifier, "modified": "2026-11-24T00:00:00Z", "affected": [affected],
            **more}  # fmt: skip


CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


def records() -> list[dict[str, Any]]:
    """OSV records: the severity of what the tracker leaves open, and one that the tracker does not have."""
    return [
        osv("DEBIAN-CVE-2023-45853", "zlib", upstream=["CVE-2023-45853"],
            severity=[{"type": "CVSS_V3", "score": CRITICAL}]),
        osv("CVE-2026-90003", "curl", {"fixed": "7.88.1-10+deb12u99"},
            severity=[{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N"}]),
    ]  # fmt: skip


def vex(cve: str, product: Any, **more: Any) -> dict[str, Any]:
    """An OpenVEX document with one statement that explains a CVE of a product."""
    statement = {
        "vulnerability": {"name": cve},
        "products": [product if isinstance(product, dict) else {"@id": product}],
        "status": "not_affected",
        "justification": "vulnerable_code_not_in_execute_path",
        "impact_statement": "we do not call it",
        "valid_until": "2099-12-31T00:00:00Z",
        **more,
    }
    return {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "urn:example:vex-1",
        "author": "alice",
        "timestamp": "2026-11-01T00:00:00Z",
        "version": 1,
        "statements": [{key: value for key, value in statement.items() if value is not None}],
    }


def write(path: Path, value: Any) -> Path:
    """A value as a JSON file; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path
