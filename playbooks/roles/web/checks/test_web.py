"""The role web, looked at in a booted machine: what it serves, and what it may do.

One remote command fetches everything: in an emulated guest each costs a good part of a second. It writes nothing. The
requests are bash's own, as nothing in the image makes them.
"""

import pytest

COMMANDS = {
    "state": "systemctl is-system-running --wait",
    "unit": "systemctl show nginx.service -p ActiveState,UnitFileState,ProtectSystem,NoNewPrivileges,LogsDirectory",
    "ports": "ss -Htln",
    "workers": "stat -c %U $(grep -ls '^nginx: worker' /proc/[0-9]*/cmdline | sed s/cmdline//)",
    "name": r"sed -n 's/^ *server_name \(.*\);/\1/p' /etc/nginx/nginx.conf",
    "page": r"""name=$(sed -n 's/^ *server_name \(.*\);/\1/p' /etc/nginx/nginx.conf)
        exec 3<>/dev/tcp/127.0.0.1/80; printf "GET / HTTP/1.0\r\nHost: $name\r\n\r\n" >&3; cat <&3""",
    "missing": r"exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /missing HTTP/1.0\r\n\r\n' >&3; cat <&3",
    "writable": "find /srv/web /etc/nginx ! -type l '(' ! -user root -o -perm /022 ')'",
    "journal": "sleep 0.2; journalctl --boot --identifier=nginx --output=cat --lines=20",
}


@pytest.fixture(scope="module")
def said(host):
    """The lines that each of COMMANDS printed."""
    script = "\n".join(f"echo '==> {name}'; ( {command} ) 2>&1" for name, command in COMMANDS.items())
    sections = host.run("bash -c %s", script).stdout.split("==> ")[1:]
    return {name: lines for name, *lines in (section.splitlines() for section in sections)}


def test_nginx_is_up_and_comes_up_by_itself(said):
    assert {"ActiveState=active", "UnitFileState=enabled"} <= set(said["unit"])


def test_page_is_served_for_the_server_name(said):
    (name,) = said["name"]
    assert said["page"][0] == "HTTP/1.1 200 OK"
    assert any(f"<title>{name}</title>" in line for line in said["page"])


def test_what_is_not_there_is_not_found(said):
    assert said["missing"][0] == "HTTP/1.1 404 Not Found"


def test_answers_do_not_tell_the_version(said):
    assert "Server: nginx" in said["page"]


def test_port_80_listens_on_both_protocols(said):
    listening = {line.split()[3] for line in said["ports"]}
    assert {"0.0.0.0:80", "[::]:80"} <= listening


def test_workers_are_not_root(said):
    assert set(said["workers"]) == {"www-data"}


def test_nginx_writes_only_to_its_state_and_its_logs(said):
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "LogsDirectory=nginx"} <= set(said["unit"])


def test_only_root_may_change_what_is_served(said):
    assert said["writable"] == []


def test_requests_are_logged_to_the_journal(said):
    assert any('"GET / HTTP/1.0" 200' in line for line in said["journal"])
