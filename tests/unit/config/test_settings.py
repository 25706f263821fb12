"""The parameters: read as a whole, strictly, and refused with every fault at once."""

from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_cleanup.config.parameters import DEFAULTS, OWN
from storage_cleanup.config.parameters import PARAMETERS as TABLE
from storage_cleanup.config.settings import Settings
from storage_cleanup.errors import ConfigurationError, NotConfiguredYetError
from storage_cleanup.model.vocabulary import Phase, Profile
from tests.unit.config.reading import NOW, faults, only_fault, read, read_tree
from tests.unit.examples import PARAMETERS, REF


def test_the_defaults_of_the_design_are_read() -> None:
    found = read()
    assert found.profile is Profile.PRODUCTION
    assert (found.testing.interval_minutes, found.testing.max_age_minutes) == (3, 3)
    assert found.enabled
    assert not found.dry_run
    assert found.phases == frozenset(Phase)
    assert found.buckets == ("images", "videos")
    assert found.temp_directories == (Path("/tmp"),)
    assert found.temp_prefixes == ("storage-", "mat-debug-")
    assert found.max_deletions_per_run == 10000
    assert (found.max_saved_drop_percent, found.max_failure_percent) == (20, 10)
    assert found.supabase_url == f"https://{REF}.supabase.co"
    assert found.database_url.get_secret_value() == PARAMETERS["database/url"]


@pytest.mark.parametrize(("profile", "minutes"), [("testing", 3), ("production", 60)])
def test_the_profile_chooses_interval_and_age(profile: str, minutes: int) -> None:
    active = read(profile=profile).active
    assert (active.interval_minutes, active.max_age_minutes) == (minutes, minutes)


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_is_switched_by_its_parameter(phase: Phase) -> None:
    name = f"phases/{phase.value.replace('_', '-')}"
    assert read_tree({**PARAMETERS, name: "false"}).phases == frozenset(Phase) - {phase}


@pytest.mark.parametrize(
    ("value", "references"),
    [
        ("public.user_assets", ()),
        ("public.user_assets, public.posts.cover", ("public.posts.cover",)),
        ('public.posts.cover,blog."Cover Pages".image', ("public.posts.cover", 'blog."Cover Pages".image')),
    ],
)
def test_references_are_the_assets_and_columns_of_other_tables(value: str, references: tuple[str, ...]) -> None:
    assert read(references=value).references == references


@pytest.mark.parametrize(("ownership", "owners_only"), [("required", True), ("off", False)])
def test_ownership_is_required_or_off(ownership: str, owners_only: bool) -> None:
    assert read(ownership=ownership).owners_only is owners_only


@pytest.mark.parametrize(("dependents", "keep_dependents"), [("keep", True), ("delete", False)])
def test_dependents_keep_their_job_or_go_with_it(dependents: str, keep_dependents: bool) -> None:
    assert read(dependents=dependents).keep_dependents is keep_dependents


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        read().enabled = False  # type: ignore[misc]


def test_secrets_are_masked() -> None:
    assert "hushhush" not in repr(read()) + str(read())


@pytest.mark.parametrize("name", sorted(DEFAULTS.keys() - {"enabled", "dry-run"}))
def test_an_absent_parameter_means_its_default(name: str) -> None:
    tree = {key: value for key, value in PARAMETERS.items() if key != name}
    assert read_tree(tree) == read_tree({**tree, name: DEFAULTS[name]})


def test_without_enabled_nothing_is_deleted_and_its_path_is_named() -> None:
    found = Settings.from_parameters(_without("enabled"), path="/storage-cleanup/testing/")
    assert not found.enabled
    assert found.switched_off == {"enabled": "/storage-cleanup/testing/enabled is absent"}


def test_without_dry_run_cycles_are_dry_and_its_path_is_named() -> None:
    found = Settings.from_parameters(_without("dry-run"), path="/storage-cleanup/testing")
    assert found.dry_run
    assert found.switched_off == {"dry-run": "/storage-cleanup/testing/dry-run is absent"}


