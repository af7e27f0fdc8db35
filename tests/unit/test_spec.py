from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory import schema, spec
from factory.errors import SpecError, UsageError
from factory.model import FactorySpec, ImageSpec

BASE = """
[base.debian-12]
kind = "debootstrap"
suite = "bookworm"
arch = "amd64"
"""
IMAGE = """
[image.web]
base = "debian-12"
playbook = "playbooks/web.yml"
"""
SHA = "ab" * 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("factory")
    (root / "playbooks/roles/web/checks").mkdir(parents=True)
    (root / "playbooks/web.yml").write_text("[]\n")
    return root


def load(root: Path, text: str) -> FactorySpec:
    (root / "images.toml").write_text(text, encoding="utf-8")
    return spec.load(root)


def faults(root: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        load(root, text)
    assert caught.value.exit_code == 2
    assert caught.value.where is not None
    assert caught.value.where.startswith("images.toml")
    return caught.value.message


def test_load_fills_in_the_defaults_of_the_records(root: Path) -> None:
    loaded = load(root, BASE + IMAGE)
    assert loaded.images == {"web": ImageSpec("web", "amd64", "debian-12", False, "rootfs", "playbooks/web.yml")}
    assert loaded.bases["debian-12"].suite == "bookworm"
    assert loaded.root == root
    assert loaded.store_url is None


def test_load_reads_every_key(root: Path) -> None:
    text = f"""
    [store]
    url = "file:/srv/images"
    [base.disk]
    kind = "disk"
    arch = "arm64"
    path = "images/cloud.qcow2"
    sha256 = "sha256:{SHA}"
    [base.remote]
    kind = "disk"
    arch = "amd64"
    url = "https://images.example/cloud.qcow2"
    sha256 = "{SHA}"
    [base.boot]
    kind = "debootstrap"
    arch = "amd64"
    suite = "trixie"
    include = ["curl", "libstdc++6"]
    [image.a]
    base = "disk"
    playbook = "playbooks/./web.yml"
    [image.b]
    base = "image:a"
    playbook = "playbooks/web.yml"
    builder = "qemu"
    vars = {{ s = "${{x}} {{{{ y }}}}", n = [1, 2.5, true, {{ "odd key" = "" }}] }}
    checks = ["playbooks/roles/web/checks"]
    skip_checks = ["test_a", "test_b[x y]"]
    formats = ["raw", "vmdk"]
    state = ["/var/log", "/srv"]
    ports = [22, 443]
    secrets = ["REPO_TOKEN", "_A1", "MY_PATH", "HOMEPAGE"]
    disk_mib = 4096
    channel = "dev"
    """
    loaded = load(root, text)
    assert loaded.store_url == "file:/srv/images"
    assert loaded.bases["disk"].path == root / "images/cloud.qcow2"
    assert loaded.bases["disk"].sha256 == loaded.bases["remote"].sha256 == f"sha256:{SHA}"
    assert loaded.bases["boot"].include == ("curl", "libstdc++6")
    assert loaded.images["a"].playbook == "playbooks/web.yml"
    assert loaded.images["b"] == ImageSpec(
        name="b",
        arch="arm64",
        base="a",
        layered=True,
        builder="qemu",
        playbook="playbooks/web.yml",
        vars={"s": "${x} {{ y }}", "n": [1, 2.5, True, {"odd key": ""}]},
        checks=("playbooks/roles/web/checks",),
        skip_checks=("test_a", "test_b[x y]"),
        formats=("raw", "vmdk"),
        state=("/var/log", "/srv"),
        ports=(22, 443),
        secrets=("REPO_TOKEN", "_A1", "MY_PATH", "HOMEPAGE"),
        disk_mib=4096,
        channel="dev",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BASE + IMAGE + "prots = [22]", 'images.toml:10: image.web.prots: unknown key "prots"; did you mean "ports"?'),
        (BASE + IMAGE + "disk_mib = 1500", "image.web.disk_mib: must be a multiple of 1024"),
        (BASE + IMAGE + "disk_mib = 0", "(nearest: 1024)"),
        (BASE + IMAGE + "disk_mib = true", "must be a whole number, is true or false"),
        (BASE + IMAGE + 'disk_mib = "2048"', "must be a whole number, is a string"),
        (BASE + IMAGE + "ports = [0]", "0 is out of range 1 to 65535 (nearest: 1)"),
        (BASE + IMAGE + "ports = [65536]", "(nearest: 65535)"),
        (BASE + IMAGE + "ports = [22, 22]", "22 stands there twice"),
        (BASE + IMAGE + "ports = [true]", "its item 1 must be a whole number"),
        (BASE + IMAGE + 'builder = "rootsf"', 'did you mean "rootfs"?'),
        (BASE + IMAGE + 'builder = "amazon-ebs"', "not supported yet"),
        (BASE + IMAGE + 'formats = ["qcow3"]', 'did you mean "qcow2"?'),
        (BASE + IMAGE + "formats = []", "must name at least 1 of qcow2, raw, vmdk"),
        (BASE + IMAGE + 'formats = ["raw", "raw"]', '"raw" stands there twice'),
        (BASE + IMAGE + 'state = ["var/log"]', "must be an absolute path"),
        (BASE + IMAGE + 'state = ["/var/../etc"]', "must be an absolute path"),
        (BASE + IMAGE + 'state = ["/var//log/"]', 'nearest: "/var/log"'),
        (BASE + IMAGE + 'state = ["//var"]', 'nearest: "/var"'),
        (BASE + IMAGE + 'state = ["/"]', "would allow everything"),
        (BASE + IMAGE + 'state = ["/a\\nb"]', "without control characters"),
        (BASE + IMAGE + 'secrets = ["token"]', "the name of a variable"),
        *(
            (BASE + IMAGE + f'secrets = ["TOKEN", "{name}"]', f'image.web.secrets: "{name}" means something')
            for name in (
                *("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "LANG", "SHELL", "IFS", "FACTORY_RUN"),
                *("LD_PRELOAD", "LC_ALL", "PYTHONPATH", "ANSIBLE_CONFIG", "PACKER_LOG", "DYLD_LIBRARY_PATH"),
            )
        ),
        (BASE + IMAGE + 'checks = ["playbooks/roles/wbe"]', 'did you mean "playbooks/roles/web"?'),
        (BASE + IMAGE + 'checks = ["playbooks/web.yml"]', "the folder"),
        (BASE + IMAGE + "vars = { a = nan }", "image.web.vars.a: nan cannot be said in JSON"),
        (BASE + IMAGE + "vars = { a = [1979-05-27] }", "image.web.vars.a.0: a date or time"),
        (BASE + IMAGE + "vars = { a = 9007199254740992 }", "cannot be said exactly in JSON"),
        (BASE + IMAGE.replace("debian-12", ""), "image.web.base: must not be empty"),
        (BASE + IMAGE.replace("debian-12", "image:"), 'there is no base "image:"'),
        (BASE + IMAGE + 'builder = ""', "image.web.builder: must not be empty"),
        (BASE + IMAGE.replace("playbooks/web.yml", ""), "image.web.playbook: must not be empty"),
        (BASE + IMAGE + "vars = 3", "must be a table"),
        (BASE + IMAGE + 'channel = "Prod"', "image.web.channel"),
        (BASE + "[image.Web_1]", 'image.Web_1: "Web_1" is no name: 1 to 63 of a-z, 0-9 and - (nearest: "web-1")'),
        (BASE + f"[image.{'a' * 64}]", "is no name"),
        (BASE + "[image.web]", 'image.web: the key "base" is missing'),
        ("image.web = 3" + BASE, "image.web: must be a table, is a whole number"),
        (BASE + IMAGE.replace("web.yml", "wbe.yml"), 'did you mean "playbooks/web.yml"?'),
        (BASE + IMAGE.replace("playbooks/", "../"), "inside the factory's folder"),
        (BASE + IMAGE.replace("playbooks/", "/etc/"), "inside the factory's folder"),
        (BASE + IMAGE.replace("debian-12", "debian-21"), 'no base "debian-21"; did you mean "debian-12"?'),
        (BASE + IMAGE + IMAGE.replace("debian-12", "web").replace(".web]", ".app]"), 'did you mean "image:web"?'),
        (BASE + IMAGE.replace("debian-12", "web"), 'no base "web"; valid: debian-12'),
        (BASE + IMAGE.replace("debian-12", "image:wbe"), 'no base "image:wbe"; valid: debian-12'),
        (BASE + IMAGE.replace("debian-12", "image:debian-12"), 'did you mean "debian-12"?'),
        (BASE + IMAGE.replace("debian-12", "image:web"), "descends from itself: web -> web"),
        (BASE.replace("debootstrap", "debotstrap"), 'did you mean "debootstrap"?'),
        (BASE.replace("debootstrap", "ami"), "not supported yet"),
        (BASE.replace('suite = "bookworm"', ""), 'base.debian-12: the key "suite" is missing'),
        (BASE.replace("amd64", "amd46"), 'did you mean "amd64"?'),
        (BASE + f'sha256 = "{SHA}"', 'does not belong to a base of kind "debootstrap"'),
        ('[base.d]\nkind = "disk"\narch = "amd64"\npath = "x"', 'the key "sha256" is missing'),
        (f'[base.d]\nkind = "disk"\narch = "amd64"\nsha256 = "{SHA}"', 'has either "path" or "url"'),
        (f'[base.d]\nkind = "disk"\narch = "amd64"\npath = "x"\nsha256 = "{SHA.upper()}"', f'nearest: "{SHA}"'),
        (f'[base.d]\nkind = "disk"\narch = "amd64"\nurl = "ftp://x/y"\nsha256 = "{SHA}"', "must begin with https://"),
        ('[store]\nurl = "s3://bucket/x"', "images.toml:2: store.url: s3: stores are not supported yet"),
        ('[store]\nurl = "http://x/"', "must begin with file: or https:"),
        ('[store]\nurl = "file:images"', "absolute path"),
        ('[store]\nurl = "file://host/images"', "absolute path"),
        ('[store]\nurl = "https:///x"', "names no host"),
        ("[store]", 'store: the key "url" is missing'),
        ("[imgae.x]", 'unknown key "imgae"; did you mean "image"?'),
        ("store = 3", "store: must be a table"),
    ],
)
def test_load_refuses_and_says_where_and_what_is_near(root: Path, text: str, said: str) -> None:
    assert said in faults(root, text)


