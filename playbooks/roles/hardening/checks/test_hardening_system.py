"""Mounts, banners, job schedulers, journal and file modes: CIS sections 1.1.2, 1.6, 2.4, 6.1 and 7.1."""


def names_no_system(guest, banner):
    """Whether a banner says something, and neither the system's name nor its version."""
    text = " ".join(guest.text[banner])
    mode = guest.modes[f"/etc/{banner}"]
    return mode == "644 root:root" and len(text) > 10 and not any(word in text for word in ("Debian", "Linux", "\\"))


def test_cis_1_1_2_1_tmp_runs_nothing(guest):
    assert {"nodev", "nosuid", "noexec"} <= guest.mounts["/tmp"]  # noqa: S108 - a mount point, not a file


def test_cis_1_1_2_2_shared_memory_runs_nothing(guest):
    assert {"nodev", "nosuid", "noexec"} <= guest.mounts["/dev/shm"]  # noqa: S108 - a mount point, not a file


def test_cis_1_6_1_motd_names_no_system(guest):
    assert names_no_system(guest, "motd")


def test_cis_1_6_2_local_banner_names_no_system(guest):
    assert names_no_system(guest, "issue")


def test_cis_1_6_3_remote_banner_names_no_system(guest):
    assert names_no_system(guest, "issue.net")


def test_cis_2_4_1_3_cron_hourly_is_root_s(guest):
    assert guest.modes["/etc/cron.hourly"] == "700 root:root"


def test_cis_2_4_1_4_cron_daily_is_root_s(guest):
    assert guest.modes["/etc/cron.daily"] == "700 root:root"


def test_cis_2_4_1_5_cron_weekly_is_root_s(guest):
    assert guest.modes["/etc/cron.weekly"] == "700 root:root"


def test_cis_2_4_1_6_cron_monthly_is_root_s(guest):
    assert guest.modes["/etc/cron.monthly"] == "700 root:root"


def test_cis_2_4_1_7_cron_d_is_root_s(guest):
    assert guest.modes["/etc/cron.d"] == "700 root:root"


def test_cis_2_4_1_8_only_root_uses_crontab(guest):
    assert guest.text["cron.allow"] == ["root"]
    assert guest.modes["/etc/cron.allow"] == "640 root:root"
    assert "/etc/cron.deny" not in guest.modes


def test_cis_2_4_2_1_only_root_uses_at(guest):
    assert guest.text["at.allow"] == ["root"]
    assert guest.modes["/etc/at.allow"] == "640 root:root"


def test_cis_6_1_1_3_journal_is_rotated(guest):
    assert guest.journald["MaxFileSec"] == "7day"
    assert guest.journald["SystemKeepFree"] == "256M"


def test_cis_6_1_2_2_journal_is_not_forwarded(guest):
    assert guest.journald["ForwardToSyslog"] == "no"


def test_cis_6_1_2_3_journal_is_compressed(guest):
    assert guest.journald["Compress"] == "yes"


def test_cis_6_1_2_4_journal_is_on_disk(guest):
    assert guest.journald["Storage"] == "persistent"


def test_cis_7_1_1_mode_of_passwd(guest):
    assert guest.modes["/etc/passwd"] == "644 root:root"


def test_cis_7_1_3_mode_of_group(guest):
    assert guest.modes["/etc/group"] == "644 root:root"


def test_cis_7_1_5_mode_of_shadow(guest):
    assert guest.modes["/etc/shadow"] == "640 root:shadow"


def test_cis_7_1_7_mode_of_gshadow(guest):
    assert guest.modes["/etc/gshadow"] == "640 root:shadow"


def test_cis_7_1_9_mode_of_shells(guest):
    assert guest.modes["/etc/shells"] == "644 root:root"


def test_cis_7_1_10_mode_of_opasswd(guest):
    assert guest.modes["/etc/security/opasswd"] == "600 root:root"
