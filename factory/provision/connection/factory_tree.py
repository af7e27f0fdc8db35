"""Ansible connection plugin: a tree on this host, entered by chroot.

The caller is (mapped) root in a mount namespace in which the tree's /proc, /dev and so on are mounted already.
"""

from __future__ import annotations

from typing import IO

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

from factory import proc

DOCUMENTATION = """
name: factory_tree
short_description: run in a tree by chroot
description:
  - Runs modules in a folder that holds a machine's root file system.
options:
  tree:
    description: the folder
    vars:
      - name: ansible_host
"""


_ENVIRONMENT = {
    "HOME": "/root",
    "LOGNAME": "root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TMPDIR": "/tmp",  # noqa: S108 - a tmpfs of the tree's own
    "USER": "root",
}


class Connection(ConnectionBase):  # type: ignore[misc]
    """Runs commands by chroot; moves files through the chroot too, so that links in the tree cannot lead out of it."""

    transport = "factory_tree"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = False) -> tuple[int, bytes, bytes]:
        """Run a shell command in the tree: exit code, standard output, standard error."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._run(["/bin/sh", "-c", cmd], stdin=in_data or b"")

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of this host into the tree."""
        with open(in_path, "rb") as source:  # noqa: PTH123 - Ansible hands over plain strings
            code, _, error = self._run(["/bin/dd", f"of={out_path}", "bs=64k", "status=none"], stdin=source)
        if code:
            raise AnsibleConnectionFailure(f"cannot write {out_path} in the tree: {error.decode(errors='replace')}")

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file of the tree to this host."""
        code, data, error = self._run(["/bin/dd", f"if={in_path}", "bs=64k", "status=none"])
        if code:
            raise AnsibleConnectionFailure(f"cannot read {in_path} in the tree: {error.decode(errors='replace')}")
        with open(out_path, "wb") as target:  # noqa: PTH123
            target.write(data)

    def close(self) -> None:
        """Nothing stays open between commands."""
        self._connected = False

    def _run(self, argv: list[str], stdin: bytes | IO[bytes] = b"") -> tuple[int, bytes, bytes]:
        done = proc.run(["chroot", self.get_option("tree"), *argv], env=_ENVIRONMENT, stdin=stdin, check=False)
        return done.code, done.stdout, done.stderr