def test_load_reports_all_faults_at_once(root: Path) -> None:
    said = faults(root, BASE.replace("amd64", "x86") + IMAGE + 'prots = []\ndisk_mib = 1\nformats = ["zip"]')
    assert said.startswith("images.toml has 4 errors:\n")
    for path in ("base.debian-12.arch", "image.web.prots", "image.web.disk_mib", "image.web.formats"):
        assert path in said


def test_load_finds_each_cycle_once(root: Path) -> None:
    texts = [IMAGE.replace("[image.web]", f"[image.{a}]").replace("debian-12", f"image:{b}") for a, b in
             (("a", "b"), ("b", "c"), ("c", "b"), ("d", "d"))]  # fmt: skip
    said = faults(root, BASE + "".join(texts))
    assert said.count("descends from itself") == 2
    assert "b -> c -> b" in said


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"[image.web\n", "images.toml:1:"),
        (b'a = 1\nb = "x\n', "images.toml:2:"),
        (b"a = 1\na = 2\n", "images.toml:2:"),
        (b"a = 1\nb = \xff\n", "images.toml:2"),
        (b"a = " + b"[" * 5000, "images.toml"),
        (b"a = " + b"9" * 5000, "images.toml"),
        (b"disk = 0x" + b"f" * 9000, "images.toml"),
    ],
)
def test_load_of_what_is_no_toml_names_the_place(root: Path, raw: bytes, place: str) -> None:
    (root / "images.toml").write_bytes(raw)
    with pytest.raises(SpecError) as caught:
        spec.load(root)
    assert place in caught.value.message


