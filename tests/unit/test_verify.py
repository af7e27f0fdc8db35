"""Verification, the pure parts: what may change, what listens, what a secret looks like, what a report says."""

from __future__ import annotations

import base64
import gzip
import lzma
import os
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import proc
from factory.digest import Digest, of_bytes
from factory.disk.manifest import Change
from factory.errors import DiskError, SpecError, VerifyError
from factory.verify import boot_image, built_in, checks, disk_state, needles, report, run
from factory.verify.first_boot import FIRST_BOOT, allowed
from factory.verify.guest_state import Listener, parse, parse_sockets, undeclared
from factory.verify.report import Case, VerifyReport
from factory.verify.request import VerifyRequest
from factory.vm.session import Way

# what may change


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/etc/machine-id", True),
        ("/etc/ssh/ssh_host_ed25519_key.pub", True),
        ("/etc/ssh/ssh_host_rsa_key", False),
        ("/var/lib/systemd/timers", True),
        ("/var/lib/systemd/timers/stamp-x.timer", True),
        ("/var/lib/systemd/other/file", False),
        ("/tmp/systemd-private-1/tmp/x", True),
        ("/tmp/x", False),
        ("/root/.ssh/authorized_keys", False),
        ("/var/lib/nginx", True),
        ("/var/lib/nginx/body/1", True),
        ("/var/lib/nginx2", False),
        ("/etc/machine-id/x", False),
    ],
)
def test_allowed_is_state_or_first_boot(path: str, fits: bool) -> None:
    assert allowed(path, [pattern for pattern, _ in FIRST_BOOT], ["/var/lib/nginx"]) is fits


names = st.text(st.characters(exclude_characters="/\0*"), min_size=1, max_size=8)


@given(st.lists(names, min_size=1, max_size=5), st.lists(names, max_size=4))
def test_allowed_takes_state_with_all_below_and_nothing_beside(place: list[str], below: list[str]) -> None:
    state = "/" + "/".join(place)
    assert allowed("/".join([state, *below]), (), [state])
    assert allowed("/".join([state, *below]), (), [state + "/"])
    assert not allowed(state + "x", (), [state])
    assert not allowed("/".join(["", *place[:-1], "\x01other"]), (), [state])


@given(st.lists(names, min_size=1, max_size=4), st.data())
def test_allowed_star_stands_for_one_name(parts: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(parts) - 1))
    pattern = "/" + "/".join([*parts[:at], "*", *parts[at + 1 :]])
    assert allowed("/" + "/".join(parts), [pattern], ())
    deeper = "/" + "/".join([*parts[:at], parts[at], "more", *parts[at + 1 :]])
    assert allowed(deeper, [pattern], ()) is False


def test_first_boot_gives_a_reason_for_each_place() -> None:
    assert all(pattern.startswith("/") and why for pattern, why in FIRST_BOOT)
    assert len({pattern for pattern, _ in FIRST_BOOT}) == len(FIRST_BOOT)


def test_judge_keeps_what_nothing_allows() -> None:
    found = [
        Change("/etc/default/ssh", "changed", "content"),
        Change("/opt/left", "added", "file"),
        Change("/var/log/x", "added", "file"),
    ]
    assert disk_state.judge(found, ["/var/log"], ["/etc/default/ssh"]) == [found[1]]


def test_written_names_what_the_guest_wrote(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base.raw", tmp_path / "overlay.qcow2"
    with base.open("wb") as file:
        file.truncate(8 << 20)
    proc.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(overlay)])
    assert disk_state.written(overlay) == []
    proc.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 2M 64k", str(overlay)])
    assert disk_state.written(overlay) == [(2 << 20, (2 << 20) + (64 << 10))]


# what listens

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14110 1 0 100 0 0 10 0
   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 14111 1 0 100 0 0 10 0
   2: 0F02000A:0016 0202000A:B2A4 01 00000000:00000000 02:000A7D8C 00000000     0        0 15094 2 0 20 4 29 10 -1
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:1F91 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000
"""
UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  295: 0F02000A:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 14033 2 0000000000000000 0
  296: 00000000:14E9 00000000:0000 07 00000000:00000000 00:00000000 00000000   998        0 14034 2 0000000000000000 0
  297: 0F02000A:9C40 0302000A:0035 01 00000000:00000000 00:00000000 00000000   998        0 14034 2 0000000000000000 0
"""
STATE = f"""\
== failed
broken.service loaded failed failed A broken unit
== tcp
{TCP}== tcp6
{TCP6}== udp
{UDP}== udp6
== owners
tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=260,fd=3))
udp UNCONN 0 0 0.0.0.0:5353 0.0.0.0:* users:(("avahi",pid=1,fd=3))
== udp again
{UDP}== udp6 again
== why
-- broken.service
it said so
== end
"""


