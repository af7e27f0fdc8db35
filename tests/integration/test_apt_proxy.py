"""The apt proxy between a real apt and a real (local) repository that changes, misbehaves and goes away."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from apt_repository import Apt, Repository

from factory import digest
from factory.apt.proxy import AptProxy
from factory.apt.questions import Repositories
from factory.errors import BaseError
from factory.model import Package

INDEX = "dists/stable/main/binary-amd64/Packages"


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "repository"
    folder.mkdir()
    with Repository(folder) as served:
        yield served


@pytest.fixture
def apt(tmp_path: Path, repository: Repository) -> Apt:
    return Apt(tmp_path / "apt", repository)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def ask(proxy: AptProxy) -> Repositories:
    return Repositories(proxy.store, proxy.snapshot, "amd64", "stable")


def get(proxy: AptProxy, url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy.url()}))
    with opener.open(url, timeout=20) as response:
        return bytes(response.read())


def test_apt_gets_the_very_package_and_again_without_a_network(repository: Repository, apt: Apt, cache: Path) -> None:
    web = repository.add("web", "1.0")
    repository.publish()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        assert apt.update()[0] == 0
        assert apt.download("web") == web.sha256
        assert ask(proxy).candidates(["web", "absent"]) == {"web": web}
        assert proxy.misses == []
    repository.stop()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        code, text = apt.update()
        assert code == 0, text
        assert apt.download("web") == web.sha256
        assert proxy.misses == []


def test_a_new_version_is_seen_after_a_refresh_and_not_before(repository: Repository, apt: Apt, cache: Path) -> None:
    old = repository.add("web", "1.0")
    repository.publish()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        new = repository.add("web", "1.1")
        repository.publish()
        apt.update()
        assert apt.candidate("web") == "1.0"
        assert ask(proxy).candidates(["web"]) == {"web": old}
        with AptProxy(cache) as other:
            proxy.refresh()
            assert ask(other).candidates(["web"]) == {"web": old}  # it goes on with what it began with
        apt.update()
        assert apt.candidate("web") == "1.1"
        assert ask(proxy).candidates(["web"]) == {"web": new}
    with AptProxy(cache) as proxy:
        assert ask(proxy).candidates(["web"]) == {"web": new}


@pytest.mark.parametrize("by_hash", [True, False])
def test_a_refresh_fetches_all_so_that_the_new_snapshot_works_offline(
    repository: Repository, apt: Apt, cache: Path, by_hash: bool
) -> None:
    repository.add("web", "1.0")
    repository.publish(by_hash=by_hash)
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        repository.add("web", "1.1")
        repository.publish(by_hash=by_hash)
        proxy.refresh()
        repository.stop()
        assert apt.update()[0] == 0
        assert apt.candidate("web") == "1.1"


def test_without_network_and_cache_the_proxy_says_what_is_missing(
    repository: Repository, apt: Apt, cache: Path
) -> None:
    repository.publish()
    repository.stop()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        code, text = apt.update()
        assert code != 0
        assert "503" in text
        why = proxy.why_not()
        assert why is not None
        assert why.startswith("no network, and not cached")
        assert f"{repository.url}/dists/stable/InRelease" in why
        assert proxy.why_not(len(proxy.misses)) is None
        repository.start()
        assert apt.update()[0] == 0  # nothing of the failure was frozen


def test_what_does_not_exist_is_remembered_as_such(repository: Repository, cache: Path) -> None:
    url = f"{repository.url}/dists/stable/InRelease"
    with AptProxy(cache) as proxy:
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(proxy, url)
        repository.stop()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(proxy, url)
        assert repository.requests == ["dists/stable/InRelease"]
        assert proxy.absent == [url]


@pytest.mark.parametrize("fault", ["truncated", "replaced"])
def test_a_damaged_package_is_not_kept(repository: Repository, apt: Apt, cache: Path, fault: str) -> None:
    web = repository.add("web", "1.0")
    repository.publish()
    path = "pool/web_1.0_all.deb"
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        if fault == "truncated":
            repository.truncated.add(path)
        else:
            good = (repository.folder / path).read_bytes()
            repository.replaced[path] = good[:-1] + bytes([good[-1] ^ 1])
        assert apt.download("web") is None
        assert len(proxy.misses) >= 1
        assert ("broke off" if fault == "truncated" else web.sha256) in proxy.misses[0].reason
        assert ask(proxy).missing([Package("web", "0.9", "all", web.sha256)]) != []
        repository.truncated.clear()
        repository.replaced.clear()
        assert apt.download("web") == web.sha256


@pytest.mark.parametrize("path", [INDEX, "dists/stable/Release"])
def test_an_index_that_is_not_one_is_not_frozen(repository: Repository, apt: Apt, cache: Path, path: str) -> None:
    repository.add("web", "1.0")
    repository.publish(by_hash=False)
    page = b"<html>Please log in to this network</html>"
    repository.replaced = {path: page, f"{path}.gz": page}
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        assert proxy.misses != []
        assert ask(proxy).candidates(["web"]) == {}
        repository.replaced = {}
        code, text = apt.update()
        assert code == 0, text
        assert apt.candidate("web") == ask(proxy).candidates(["web"])["web"].version == "1.0"


@pytest.mark.parametrize("fault", ["gone", "truncated", "away"])
def test_a_refresh_that_fails_leaves_the_old_snapshot_in_force(
    repository: Repository, apt: Apt, cache: Path, fault: str
) -> None:
    repository.add("web", "1.0")
    repository.publish(by_hash=False)
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        repository.add("web", "1.1")
        repository.publish(by_hash=False)
        if fault == "gone":
            (repository.folder / "dists/stable/Release").unlink()
        elif fault == "truncated":
            repository.truncated |= {INDEX, f"{INDEX}.gz"}
        else:
            repository.stop()
        with pytest.raises(BaseError) as raised:
            proxy.refresh()
        assert raised.value.hint
        assert apt.update()[0] == 0
        assert apt.candidate("web") == "1.0"
    with AptProxy(cache) as proxy:
        assert ask(proxy).candidates(["web"])["web"].version == "1.0"


def test_a_repository_nobody_asked_for_any_more_does_not_stop_a_refresh(
    repository: Repository, apt: Apt, cache: Path
) -> None:
    repository.add("web", "1.0")
    repository.publish()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        assert proxy.refresh() == []
        assert ask(proxy).candidates(["web"]) != {}
        repository.stop()
        assert proxy.refresh() == [f"{repository.url}/dists/stable/"]
        assert ask(proxy).candidates(["web"]) == {}


def test_a_refresh_that_is_killed_leaves_the_old_snapshot_in_force(
    repository: Repository, apt: Apt, cache: Path
) -> None:
    repository.add("web", "1.0")
    repository.publish(by_hash=False)
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        repository.add("web", "1.1")
        repository.publish(by_hash=False)
        repository.delay_s = {INDEX: 30, f"{INDEX}.gz": 30}
        seen = len(repository.requests)
        code = "import sys, pathlib, factory.apt.proxy as p; p.AptProxy(pathlib.Path(sys.argv[1])).refresh()"
        process = subprocess.Popen([sys.executable, "-c", code, str(cache)])
        while not any(path.startswith(INDEX) for path in repository.requests[seen:]):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with AptProxy(cache) as proxy:
        assert ask(proxy).candidates(["web"])["web"].version == "1.0"
        repository.delay_s = {}
        proxy.refresh()
        assert ask(proxy).candidates(["web"])["web"].version == "1.1"


def test_a_pin_stays_installable_when_the_repository_has_moved_on(
    repository: Repository, apt: Apt, cache: Path
) -> None:
    old = repository.add("web", "1:1.0+b1~x-1")
    repository.publish()
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        assert apt.download("web") == old.sha256
        repository.remove(old)
        repository.add("web", "1:1.1")
        repository.publish()
        proxy.refresh()
        assert ask(proxy).missing([old]) == []
        apt.use(proxy, old)
        code, text = apt.update()
        assert code == 0, text
        assert apt.candidate("web") == "1:1.0+b1~x-1"
        repository.stop()
        assert apt.download("web") == old.sha256


def test_pins_that_are_gone_are_missing(repository: Repository, apt: Apt, cache: Path) -> None:
    gone, still = repository.add("web", "1.0"), repository.add("lib", "1.0")
    repository.publish()
    repository.remove(gone)
    repository.add("web", "1.1")
    repository.publish()
    foreign = Package("elsewhere", "1", "all", gone.sha256)
    rebuilt = Package("lib", "1.0", "all", gone.sha256)
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        assert ask(proxy).missing([gone, still, foreign, rebuilt]) == [rebuilt, gone]
        assert ask(proxy).missing([gone, still, foreign], third_parties=False) == [foreign, gone]


def test_many_ask_at_once_and_one_download_serves_them(repository: Repository, cache: Path) -> None:
    web = repository.add("web", "1.0", content="x" * 3_000_000)
    repository.delay_s["pool/web_1.0_all.deb"] = 0.5
    url = f"{repository.url}/pool/web_1.0_all.deb"
    with AptProxy(cache) as one, AptProxy(cache) as two, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda proxy: get(proxy, url), [one, two] * 4))
    assert {digest.of_bytes(answer) for answer in answers} == {web.sha256}
    assert repository.requests == ["pool/web_1.0_all.deb"]


def test_a_client_that_goes_away_does_not_stop_the_download(repository: Repository, cache: Path) -> None:
    web = repository.add("web", "1.0")
    url = f"{repository.url}/pool/web_1.0_all.deb"
    repository.delay_s["pool/web_1.0_all.deb"] = 0.3
    with AptProxy(cache) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as connection:
            connection.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        deadline = time.monotonic() + 20
        while proxy.store.pool.get(url) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert digest.of_bytes(get(proxy, url)) == web.sha256
        assert len(repository.requests) == 1


@pytest.mark.parametrize(
    ("path", "status"), [("file:///etc/hostname", b"501"), ("https://127.0.0.1/x", b"501"), ("/etc/hostname", b"404")]
)
def test_only_http_is_fetched(cache: Path, path: str, status: bytes) -> None:
    with AptProxy(cache) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_a_local_package_has_a_digest_of_its_own_and_others_that_of_their_deb(
    repository: Repository, apt: Apt, cache: Path, tmp_path: Path
) -> None:
    web = repository.add("web", "1.0", control="Source: website (0.9)\n")
    repository.publish()
    database = tmp_path / "tree/var/lib/dpkg"
    (database / "info").mkdir(parents=True)
    ok = "Status: install ok installed\n"
    (database / "status").write_text(
        f"Package: web\n{ok}Version: 1.0\nArchitecture: all\nSource: website (0.9)\n\n"
        f"Package: own\n{ok}Version: 2\nArchitecture: amd64\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 3\nArchitecture: all\n"
    )
    (database / "info/own.md5sums").write_text("0  usr/bin/own\n")
    with AptProxy(cache) as proxy:
        apt.use(proxy)
        apt.update()
        own, found = ask(proxy).installed(tmp_path / "tree")
        assert (found.package, found.source, found.source_version) == (web, "website", "0.9")
        assert (own.package.name, own.package.version, own.source, own.source_version) == ("own", "2", "own", "2")
        (database / "info/own.md5sums").write_text("1  usr/bin/own\n")
        assert ask(proxy).installed(tmp_path / "tree")[0].package.sha256 != own.package.sha256
        other = Package("web", "1.0", "all", own.package.sha256)
        assert ask(proxy).installed(tmp_path / "tree", prefer=[other])[1].package == other
    assert Repositories(proxy.store, proxy.snapshot, "amd64").installed(tmp_path / "no tree") == []