def test_what_is_switched_off_says_so() -> None:
    assert read(enabled="False").switched_off == {"enabled": "enabled is false"}
    assert read_tree({**PARAMETERS, "dry-run": "true"}).switched_off == {"dry-run": "dry-run is true"}
    assert read().switched_off == {}


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_only_its_owner_knows_is_required(name: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_tree(_without(name))
    assert [fault for fault in refusal.value.faults if fault.startswith(f"{name} is missing; it accepts")]
    assert not isinstance(refusal.value, NotConfiguredYetError)


def test_a_new_stage_waits_for_what_only_its_owner_knows() -> None:
    with pytest.raises(NotConfiguredYetError, match="not configured yet: put database/url, supabase/"):
        read_tree({**_without(*OWN), "setup/begun": _hours_ago(23.9)})


@pytest.mark.parametrize(
    "setup",
    [
        {},
        {"setup/begun": "soon"},
        {"setup/begun": "2026-01-01"},
        {"setup/begun": (NOW + timedelta(minutes=1)).isoformat()},
        {"setup/begun": (NOW - timedelta(hours=24)).isoformat()},
        {"setup/begun": (NOW - timedelta(hours=1)).isoformat(), "setup/done": NOW.isoformat()},
        {"setup/begun": (NOW - timedelta(hours=1)).isoformat(), "supabase/url": PARAMETERS["supabase/url"]},
    ],
    ids=["never-noted", "nonsense", "without-zone", "in-the-future", "a-day-ago", "was-set-up", "half"],
)
def test_otherwise_missing_secrets_are_a_fault(setup: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_tree({**_without(*OWN), **setup})
    assert not isinstance(refusal.value, NotConfiguredYetError)
    assert any(fault.startswith("database/url is missing") for fault in refusal.value.faults)


def test_a_new_stage_with_another_fault_does_not_wait() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_tree({**_without(*OWN), "setup/begun": _hours_ago(1), "profile": "live"})
    assert [fault.split()[0] for fault in refusal.value.faults] == ["profile"]


def test_notes_of_the_system_are_no_unknown_parameters() -> None:
    assert read_tree({**PARAMETERS, "setup/begun": _hours_ago(1), "setup/done": _hours_ago(0)}).unknown == ()


@pytest.mark.parametrize("name", ["limits/max-retries", "quarantine/prefix", "enabledx", "profil"])
def test_an_unknown_parameter_is_told_and_stops_nothing(name: str) -> None:
    (sentence,) = read_tree({**PARAMETERS, name: "1"}).unknown
    assert sentence.startswith(f"'{name}' is no parameter")


@pytest.mark.parametrize("name", ["enabl", "enabledxx", "enbaled", "Enabled"])
def test_a_name_within_two_edits_of_one_that_is_not_set_is_a_fault(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"'{name}' is no parameter; did you mean enabled"):
        read_tree({**_without("enabled"), name: "true"})


@pytest.mark.parametrize("name", ["enab", "enabledxxx", "edebaln"])
def test_a_name_of_three_edits_is_another(name: str) -> None:
    assert len(read_tree({**_without("enabled"), name: "true"}).unknown) == 1


def _without(*names: str) -> dict[str, str]:
    return {name: value for name, value in PARAMETERS.items() if name not in names}


def _hours_ago(hours: float) -> str:
    return (NOW - timedelta(hours=hours)).isoformat()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_misspelt_parameter_is_recognised(name: str) -> None:
    tree = dict(PARAMETERS)
    tree[name + "x"] = tree.pop(name)
    with pytest.raises(ConfigurationError) as refusal:
        read_tree(tree)
    assert f"'{name}x' is no parameter; did you mean {name}?" in refusal.value.faults


@pytest.mark.parametrize("name", PARAMETERS)
def test_no_parameter_accepts_nothing(name: str) -> None:
    assert [fault for fault in faults({name: ""}) if fault.startswith(name)]


def test_every_fault_is_named_at_once() -> None:
    found = faults({"profile": "live", "testing/max-age-minutes": "-3", "buckets": "a,,b"})
    assert [fault.split(" ", maxsplit=1)[0] for fault in found] == [
        "profile",
        "testing/max-age-minutes",
        "buckets",
    ]


def test_a_fault_shows_the_value_and_what_is_accepted() -> None:
    assert only_fault("testing/max-age-minutes", "soon") == (
        "testing/max-age-minutes is 'soon': no whole number in decimal digits; "
        "it accepts a whole number from 1 to 525600"
    )


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("profile", "live", "no such profile"),
        ("ownership", "Off", "no such choice"),
        ("dependents", "remove", "no such choice"),
        ("references", "posts.cover", "'posts.cover' is no schema.table.column"),
        ("references", "none", "'none' is no schema.table.column"),
        ("references", 'public.po"sts.cover', "'public.po\"sts.cover' is no schema.table.column"),
        ("references/ignored", "public.user_assets", "'public.user_assets' is no schema.table.column"),
        ("enabled", "on", "neither true nor false"),
        ("limits/max-failure-percent", "101", "out of range"),
        ("quarantine/retention-hours", "1", "quarantine isn't built yet, and deleting for good instead would be a lie"),
        ("buckets", "images,", "it has an empty item"),
        ("buckets", "images,images", "it names something twice"),
        ("buckets", "a/b", "'a/b' is no legal name of a bucket"),
        ("buckets", "s3", "'s3' is a word of Storage's own paths, which makes URLs ambiguous"),
        ("buckets", "sb_secret_x", "it looks like a key"),
        ("temp/directories", "tmp", "'tmp' is no absolute path"),
        (
            "temp/directories",
            "//tmp",
            "'//tmp' isn't normalised (no '.', no '..', no '//', no slash at its end)",
        ),
        ("temp/directories", "/etc", "'/etc' is a directory of the system"),
        ("temp/prefixes", "a/b", "'a/b' can't begin the name of a file"),
        ("temp/prefixes", "ab", "'ab' would match too much"),
        ("supabase/url", "https://a b.co", "it has a character that a URL can't have"),
        ("supabase/url", "https://[", "its host or port can't be read"),
        ("supabase/url", "https://example.com:0", "its host or port can't be read"),
        ("supabase/url", "https://example.com/x", "it has more than scheme, host and port"),
        ("supabase/url", "http://example.com", "it isn't https"),
        ("supabase/service-role-key", "sb secret", "it is empty, or has white space or a character that no key has"),
        ("supabase/service-role-key", "sb_publishable_x", "a publishable key may delete nothing"),
        ("supabase/service-role-key", "eyJx", "a damaged JWT"),
        ("database/url", "postgresql://me:pw@db /x", "it has a character that a URL can't have"),
        ("database/url", "mysql://me:pw@db/x", "no postgresql:// URL"),
        ("database/url", "postgresql://me:pw@db:port/x", "it can't be read as a URL"),
        ("database/url", "postgresql://me:pw@a,b/x", "it doesn't name one host"),
        ("database/url", "postgresql://db/x", "it names no user"),
    ],
)
def test_a_fault_says_what_is_wrong(name: str, value: str, problem: str) -> None:
    assert f": {problem}; it accepts {TABLE[name].accepts}" in only_fault(name, value)