def test_parse_sockets_reads_both_families() -> None:
    assert parse_sockets("tcp", TCP.splitlines()) == [
        Listener("tcp", 22, "0.0.0.0"),
        Listener("tcp", 8080, "127.0.0.1"),
    ]
    assert [listener.address for listener in parse_sockets("tcp", TCP6.splitlines())] == ["::", "::1", "127.0.0.1"]
    assert [listener.port for listener in parse_sockets("udp", UDP.splitlines())] == [68, 5353]


@given(st.integers(1, 65535), st.ip_addresses(v=4), st.sampled_from(["0A", "01", "06"]))
def test_parse_sockets_gives_back_any_address(port: int, address: object, state: str) -> None:
    packed = bytes(reversed(address.packed)).hex().upper()  # type: ignore[attr-defined]
    line = f"  0: {packed}:{port:04X} 00000000:0000 {state} 00000000:00000000"
    expected = [Listener("tcp", port, str(address))] if state == "0A" else []
    assert parse_sockets("tcp", [line]) == expected


def test_parse_passes_over_a_udp_socket_that_is_gone_a_second_later() -> None:
    gone = STATE.replace(f"== udp again\n{UDP}", "== udp again\n")
    assert {listener.protocol for listener in parse(STATE).listeners} == {"tcp", "udp"}
    assert {listener.protocol for listener in parse(gone).listeners} == {"tcp"}


def test_parse_finds_failed_units_and_open_listeners() -> None:
    state = parse(STATE)
    assert state.failed == (("broken.service", "it said so"),)
    assert built_in.units(state) == ["broken.service failed: it said so"]
    assert undeclared(state.listeners, [22, 80]) == [Listener("udp", 5353, "0.0.0.0")]
    assert built_in.ports(state, [22, 80]) == ["udp 5353 on 0.0.0.0 (avahi) listens and is not in ports"]
    assert len(built_in.ports(state, [])) == 3


def test_parse_refuses_an_answer_that_was_cut_off() -> None:
    with pytest.raises(ValueError, match="incomplete"):
        parse(STATE.removesuffix("== end\n"))


# secrets


@given(st.binary(min_size=8, max_size=40), st.binary(max_size=7), st.binary(max_size=7), st.booleans())
def test_needles_find_a_secret_in_base64_wherever_it_stands(
    secret: bytes, before: bytes, after: bytes, urlsafe: bool
) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    found = needles.in_bytes(needles.needles({"TOKEN": secret}), encode(before + secret + after), "here")
    assert found


@given(st.binary(min_size=8, max_size=40), st.binary(max_size=20))
def test_needles_find_a_secret_as_it_is(secret: bytes, before: bytes) -> None:
    (found, *_) = needles.in_bytes(needles.needles({"TOKEN": secret}), before + secret, "here")
    assert found.secret == "TOKEN"
    assert found.offset <= len(before)


def test_needles_find_nothing_where_nothing_is() -> None:
    assert needles.in_bytes(needles.needles({"TOKEN": b"correct horse"}), os.urandom(1 << 16), "noise") == []


def test_needles_refuse_a_secret_too_short_to_be_told_from_chance() -> None:
    with pytest.raises(SpecError, match="TOKEN is shorter") as error:
        needles.needles({"TOKEN": b"1234567"})
    assert "1234567" not in str(error.value)


def test_needles_never_print_a_secret() -> None:
    wanted = needles.needles({"TOKEN": b"correct horse"})
    found = needles.in_bytes(wanted, b"a correct horse", "here")
    assert str(found[0]) == "the secret TOKEN (as it is) is in here at byte 2"
    assert "correct" not in repr(wanted)


