"""Accounts, passwords and shells: CIS sections 5.2, 5.3 and 5.4."""


def login_defs(guest):
    """The settings of /etc/login.defs."""
    lines = (line.split() for line in guest.text["login.defs"] if line.strip() and not line.startswith("#"))
    return {name: " ".join(value) for name, *value in lines}


def test_cis_5_2_7_su_is_restricted(guest):
    assert "auth required pam_wheel.so use_uid group=su" in guest.text["pam.d/su"]


def test_cis_5_3_3_4_1_no_empty_passwords(guest):
    assert any("pam_unix.so" in line for line in guest.text["pam.d/common-auth"])
    assert not any("nullok" in line for line in guest.text["pam.d/common-auth"] if not line.startswith("#"))


def test_cis_5_4_1_1_passwords_expire(guest):
    assert 0 < int(login_defs(guest)["PASS_MAX_DAYS"]) <= 365


def test_cis_5_4_1_3_users_are_warned(guest):
    assert int(login_defs(guest)["PASS_WARN_AGE"]) >= 7


def test_cis_5_4_1_4_strong_hashes(guest):
    assert login_defs(guest)["ENCRYPT_METHOD"] == "YESCRYPT"


def test_cis_5_4_1_5_expired_accounts_are_locked(guest):
    assert "INACTIVE=45" in guest.text["default/useradd"]


def test_cis_5_4_2_4_root_has_no_password(guest):
    (password,) = [line.split(":")[1] for line in guest.text["shadow"] if line.startswith("root:")]
    assert password.startswith("!")


def test_cis_5_4_2_6_root_s_files_are_private(guest):
    assert "umask 0027" in guest.text["/root/.profile"]


def test_cis_5_4_2_7_system_accounts_have_no_shell(guest):
    users = [line.split(":") for line in guest.text["passwd"]]
    shells = {shell for name, _, uid, *_, shell in users if name != "root" and int(uid) < 1000}
    assert shells <= {"/usr/sbin/nologin", "/bin/false"}


def test_cis_5_4_3_2_idle_shells_end(guest):
    assert guest.text["profile.d/cis_5_4_3_2.sh"] == ["TMOUT=900", "readonly TMOUT", "export TMOUT"]


def test_cis_5_4_3_3_users_files_are_private(guest):
    assert login_defs(guest)["UMASK"] == "027"
