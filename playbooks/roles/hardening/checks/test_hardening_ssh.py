"""The SSH server, by the settings of the image that are in force: CIS section 5.1."""


def weak(offered, *marks):
    """Which of the algorithms in a list carry the mark of a weak one; the empty list offers nothing and is as bad."""
    return [name for name in offered.split(",") if not name or any(mark in name for mark in marks)]


def test_cis_5_1_1_settings_are_root_s(guest):
    assert guest.modes["/etc/ssh/sshd_config"] == "600 root:root"


def test_cis_5_1_5_banner_before_login(guest):
    assert guest.sshd["banner"] == "/etc/issue.net"


def test_cis_5_1_6_strong_ciphers(guest):
    assert weak(guest.sshd["ciphers"], "cbc", "3des", "arcfour", "blowfish", "cast") == []


def test_cis_5_1_7_silent_clients_are_dropped(guest):
    assert 0 < int(guest.sshd["clientaliveinterval"]) <= 60
    assert 0 < int(guest.sshd["clientalivecountmax"]) <= 3


def test_cis_5_1_8_nothing_is_forwarded(guest):
    assert guest.sshd["disableforwarding"] == "yes"


def test_cis_5_1_9_no_gssapi(guest):
    assert guest.sshd["gssapiauthentication"] == "no"


def test_cis_5_1_10_no_host_based_logins(guest):
    assert guest.sshd["hostbasedauthentication"] == "no"


def test_cis_5_1_11_rhosts_are_ignored(guest):
    assert guest.sshd["ignorerhosts"] == "yes"


def test_cis_5_1_12_strong_key_exchanges(guest):
    assert weak(guest.sshd["kexalgorithms"], "sha1", "group1-", "group14-") == []


def test_cis_5_1_13_logins_are_done_in_time(guest):
    assert 0 < int(guest.sshd["logingracetime"]) <= 60


def test_cis_5_1_14_logins_are_logged(guest):
    assert guest.sshd["loglevel"] == "VERBOSE"


def test_cis_5_1_15_strong_macs(guest):
    assert weak(guest.sshd["macs"], "md5", "sha1", "umac", "ripemd", "-96") == []


def test_cis_5_1_16_few_attempts(guest):
    assert int(guest.sshd["maxauthtries"]) <= 4


def test_cis_5_1_17_few_sessions(guest):
    assert int(guest.sshd["maxsessions"]) <= 10


def test_cis_5_1_18_few_waiting_connections(guest):
    assert guest.sshd["maxstartups"] == "10:30:60"


def test_cis_5_1_19_no_empty_passwords(guest):
    assert guest.sshd["permitemptypasswords"] == "no"


def test_cis_5_1_20_no_root_logins(guest):
    assert guest.sshd["permitrootlogin"] == "no"


def test_cis_5_1_21_users_bring_no_environment(guest):
    assert guest.sshd["permituserenvironment"] == "no"


def test_cis_5_1_22_pam_is_used(guest):
    assert guest.sshd["usepam"] == "yes"


def test_own_ssh_passwords(guest):
    assert guest.sshd["passwordauthentication"] == "no"


def test_own_ssh_dialogues(guest):
    assert guest.sshd["kbdinteractiveauthentication"] == "no"
