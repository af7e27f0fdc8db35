"""The templates as they render for each Packer: golden files. `pytest --golden-write` writes them anew."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from factory import packer, render
from factory.packer import PackerVersion

HERE = Path(__file__).parent
TEMPLATES = HERE.parents[1] / "templates"
OLD, NEW, NEWER = PackerVersion(1, 6, 6), PackerVersion(1, 10, 0), PackerVersion(1, 11, 2)
HOSTILE = '${path.root} %{ if true } "quoted" and\na newline'


def _values(version: PackerVersion) -> dict[str, object]:
    return {
        "image": {"name": "web", "arch": "amd64"},
        "manifest": Path("/bake/packer-manifest.json"),
        "packer": {
            "needs_required_plugins": version.needs_required_plugins,
            "required_version": ">= 1.6.6",
            "version": str(version),
        },
        "provision": {"command": "exec python3 -m factory.provision /bake/provision.json"},
        "vars": {"motto": HOSTILE},
        "guest": {
            "accelerator": "tcg",
            "boot_wait": "25s",
            "disk": Path("/store/parent.qcow2"),
            "disk_format": "qcow2",
            "disk_size": "2048M",
            "file": "disk.qcow2",
            "output": Path("/bake/packer-output"),
            "private_key": Path("/bake/keys/id"),
            "qemu": "/usr/bin/qemu-system-x86_64",
            "qemuargs": [["-machine", "q35"], ["-smbios", "type=11,path=/bake/${x}"]],
            "ssh_port": 2222,
            "ssh_timeout": "10m",
        },
    }


@pytest.mark.parametrize("version", [OLD, NEW, NEWER], ids=str)
@pytest.mark.parametrize("builder", ["qemu", "rootfs"])
def test_template_renders_as_the_golden_file(builder: str, version: PackerVersion, golden_write: bool) -> None:
    text = render.render(TEMPLATES / f"{builder}.pkr.hcl.j2", _values(version))
    golden = HERE / f"{builder}-{version.major}.{version.minor}.pkr.hcl"
    if golden_write:
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("builder", ["qemu", "rootfs"])
def test_installed_packer_accepts_what_renders_for_it(builder: str, tmp_path: Path) -> None:
    version = packer.installed_version()
    rendered = tmp_path / "x.pkr.hcl"
    values = _values(version)
    guest = values["guest"]
    assert isinstance(guest, dict)
    guest["private_key"] = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
    rendered.write_text(render.render(TEMPLATES / f"{builder}.pkr.hcl.j2", values))
    packer.validate(rendered, version)


def test_new_packers_get_their_plugins_and_old_ones_do_not() -> None:
    assert "required_plugins" not in (HERE / "qemu-1.6.pkr.hcl").read_text()
    for version in ("1.10", "1.11"):
        assert "required_plugins" in (HERE / f"qemu-{version}.pkr.hcl").read_text()
