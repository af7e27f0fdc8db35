"""A Debian repository of our own on loopback, made of real .debs, and a real apt that uses it: for tests."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from factory import digest, proc
from factory.apt.pins import AptEnv
from factory.apt.proxy import AptProxy
from factory.digest import Digest
from factory.model import Package


class Repository:
    """`http://127.0.0.1:<port>/debian`, suite `stable`. It misbehaves as told, and counts what it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stanzas: dict[str, str] = {}
        self.requests: list[str] = []
        self.truncated: set[str] = set()  # paths that break off half-way
        self.replaced: dict[str, bytes] = {}  # paths that answer something else
        self.delay_s: dict[str, float] = {}
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Repository:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve, at the same address as before if there was one."""
        handler = type("Handler", (_Handler,), {"repository": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """No network any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/debian"

    def add(self, name: str, version: str, content: str = "", control: str = "") -> Package:
        """Build a package and put it into the pool (not yet into the index)."""
        build = self.folder / "build" / f"{name}_{version}"
        (build / "DEBIAN").mkdir(parents=True)
        text = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example>\n"
        (build / "DEBIAN/control").write_text(f"{text}Description: for a test\n{control}")
        (build / "usr/share" / name).mkdir(parents=True)
        (build / "usr/share" / name / "content").write_text(content or version)
        path = f"pool/{name}_{version}_all.deb"
        (self.folder / "pool").mkdir(exist_ok=True)
        proc.run(["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(build), str(self.folder / path)])
        sha256 = digest.of_file(self.folder / path)
        size = (self.folder / path).stat().st_size
        self.stanzas[f"{name} {version}"] = (
            f"{text}{control}Filename: {path}\nSize: {size}\nSHA256: {digest.hex_of(sha256)}\nDescription: for a test\n"
        )
        return Package(name, version, "all", sha256)

    def remove(self, package: Package) -> None:
        """Take a package out of the index and the pool."""
        del self.stanzas[f"{package.name} {package.version}"]
        (self.folder / f"pool/{package.name}_{package.version}_all.deb").unlink()

    def publish(self, *, by_hash: bool = True) -> None:
        """Write the index of all there is."""
        packages = "\n".join(self.stanzas.values()).encode()
        folder = self.folder / "dists/stable/main/binary-amd64"
        lines = ""
        for name, data in (("Packages", packages), ("Packages.gz", gzip.compress(packages, mtime=0))):
            sha256 = hashlib.sha256(data).hexdigest()
            for path in (folder / name, folder / "by-hash/SHA256" / sha256):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            lines += f" {sha256} {len(data)} main/binary-amd64/{name}\n"
        release = "Origin: Example\nSuite: stable\nCodename: stable\nArchitectures: amd64\nComponents: main\n"
        release += f"Acquire-By-Hash: {'yes' if by_hash else 'no'}\nSHA256:\n{lines}"
        (self.folder / "dists/stable/Release").write_text(release)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repository: Repository

    def do_GET(self) -> None:
        repository = self.repository
        path = urllib.parse.unquote(self.path).removeprefix("/debian/").replace("/./", "/")
        repository.requests.append(path)
        time.sleep(repository.delay_s.get(path, 0))
        file = repository.folder / path
        if path not in repository.replaced and not file.is_file():
            self.send_error(404)
            return
        data = repository.replaced.get(path) or file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if path in repository.truncated:
            data = data[: len(data) // 2]
            self.close_connection = True
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Apt:
    """A real apt with a root of its own, which needs no privilege: it reads indexes and downloads."""

    def __init__(self, root: Path, repository: Repository) -> None:
        self.root = root
        for name in ("etc/apt/apt.conf.d", "etc/apt/sources.list.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d",
                     "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg", "got"):  # fmt: skip
            (root / name).mkdir(parents=True, exist_ok=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] {repository.url} stable main\n")
        self.config = root / "apt.conf"
        self.config.write_text(
            f'Dir "{root}/";\nDir::State::status "{root}/var/lib/dpkg/status";\nAPT::Architecture "amd64";\n'
            'APT::Architectures { "amd64"; };\nAPT::Sandbox::User "root";\nDir::Etc "etc/apt/";\n'
            'Acquire::Retries "0";\n#clear DPkg::Post-Invoke;\n#clear APT::Update::Post-Invoke;\n'
        )

    def use(self, proxy: AptProxy, *pins: Package) -> None:
        """Place the files of a bake."""
        env = AptEnv(proxy.url(), pins, proxy.offer_pins(pins) if pins else None)
        for path, text in env.files().items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text.replace('Retries "3"', 'Retries "0"'))

    def update(self) -> tuple[int, str]:
        """`apt-get update`: its exit code (100 where an index could not be had) and output."""
        return self._run("apt-get", "update", "-o", "APT::Update::Error-Mode=any")

    def download(self, name: str) -> Digest | None:
        """`apt-get download`: the digest of the .deb that came; None where none did."""
        for old in (self.root / "got").iterdir():
            old.unlink()
        code, _ = self._run("apt-get", "download", name)
        found = sorted((self.root / "got").iterdir())
        return digest.of_file(found[0]) if code == 0 and found else None

    def candidate(self, name: str) -> str:
        """The version that apt would install."""
        _, text = self._run("apt-cache", "policy", name)
        return next((line.split()[1] for line in text.splitlines() if "Candidate:" in line), "(none)")

    def _run(self, *argv: str) -> tuple[int, str]:
        done = proc.run(argv, env={"APT_CONFIG": str(self.config)}, cwd=self.root / "got", check=False)
        return done.code, done.text + done.stderr.decode()
