"""Version ordering against dpkg, and the reading of package indexes."""

from __future__ import annotations

import gzip
import io
import lzma
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import proc
from factory.apt import index
from factory.apt.index import Offer
from factory.apt.version import version_key
from factory.digest import Digest
from factory.errors import BaseError
from factory.model import Package

part = st.text("0123456789abzAZ.+~", min_size=0, max_size=8)
version = st.builds(
    lambda epoch, upstream, revision: f"{epoch}0{upstream}{revision}",
    st.sampled_from(["", "0:", "1:"]),
    part,
    st.one_of(st.just(""), part.map(lambda text: f"-{text}1"), part.map(lambda text: f"-{text}-0")),
)


def dpkg_says(one: str, operator: str, two: str) -> bool:
    return proc.run(["dpkg", "--compare-versions", one, operator, two], check=False).code == 0


@given(version, version)
@settings(max_examples=150, deadline=None)
def test_versions_are_ordered_as_dpkg_does(one: str, two: str) -> None:
    key, other = version_key(one), version_key(two)
    operator = "lt" if key < other else "gt" if key > other else "eq"
    assert dpkg_says(one, operator, two), f"{one} {operator} {two}"


@pytest.mark.parametrize(
    ("lower", "higher"),
    [("1.0~rc1", "1.0"), ("1.0", "1.0-1"), ("9", "10"), ("1.0-1", "1.0-1+b1"), ("2.0", "1:1.0"), ("1.0+b", "1.0.b")],
)
def test_a_lower_version_comes_first(lower: str, higher: str) -> None:
    assert version_key(lower) < version_key(higher)


@pytest.mark.parametrize(("one", "same"), [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("1.", "1.0")])
def test_versions_dpkg_holds_equal_are_equal(one: str, same: str) -> None:
    assert version_key(one) == version_key(same)


name = st.text("abcdefghijklmnopqrstuvwxyz0123456789+-.", min_size=2, max_size=20)
offer = st.builds(
    lambda package, source, path: Offer(package, source[0], source[1], path),
    st.builds(
        Package,
        name,
        version,
        st.sampled_from(["amd64", "all"]),
        st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda text: Digest(f"sha256:{text}")),
    ),
    st.tuples(name, version),
    st.text("abc/+_.-~%é", min_size=1, max_size=30).map(lambda text: f"pool/{text}.deb"),
)


def stanza(item: Offer, filler: str) -> str:
    package = item.package
    source = f"Source: {item.source} ({item.source_version})\n"
    if (item.source, item.source_version) == (package.name, package.version):
        source = ""
    elif item.source_version == package.version:
        source = f"Source: {item.source}\n"
    return (
        f"Package: {package.name}\n{source}Version: {package.version}\nArchitecture: {package.arch}\n{filler}"
        f"Filename: {item.filename}\nSHA256: {package.sha256.removeprefix('sha256:')}\n"
        "Description: about Package: and more\n Version: 9 of a continuation line\n"
    )


def listed(data: bytes, names: list[str] | None = None) -> list[Offer]:
    with tempfile.TemporaryDirectory() as folder:
        packages, listing = Path(folder) / "Packages", Path(folder) / "listing"
        packages.write_bytes(data)
        buffer = io.BytesIO()
        index.write_listing(packages, buffer)
        listing.write_bytes(buffer.getvalue())
        return list(index.read_listing(listing, names))


@given(st.lists(offer, max_size=6), st.sampled_from([bytes, gzip.compress, lzma.compress]), st.booleans())
@settings(deadline=None)
def test_an_index_is_read_whatever_its_compression(offers: list[Offer], compress: type[bytes], large: bool) -> None:
    filler = "Depends: " + "x" * 400_000 + "\n" if large else ""
    data = compress("\n".join(stanza(item, filler) for item in offers).encode())
    assert listed(data) == offers
    wanted = [offers[0].package.name] if offers else []
    assert listed(data, wanted) == [item for item in offers if item.package.name in wanted]


def test_a_damaged_index_is_an_error() -> None:
    for data in (gzip.compress(b"Package: x\n" * 1000)[:-20], lzma.compress(b"Package: x\n" * 1000)[:-20]):
        with pytest.raises(BaseError) as raised:
            listed(data)
        assert "factory lock --refresh" in str(raised.value.hint)


def test_the_newest_offer_wins_and_of_equal_ones_the_first() -> None:
    def made(version: str, digit: str) -> Offer:
        return Offer(Package("web", version, "all", Digest("sha256:" + digit * 64)), "web", version, "")

    offers = [made("1.9", "a"), made("1.10", "b"), made("1.10", "c"), made("1.10~rc1", "d")]
    assert index.newest(offers) == {"web": offers[1]}


def test_a_release_is_read_within_its_signature() -> None:
    body = "Origin: Debian\nSuite: stable\nCodename: bookworm\nAcquire-By-Hash: yes\n"
    body += f"SHA256:\n {'a' * 64}  10 main/binary-amd64/Packages\n"
    signed = f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{body}-----BEGIN PGP SIGNATURE-----\n\nxx: yy\n"
    for text in (body, signed):
        release = index.parse_release(text)
        assert (release.origin, release.suite, release.codename) == ("Debian", "stable", "bookworm")
        assert release.by_hash
        assert release.by_default
        assert release.digests == {"main/binary-amd64/Packages": "sha256:" + "a" * 64}


@pytest.mark.parametrize(
    ("source", "expected"),
    [(None, ("web", "1-1+b1")), ("", ("web", "1-1+b1")), ("site", ("site", "1-1+b1")), ("site (1-1)", ("site", "1-1"))],
)
def test_the_source_of_a_package(source: str | None, expected: tuple[str, str]) -> None:
    assert index.source_of("web", "1-1+b1", source) == expected