NUMBERS = [name for name, value in PARAMETERS.items() if value.isdecimal()]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_decimal_digits(name: str) -> None:
    for value in ("1e3", "+5", "-1", " 5", "5 ", "5.0", "0x5", "\u0665", "\xb2", "1_0", "five", "9" * 5000):
        only_fault(name, value)


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("testing/interval-minutes", ["1", "10080"], ["0", "10081"]),
        ("production/interval-minutes", ["1", "10080"], ["0", "10081"]),
        ("testing/max-age-minutes", ["1", "525600"], ["0", "525601"]),
        ("production/max-age-minutes", ["1", "525600"], ["0", "525601"]),
        ("testing/unsaved-grace-minutes", ["0", "525600"], ["525601"]),
        ("production/unsaved-grace-minutes", ["0", "525600"], ["525601"]),
        ("limits/max-deletions-per-run", ["1", "10000000", "1".zfill(12)], ["0", "10000001"]),
        ("limits/max-saved-drop-percent", ["0", "100"], ["101"]),
        ("limits/max-failure-percent", ["0", "100"], ["101"]),
    ],
)
def test_numbers_have_a_range(name: str, accepted: list[str], refused: list[str]) -> None:
    for value in accepted:
        read_tree({**PARAMETERS, name: value})
    for value in refused:
        assert "out of range" in only_fault(name, value)


SWITCHES = [name for name, value in PARAMETERS.items() if value in {"true", "false"}]


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_accept_true_and_false_in_any_case(name: str) -> None:
    for value in ("true", "TRUE", "False"):
        read_tree({**PARAMETERS, name: value})


@pytest.mark.parametrize("name", SWITCHES)
def test_switches_accept_nothing_else(name: str) -> None:
    for value in ("yes", "1", "on", "true ", "tru\u0435", "tru", "t"):
        only_fault(name, value)


@pytest.mark.parametrize("value", ["Testing", "prod", "testing,production"])
def test_there_are_two_profiles(value: str) -> None:
    only_fault("profile", value)


@pytest.mark.parametrize(("name", "value"), [("buckets", "x" * 100), ("temp/prefixes", "abc")])
def test_names_as_long_or_short_as_allowed_are_accepted(name: str, value: str) -> None:
    read_tree({**PARAMETERS, name: value})


def test_items_of_lists_are_trimmed() -> None:
    assert read(buckets=" images , my videos ").buckets == ("images", "my videos")


@pytest.mark.parametrize("name", ["buckets", "temp/directories", "temp/prefixes"])
@pytest.mark.parametrize("value", [",", "/tmp,", ",/tmp", " , "])
def test_lists_have_no_empty_items(name: str, value: str) -> None:
    assert "empty item" in only_fault(name, value)


@pytest.mark.parametrize(
    ("name", "value"), [("buckets", "a,b,a"), ("temp/directories", "/tmp, /tmp"), ("temp/prefixes", "abc,abc")]
)
def test_lists_name_nothing_twice(name: str, value: str) -> None:
    assert "twice" in only_fault(name, value)


