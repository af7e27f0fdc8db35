"""Kernel modules, processes and network: CIS sections 1.1.1, 1.5, 3.2 and 3.3."""


def on_every_interface(guest, family, setting):
    """The values of a setting for the interfaces there are and for those to come."""
    return {guest.sysctl[f"net.{family}.conf.{scope}.{setting}"] for scope in ("all", "default")}


def test_cis_1_1_1_7_no_squashfs(guest):
    assert guest.is_out_of_reach("squashfs")


def test_cis_1_1_1_8_no_udf(guest):
    assert guest.is_out_of_reach("udf")


def test_cis_3_2_1_no_dccp(guest):
    assert guest.is_out_of_reach("dccp")


def test_cis_3_2_2_no_tipc(guest):
    assert guest.is_out_of_reach("tipc")


def test_cis_3_2_3_no_rds(guest):
    assert guest.is_out_of_reach("rds")


def test_cis_3_2_4_no_sctp(guest):
    assert guest.is_out_of_reach("sctp")


def test_cis_1_5_1_addresses_are_randomised(guest):
    assert guest.sysctl["kernel.randomize_va_space"] == "2"


def test_cis_1_5_2_only_descendants_are_traced(guest):
    assert guest.sysctl["kernel.yama.ptrace_scope"] == "1"


def test_cis_1_5_3_no_core_dumps(guest):
    assert guest.sysctl["fs.suid_dumpable"] == "0"
    assert guest.sysctl["kernel.core_pattern"] == "|/bin/false"
    assert "* hard core 0" in guest.text["security/limits.d/cis_1_5_3.conf"]


def test_cis_3_3_1_nothing_is_forwarded(guest):
    assert guest.sysctl["net.ipv4.ip_forward"] == "0"
    assert guest.sysctl["net.ipv6.conf.all.forwarding"] == "0"


def test_cis_3_3_2_no_redirects_are_sent(guest):
    assert on_every_interface(guest, "ipv4", "send_redirects") == {"0"}


def test_cis_3_3_3_bogus_responses_are_ignored(guest):
    assert guest.sysctl["net.ipv4.icmp_ignore_bogus_error_responses"] == "1"


def test_cis_3_3_4_broadcasts_are_ignored(guest):
    assert guest.sysctl["net.ipv4.icmp_echo_ignore_broadcasts"] == "1"


def test_cis_3_3_5_no_redirects_are_accepted(guest):
    assert on_every_interface(guest, "ipv4", "accept_redirects") == {"0"}
    assert on_every_interface(guest, "ipv6", "accept_redirects") == {"0"}


def test_cis_3_3_6_no_secure_redirects_are_accepted(guest):
    assert on_every_interface(guest, "ipv4", "secure_redirects") == {"0"}


def test_cis_3_3_7_packets_come_the_right_way(guest):
    assert on_every_interface(guest, "ipv4", "rp_filter") == {"1"}


def test_cis_3_3_8_no_source_routes(guest):
    assert on_every_interface(guest, "ipv4", "accept_source_route") == {"0"}
    assert on_every_interface(guest, "ipv6", "accept_source_route") == {"0"}


def test_cis_3_3_9_impossible_packets_are_logged(guest):
    assert on_every_interface(guest, "ipv4", "log_martians") == {"1"}


def test_cis_3_3_10_syn_cookies(guest):
    assert guest.sysctl["net.ipv4.tcp_syncookies"] == "1"
