"""The wrapper around Packer, against the installed Packer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory import packer
from factory.errors import ProvisionError, TemplateError, ToolError
from factory.packer import PackerVersion

GOOD = 'source "null" "x" { communicator = "none" }\nbuild {\n  sources = ["source.null.x"]\n%s\n}\n'
LOCAL = '  provisioner "shell-local" { inline = [%s] }'
MANIFEST = '  post-processor "manifest" { output = "%s" }'


def test_version_is_parsed_and_too_old_is_refused() -> None:
    assert packer.parse_version("Packer v1.6.6\n") == PackerVersion(1, 6, 6)
    assert packer.parse_version("Packer v1.11.2\nYour version is out of date") == PackerVersion(1, 11, 2)
    with pytest.raises(ToolError, match="1.5.4 is too old"):
        packer.parse_version("Packer v1.5.4")
    with pytest.raises(ToolError, match="unexpected"):
        packer.parse_version("bash: nonsense")


def test_plugins_are_required_from_1_7() -> None:
    assert not PackerVersion(1, 6, 6).needs_required_plugins
    assert PackerVersion(1, 10, 0).needs_required_plugins


def test_validate_gives_packers_words(tmp_path: Path) -> None:
    template = tmp_path / "x.pkr.hcl"
    template.write_text(GOOD % '  provisioner "shell-local" { inlin = [] }')
    with pytest.raises(TemplateError, match='An argument named "inlin" is not'):
        packer.validate(template, packer.installed_version())


def test_build_gives_output_manifest_and_the_real_cause(tmp_path: Path) -> None:
    template, manifest = tmp_path / "x.pkr.hcl", tmp_path / "m.json"
    template.write_text(GOOD % (LOCAL % '"echo one, two"' + "\n" + MANIFEST % manifest))
    said: list[str] = []
    packer.build(packer.build_command(template), folder=tmp_path, on_output=said.append)
    assert any(line.strip() == "null.x: one, two" for line in said)
    assert [artifact.builder_type for artifact in packer.read_manifest(manifest)] == ["null"]
    template.write_text(GOOD % (LOCAL % '"exit 3"'))
    with pytest.raises(ProvisionError, match="exit code 1: Script exited with non-zero exit status: 3"):
        packer.build(packer.build_command(template), folder=tmp_path, on_output=said.append)


def test_manifest_of_an_earlier_run_is_not_taken(tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    old = {"builder_type": "qemu", "artifact_id": "VM", "files": None, "packer_run_uuid": "a"}
    manifest.write_text(json.dumps({"builds": [old], "last_run_uuid": "b"}))
    assert packer.read_manifest(manifest) == ()
    manifest.write_text("{")
    with pytest.raises(ProvisionError, match="not understood"):
        packer.read_manifest(manifest)
    with pytest.raises(ProvisionError, match="wrote no manifest"):
        packer.read_manifest(tmp_path / "none.json")


def test_stream_line_undoes_packers_escapes() -> None:
    line = packer.parse_line("1,null.x,ui,say,a%!(PACKER_COMMA) b\\nc")
    assert line == packer.StreamLine("null.x", "ui", ("say", "a, b\nc"))
    assert packer.parse_line("panic: something") is None