@pytest.mark.parametrize("value", ["a/b", ".", "..", "bücher", "a%20b", "a\x00", "x" * 101])
def test_buckets_have_legal_names(value: str) -> None:
    only_fault("buckets", f"images,{value}")


@pytest.mark.parametrize(
    "word", ["public", "sign", "authenticated", "info", "upload", "list", "list-v2", "move", "copy", "render", "s3"]
)
def test_words_of_storages_paths_are_no_buckets(word: str) -> None:
    assert f"'{word}'" in only_fault("buckets", f"images,{word}")


def test_our_own_bucket_is_none_to_clean() -> None:
    assert "'storage-cleanup' is this system's own bucket" in only_fault("buckets", "images,storage-cleanup")


@pytest.mark.parametrize("value", ["/tmp", "/mnt/renders", "/var/tmp", "/data"])
def test_temporary_directories_are_accepted(value: str) -> None:
    assert read_tree({**PARAMETERS, "temp/directories": value}).temp_directories == (Path(value),)


@pytest.mark.parametrize(
    "value",
    [
        "tmp",
        "./tmp",
        "/tmp/",
        "/tmp/../etc",
        "/tmp/.",
        "//tmp",
        "/tmp//x",
        "/tmp/\x00",
        "~",
        "/",
        "/etc",
        "/etc/ssh",
        "/usr",
        "/usr/lib/x",
        "/var",
        "/home",
        "/root",
        "/proc",
        "/proc/1",
        "/mnt",
    ],
)
def test_other_directories_are_refused(value: str) -> None:
    only_fault("temp/directories", f"/tmp/a,{value}")


@pytest.mark.parametrize("value", ["a", "ab", "...", "....", "a/b", "ab\x00c"])
def test_prefixes_match_neither_too_much_nor_nothing(value: str) -> None:
    only_fault("temp/prefixes", f"storage-,{value}")


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("https://Example.COM/", "https://example.com"),
        ("https://example.com:443", "https://example.com"),
        ("https://example.com:8443", "https://example.com:8443"),
        ("http://localhost:54321", "http://localhost:54321"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_the_url_becomes_an_origin(value: str, origin: str) -> None:
    assert read_tree({**PARAMETERS, "supabase/url": value}).supabase_url == origin


@pytest.mark.parametrize(
    "value",
    [
        "http://example.com",
        "ftp://example.com",
        "example.com",
        "https://",
        "https:///x",
        "https://a b.co",
        "https://[",
        "https://example.com/rest",
        "https://example.com?x",
        "https://example.com#x",
        "https://example.com:port",
        "https://example.com:0",
        "https://a..b",
        "https://a\\b",
        "https://exämple.com",
        "https://example.com\n",
        "::",
    ],
)
def test_other_urls_are_refused(value: str) -> None:
    only_fault("supabase/url", value)


def test_a_password_in_the_url_is_refused_and_not_shown() -> None:
    assert "hushhush" not in only_fault("supabase/url", "https://me:hushhush@example.com")


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "supabase/service-role-key"])
@pytest.mark.parametrize("key", ["sb_secret_hushhush", "eyJhushhush"])
def test_a_key_pasted_into_the_wrong_parameter_is_refused_and_not_shown(name: str, key: str) -> None:
    for value in (key, f"{key},,", f"images,{key}"):
        assert "hushhush" not in " ".join(faults({name: value}))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(PARAMETERS)), st.text(max_size=60) | st.from_regex(r"https?://\S*|postgres(ql)?://\S*"))
def test_whatever_a_parameter_holds_it_is_read_or_refused_by_name(name: str, value: str) -> None:
    try:
        read_tree({**PARAMETERS, name: value})
    except ConfigurationError as refusal:
        unnamed = [fault for fault in refusal.faults if name not in fault]
    else:
        unnamed = []
    assert unnamed == []


@pytest.mark.parametrize(
    ("path", "name"),
    [("", "enabled"), ("/storage-cleanup/testing", "/storage-cleanup/testing/enabled"), ("/a/b/", "/a/b/enabled")],
)
def test_a_switch_that_is_absent_is_named_as_it_has_to_be_put(path: str, name: str) -> None:
    assert Settings.from_parameters(_without("enabled"), path=path, now=NOW).absent == {"enabled": name}


def test_a_stage_waits_for_its_secrets_from_its_first_moment_on() -> None:
    with pytest.raises(NotConfiguredYetError):
        read_tree({**_without(*OWN), "setup/begun": NOW.isoformat()})


def test_the_first_hours_are_counted_from_now() -> None:
    with pytest.raises(NotConfiguredYetError):
        Settings.from_parameters({**_without(*OWN), "setup/begun": datetime.now(UTC).isoformat()})