def test_in_file_finds_across_chunks_and_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needles, "_CHUNK_BYTES", 4096)
    secret = b"correct horse battery"
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.write(b"x" * (4096 - 5) + secret)
        file.seek(64 << 20)
        file.write(base64.b64encode(b"xy" + secret))
        file.truncate(128 << 20)
    found = needles.in_file(needles.needles({"TOKEN": secret}), path, "the disk")
    assert [(one.form, one.offset) for one in found] == [("as it is", 4091), ("in base64", (64 << 20) + 3)]


# initial ramdisks


def cpio(*files: tuple[str, bytes]) -> bytes:
    parts = []
    for name, content in (*files, ("TRAILER!!!", b"")):
        head = b"070701" + b"".join(b"%08X" % n for n in (1, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0))
        head += b"%08X%08X" % (len(name) + 1, 0) + name.encode() + b"\0"
        head += bytes(-len(head) % 4)
        parts.append(head + content + bytes(-len(content) % 4))
    return b"".join(parts)


def zstd(data: bytes) -> bytes:
    return proc.run(["zstd", "-q", "-c"], stdin=data).stdout


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda data: lzma.compress(data, check=lzma.CHECK_CRC32), zstd])
def test_unpack_reads_archives_in_a_row(pack: object) -> None:
    early, main = cpio(("early", b"microcode")), cpio(("etc/x", b"needle in here"))
    unpacked = boot_image.unpack(early + bytes(512 - len(early) % 512) + pack(main))  # type: ignore[operator]
    assert b"microcode" in unpacked
    assert b"needle in here" in unpacked


def test_unpack_refuses_what_it_cannot_read() -> None:
    with pytest.raises(DiskError, match="not known"):
        boot_image.unpack(b"whatever")
    with pytest.raises(DiskError, match="damaged"):
        boot_image.unpack(b"\x1f\x8b\x08garbage that is no gzip")


def test_section_finds_a_section_of_a_pe_image() -> None:
    header = (
        b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40) + b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 0, 0)
    )
    table = struct.pack("<8sIIII16x", b".initrd\0", 5, 0, 16, 128)
    image = (header + table).ljust(128, b"\0") + b"hello".ljust(16, b"\0")
    assert boot_image.section(image, b".initrd") == b"hello"
    assert boot_image.section(image, b".linux") is None
    with pytest.raises(DiskError):
        boot_image.section(b"not a program", b".initrd")


# checks


def suite(tmp_path: Path, text: str, skip: tuple[str, ...] = ()) -> checks.Suite:
    for owner in ("base", "web"):
        folder = tmp_path / owner
        folder.mkdir()
        (folder / "test_same.py").write_text(text)
    (tmp_path / "conftest.py").write_text("raise RuntimeError('a conftest.py above the checks counts')\n")
    parts = [checks.Checks(owner, tmp_path / owner, f"roles/{owner}/checks") for owner in ("base", "web")]
    return checks.stage(parts, skip, tmp_path / "copy")


GOOD = """\
import pytest
@pytest.mark.parametrize("port", [22, 80])
def test_port(host, port):
    assert port
def test_two():
    assert 1 == 2, "one is not two"
def test_itself():
    pytest.skip("no need here")
"""


def test_collect_counts_checks_with_equal_file_names(tmp_path: Path) -> None:
    collected = checks.collect(suite(tmp_path, GOOD, ("test_port[80]", "test_two", "sealed")), built_in.NAMES)
    assert len(collected) == 8
    assert "web-1/test_same.py::test_two" in collected


def test_collect_refuses_an_exemption_that_names_no_check(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist: test_tow") as error:
        checks.collect(suite(tmp_path, GOOD, ("test_tow",)), built_in.NAMES)
    assert error.value.hint is not None
    assert "test_two" in error.value.hint


def test_collect_names_a_file_of_checks_that_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match=r"roles/base/checks/test_same\.py: .*nothing_such"):
        checks.collect(suite(tmp_path, "import nothing_such\n"), built_in.NAMES)


def test_stage_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="roles/x/checks"):
        checks.stage([checks.Checks("x", tmp_path / "none", "roles/x/checks")], (), tmp_path / "copy")