def test_load_without_the_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        spec.load(tmp_path)
    assert caught.value.hint is not None
    assert "factory init" in caught.value.hint


def test_message_holds_no_control_characters_of_the_file(root: Path) -> None:
    said = faults(root, BASE + IMAGE + '"\\u001b[2Jx" = 1\nchannel = "\\u001b]0;x\\u0007"')
    assert all(char.isprintable() or char == "\n" for char in said)


def test_key_lines_are_found_in_tables_and_not_in_long_strings() -> None:
    text = 'a = 1\n[x."y z"]\nb = """\n[no]\nc = 2\n"""\nd.e = 3\n'
    assert schema.key_lines(text) == {"a": 1, 'x."y z"': 2, 'x."y z".b': 3, 'x."y z".d.e': 7}


scalars = st.text() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    scalars | st.booleans(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return f"{value:.17e}"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(char):08X}" for char in value) + '"'
    return json.dumps(value)


@given(values=st.dictionaries(st.text(), json_values, max_size=4))
def test_vars_come_back_as_they_were_written(root: Path, values: dict[str, object]) -> None:
    loaded = load(root, f"{BASE}{IMAGE}vars = {toml(values)}\n")
    assert loaded.images["web"].vars == values


@given(text=st.text() | st.lists(st.sampled_from([*"[].=\"'#,{}\n ", "image", "web", "base", "1", "x"])).map("".join))
def test_load_of_any_text_is_a_spec_or_a_spec_error(root: Path, text: str) -> None:
    with suppress(SpecError):
        assert load(root, text).root == root


