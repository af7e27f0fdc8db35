"""What a real bake signs, as a deploy job sees it; and when a bake signs again or refuses to begin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import Workshop, set_up, take_down

from factory import files


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """A workshop whose two images are baked; `child` goes to the channel dev by itself."""
    root = tmp_path_factory.mktemp("signing")
    shop = set_up(root)
    shop.replace("images.toml", "[image.child]\n", '[image.child]\nchannel = "dev"\n')
    done = shop.factory("bake", "--json")
    assert done.code == 0, done.err
    assert "DEVELOPMENT KEY" in done.err
    yield shop
    take_down(root)


pytestmark = pytest.mark.boots


def test_baked_image_resolves_with_its_ancestors(shop: Workshop) -> None:
    answer = shop.factory("resolve", "child", "--channel", "dev", "--check-bytes", "--locked", "--json").json
    small = shop.factory("resolve", "small", "--json").json
    assert answer["ancestors"][0] == small["digest"]
    assert len(answer["ancestors"]) == 2
    assert Path(answer["path"]).is_file()
    assert shop.factory("attest", "verify", "child").code == 0


def test_ticket_tells_the_checks_and_the_sbom_the_packages(shop: Workshop) -> None:
    said = json.loads(shop.factory("attest", "show", "child", "--statement", "test-result").out)
    assert "small: test_package_is_there" in said["passedTests"]
    bill = json.loads(shop.factory("attest", "show", "child", "--statement", "sbom").out)
    purls = {component["purl"].partition("@")[0] for component in bill["components"]}
    assert {"pkg:deb/debian/tree", "pkg:deb/debian/dpkg"} <= purls


def test_secret_and_private_key_are_in_nothing_that_is_committed(shop: Workshop) -> None:
    lines = (shop.root / ".factory/keys/development.pem").read_text().splitlines()
    for path in [shop.root / "images.lock", *(shop.root / "trust").rglob("*")]:
        if path.is_file():
            assert lines[1] not in path.read_text()
            assert shop.environment["E2E_TOKEN"] not in path.read_text()


def test_lost_ticket_is_signed_again_after_a_verification(shop: Workshop) -> None:
    path = shop.root / "trust/tickets/child-amd64.jsonl"
    before, lock = path.read_bytes(), shop.lock
    path.unlink()
    refused = shop.factory("resolve", "child", "--frozen", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (6, "unsigned")
    assert "to be signed" in shop.factory("bake", "--dry-run").out
    done = shop.factory("bake", "--json")
    assert done.code == 0, done.err
    assert {name: image["status"] for name, image in done.images().items()} == {
        "small": "unchanged",
        "child": "verified",
    }
    assert path.read_bytes() != before
    assert shop.lock == lock
    assert shop.factory("resolve", "child", "--frozen").code == 0
    assert shop.factory("attest", "verify", "child").code == 0


def test_bake_that_nobody_may_sign_does_not_begin(shop: Workshop) -> None:
    policy = shop.root / "trust/policy.toml"
    text = policy.read_text()
    files.replace(policy, text.replace("allow_development_keys = true", "allow_development_keys = false").encode())
    try:
        done = shop.factory("bake", "--force", "--json")
        assert (done.code, done.json["error"]["kind"]) == (6, "untrusted")
        assert "factory key new" in done.json["error"]["hint"]
        assert shop.factory("resolve", "child", "--frozen").code == 6
    finally:
        files.replace(policy, text.encode())


def test_revoked_parent_is_refused_to_deploy_and_to_bake_on(shop: Workshop) -> None:
    small = shop.factory("resolve", "small", "--json").json["digest"]
    assert shop.factory("revoke", "small", "--reason", "a hole in tree").code == 0
    refused = shop.factory("resolve", "child", "--frozen", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (6, "revoked")
    assert small in refused.json["error"]["message"]
    done = shop.factory("bake", "child", "--force", "--json")
    assert done.code == 6
    assert done.images()["child"]["error"]["kind"] == "revoked"
    assert "a hole in tree" in done.images()["child"]["error"]["message"]