def collect_and_run(tmp_path: Path, staged: checks.Suite) -> list[Case]:
    (tmp_path / "keys").mkdir()
    config = tmp_path / "keys" / "ssh_config"
    config.write_text("Host guest\n")
    collected = checks.collect(staged, built_in.NAMES)
    return checks.run(staged, collected, config, tmp_path / "junit.xml", timeout_s=60)


def test_run_tells_owner_outcome_and_reason(tmp_path: Path) -> None:
    staged = suite(tmp_path, GOOD.replace("(host, port)", "(port)"), ("test_port[80]",))
    cases = collect_and_run(tmp_path, staged)
    assert [(case.owner, case.name, case.outcome) for case in cases[:4]] == [
        ("base", "test_port[22]", "passed"),
        ("base", "test_port[80]", "exempt"),
        ("base", "test_two", "failed"),
        ("base", "test_itself", "skipped"),
    ]
    assert cases[2].message.splitlines() == ["one is not two", "assert 1 == 2"]
    assert cases[2].where == "roles/base/checks/test_same.py:6"
    assert cases[6].owner == "web"
    assert ET.parse(tmp_path / "junit.xml").getroot().find("testsuite") is not None
    assert not list(tmp_path.rglob("__pycache__"))


THREE = """\
import os
import pytest
def test_one():
    pass
def test_two():
    {}
def test_three():
    pass
"""


@pytest.mark.parametrize("end", ["pytest.exit('enough')", "pytest.exit('enough', returncode=0)", "os._exit(0)"])
def test_run_that_is_cut_short_names_the_checks_that_never_ran(tmp_path: Path, end: str) -> None:
    with pytest.raises(VerifyError, match="cut short") as caught:
        collect_and_run(tmp_path, suite(tmp_path, THREE.format(end)))
    assert caught.value.message.splitlines()[1:] == [
        "roles/base/checks/test_same.py::test_three never ran",
        "roles/base/checks/test_same.py::test_two never ran",
        *(f"roles/web/checks/test_same.py::test_{name} never ran" for name in ("one", "three", "two")),
    ]


def test_run_that_ends_after_its_last_check_did_not_come_to_its_end(tmp_path: Path) -> None:
    last = (
        THREE.format("pass")
        + "@pytest.fixture(autouse=True, scope='session')\ndef ends():\n    yield\n    os._exit(0)\n"
    )
    with pytest.raises(VerifyError, match="did not come to their end"):
        collect_and_run(tmp_path, suite(tmp_path, last))


def test_run_refuses_a_file_that_cannot_load_any_more(tmp_path: Path) -> None:
    """It loads while the checks are collected (once in each of both copies), and no more when they are to run."""
    once = f"from pathlib import Path\nPath({str(tmp_path)!r} + '/' + __file__.replace('/', '-')).mkdir()\n"
    with pytest.raises(VerifyError, match=r"cannot be loaded:\nroles/base/checks/test_same\.py: FileExistsError"):
        collect_and_run(tmp_path, suite(tmp_path, once + THREE.format("pass")))


@pytest.mark.parametrize(
    ("end", "said"),
    [("pytest.exit('enough', returncode=0)", "cannot be loaded"), ("os._exit(0)", "did not come to their end")],
)
def test_collect_that_is_cut_short_is_no_empty_collection(tmp_path: Path, end: str, said: str) -> None:
    with pytest.raises(VerifyError, match=said):
        checks.collect(suite(tmp_path, f"import os, pytest\n{end}\n"), built_in.NAMES)


def test_folders_without_a_check_are_no_error(tmp_path: Path) -> None:
    assert collect_and_run(tmp_path, suite(tmp_path, "")) == []


# secrets in the logs of the verification itself


def test_files_in_lists_what_is_there_when_it_looks(tmp_path: Path) -> None:
    (tmp_path / "run/web").mkdir(parents=True)
    (tmp_path / "lock").write_text("")
    places = (tmp_path / "lock", tmp_path / "none", tmp_path / "run", tmp_path / "run/web")
    assert run.files_in(places) == [tmp_path / "lock"]
    (tmp_path / "run/web/console.log").write_text("")
    assert run.files_in(places) == [tmp_path / "lock", tmp_path / "run/web/console.log"]