@given(key=st.sampled_from(spec._IMAGE_KEYS), value=json_values)
def test_load_of_any_value_for_any_key_is_a_spec_or_a_spec_error(root: Path, key: str, value: object) -> None:
    keys = {"base": '"debian-12"', "playbook": '"playbooks/web.yml"', key: toml(value)}
    text = BASE + "[image.web]\n" + "".join(f"{name} = {written}\n" for name, written in keys.items())
    refused = ""
    try:
        load(root, text)
    except SpecError as error:
        refused = error.message
    assert not refused or f"image.web.{key}" in refused


def chain(*pairs: tuple[str, str]) -> FactorySpec:
    images = {
        name: ImageSpec(name, "amd64", base or "debian-12", bool(base), "rootfs", "playbooks/web.yml")
        for name, base in pairs
    }
    return FactorySpec(Path("/"), {}, images)


def test_select_puts_parents_first_and_brings_ancestors() -> None:
    family = chain(("web", "mid"), ("mid", "root"), ("root", ""), ("app", "mid"), ("lone", ""))
    assert [image.name for image in spec.select(family)] == ["root", "mid", "app", "lone", "web"]
    assert [image.name for image in spec.select(family, ["web/amd64", "web"])] == ["root", "mid", "web"]


def test_select_of_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        spec.select(chain(("web", "")), ["wbe"])
    assert caught.value.hint == 'did you mean "web"?'
    with pytest.raises(UsageError) as caught:
        spec.find(chain(("web", "")), "web/arm64")
    assert caught.value.hint == "did you mean web/amd64?"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=30))
def test_select_never_puts_a_child_before_its_parent(parents: list[int]) -> None:
    pairs = [(f"i{n}", f"i{parent % n}" if n and parent % 3 else "") for n, parent in enumerate(parents)]
    family = chain(*pairs)
    order = [image.name for image in spec.select(family)]
    assert sorted(order) == sorted(family.images)
    for image in family.images.values():
        assert not image.layered or order.index(image.base) < order.index(image.name)
