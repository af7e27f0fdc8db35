"""The role base, looked at in a booted machine.

One remote command fetches everything: in an emulated guest each costs a good part of a second. It writes nothing.
"""

import pytest

TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer")
"""What would change a machine behind its image's back."""

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "failed": "systemctl list-units --failed --plain --no-legend",
    "masked": f"systemctl is-enabled {' '.join(TIMERS)}",
    "timers": "systemctl list-units --type=timer --plain --no-legend",
    "locale": "cat /etc/default/locale",
    "zone": "date +%Z",
    "addresses": "ip -o -4 address show scope global dynamic",
    "resolver": "readlink /etc/resolv.conf",
    "localhost": "getent ahostsv4 localhost",
    "ports": "ss -Htuln",
    "keys": "cd /etc/ssh && stat -c '%n %a %U' ssh_host_*_key",
    "sshd": "sshd -T",
    "machine": "cat /etc/machine-id",
    "journal": "systemd-analyze cat-config systemd/journald.conf",
    "journals": "ls /var/log/journal",
    "modules": "cut -d' ' -f1 /proc/modules",
}


@pytest.fixture(scope="module")
def said(host):
    """The lines that each of COMMANDS printed."""
    script = "\n".join(f"echo '==> {name}'; ( {command} ) 2>&1" for name, command in COMMANDS.items())
    sections = host.run(script).stdout.split("==> ")[1:]
    return {name: lines for name, *lines in (section.splitlines() for section in sections)}


def test_every_unit_came_up(said):
    assert said["failed"] == []
    assert said["state"] == ["running"]


def test_machine_never_changes_itself(said):
    assert said["masked"] == ["masked"] * len(TIMERS)
    assert {line.split()[0] for line in said["timers"]}.isdisjoint(TIMERS)


def test_locale_needs_no_package(said):
    assert said["locale"] == ["LANG=C.UTF-8"]


def test_time_zone_is_utc(said):
    assert said["zone"] == ["UTC"]


def test_address_comes_by_dhcp(said):
    assert len(said["addresses"]) == 1


def test_names_are_resolved_by_the_servers_that_dhcp_named(said):
    assert said["resolver"] == ["../run/systemd/resolve/stub-resolv.conf"]


def test_localhost_needs_no_server(said):
    assert said["localhost"][0].split()[0] == "127.0.0.1"


def test_resolver_listens_on_no_port(said):
    ports = {line.split()[4].rpartition(":")[2] for line in said["ports"]}
    assert ports.isdisjoint({"53", "5353", "5355"})


def test_ssh_listens(said):
    assert any(line.startswith("tcp") and line.split()[4].endswith(":22") for line in said["ports"])


def test_only_host_key_is_a_private_ed25519(said):
    assert said["keys"] == ["ssh_host_ed25519_key 600 root"]
    assert [line for line in said["sshd"] if line.startswith("hostkey ")] == ["hostkey /etc/ssh/ssh_host_ed25519_key"]


def test_machine_has_an_id_and_its_journal_is_on_disk(said):
    (machine,) = said["machine"]
    assert len(machine) == 32
    assert machine in said["journals"]


def test_journal_is_limited(said):
    settings = dict(line.split("=", 1) for line in said["journal"] if "=" in line and not line.startswith("#"))
    assert settings["Storage"] == "persistent"
    assert settings["SystemMaxUse"] == "64M"


def test_drivers_of_real_hardware_are_not_loaded(said):
    assert {"kvm_amd", "kvm_intel", "pcspkr", "powernow_k8"}.isdisjoint(said["modules"])