def test_strike_leaves_no_secret_in_junit_or_console(tmp_path: Path) -> None:
    value = 'top <"secret">&\nvalue'
    redact = run.redactor({"T": value.encode()})
    junit, console = tmp_path / "junit.xml", tmp_path / "console.log"
    collect_and_run(tmp_path, suite(tmp_path, f"def test_it():\n    raise RuntimeError({value!r})\n"))
    assert b"secret" in junit.read_bytes()
    console.write_bytes(b"\xff " + value.encode() + b" " + base64.b64encode(value.encode()))
    for log in (junit, console):
        run.strike(log, redact)
    assert console.read_bytes().startswith(b"\xff ***** ")
    assert needles.in_bytes(needles.needles({"T": value.encode()}), console.read_bytes(), "the console") == []
    messages = [element.get("message", "") for element in ET.parse(junit).getroot().iter("failure")]
    assert messages == ["RuntimeError: *****"] * 2


# the report


def a_report(tmp_path: Path, *cases: Case) -> VerifyReport:
    failed = any(case.outcome == "failed" for case in cases)
    return VerifyReport(not failed, cases, tmp_path / "junit.xml", tmp_path / "console.log", None, "tcg", 1.0, 2.0)


def test_render_shows_failures_and_where_the_logs_are(tmp_path: Path) -> None:
    text = report.render(
        a_report(
            tmp_path,
            Case("test_ok", "web", "passed"),
            Case("test_bad", "web", "failed", 0.1, "a\nb\n\nc\nd\ne", "roles/web/checks/test_x.py:3"),
        )
    )
    assert text.splitlines() == [
        "1 of 2 checks failed",
        "  web: test_bad (roles/web/checks/test_x.py:3)",
        "    a",
        "    b",
        "    c",
        "    … 2 more lines in the report",
        f"checks: {tmp_path}/junit.xml, serial log: {tmp_path}/console.log",
    ]


def test_case_is_exempt_by_name_whatever_was_found() -> None:
    assert built_in.case("sealed", ["bad"], ("sealed",)).outcome == "exempt"
    assert built_in.case("sealed", ["bad"], ()).outcome == "failed"
    assert built_in.case("sealed", [], ()).outcome == "passed"


def test_unchanged_wants_the_same_digest_throughout() -> None:
    one, two = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
    assert built_in.unchanged(one, one, one) == []
    assert "not the one it should be" in built_in.unchanged(one, two, two)[0]
    assert "changed while" in built_in.unchanged(one, one, two)[0]


def test_add_to_junit_keeps_what_pytest_wrote(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text('<testsuites><testsuite name="pytest"><testcase name="a"/></testsuite></testsuites>')
    report.add_to_junit(
        junit, [Case("sealed", "factory", "failed", 0.5, "bad \x1b here\nmore"), Case("ports", "factory", "exempt")]
    )
    suites = list(ET.parse(junit).getroot())
    assert [one.get("name") for one in suites] == ["pytest", "factory"]
    failure = suites[1].find("testcase/failure")
    assert failure is not None
    assert failure.text == "bad ? here\nmore"
    assert (suites[1].get("failures"), suites[1].get("skipped")) == ("1", "1")


# a guest that stands still


@pytest.mark.parametrize(
    ("console", "accelerator", "stalled"),
    [
        ("[    0.000000] Linux version 6.1\n[    0.95] IP idents hash table", "tcg", True),
        ("[    0.000000] Linux version 6.1\n[    0.95] IP idents hash table", "kvm", False),
        ("[    0.000000] Linux version 6.1\n[    1.9] Run /init as init process", "tcg", False),
        ("[    0.000000] Linux version 6.1\n[    1.9] Kernel panic - not syncing", "tcg", False),
        ("BdsDxe: failed to load Boot0001", "tcg", False),
        (None, "tcg", False),
    ],
)
def test_stall_is_a_kernel_that_began_and_started_nothing(
    tmp_path: Path, console: str | None, accelerator: str, stalled: bool
) -> None:
    if console is not None:
        (tmp_path / "console.log").write_text(console)
    request = VerifyRequest(
        name="web", artifact=tmp_path, format="raw", digest=of_bytes(b""), manifest=tmp_path, work=tmp_path,
        logs=tmp_path, accelerator=accelerator, way=Way("smbios"),
    )  # fmt: skip
    assert run.has_stalled(request) is stalled
