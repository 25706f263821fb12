"""Which object a URL means, and why another is left alone."""

import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage_cleanup.model.reasons import Reason
from storage_cleanup.storage.paths import LEGAL_IN_NAMES, SHAPES, Refusal, StorageObject, parse_storage_url

ORIGIN = "https://abc.supabase.co"
BUCKETS = frozenset({"images", "videos", "my files"})
EVERY_SHAPE = [
    "object/public/{}",
    "object/sign/{}?token=eyJ.a/b.c",
    "object/authenticated/{}",
    "object/{}",
    "object/info/{}",
    "object/info/public/{}",
    "object/info/authenticated/{}",
    "object/upload/sign/{}?token=x",
    "render/image/public/{}?width=100&height=1",
    "render/image/sign/{}?token=x",
    "render/image/authenticated/{}",
    "s3/{}",
]


def parse(url: object, origin: str = ORIGIN) -> StorageObject | Refusal:
    return parse_storage_url(url, origin=origin, buckets=BUCKETS)


def name_in(url: str) -> str:
    found = parse(url)
    assert isinstance(found, StorageObject), found
    return found.name


def reason(url: object, origin: str = ORIGIN) -> Reason:
    found = parse(url, origin)
    assert isinstance(found, Refusal), found
    return found.reason


@pytest.mark.parametrize("shape", EVERY_SHAPE)
@pytest.mark.parametrize(
    "start", [f"{ORIGIN}/storage/v1/", "//abc.supabase.co/storage/v1/", "/storage/v1/", "storage/v1/", "/", ""]
)
def test_every_shape_is_read_absolute_and_relative(shape: str, start: str) -> None:
    assert parse(start + shape.format("images/u/scene_1.png")) == StorageObject("images", "u/scene_1.png")


def test_the_key_is_bucket_and_name() -> None:
    assert StorageObject("images", "u/a.png").key == "images/u/a.png"


@pytest.mark.parametrize(
    "url",
    [
        "https://abc.supabase.co:443/storage/v1/object/images/a",
        "HTTPS://ABC.Supabase.CO/storage/v1/object/images/a",
        "https://abc.supabase.co:/storage/v1/object/images/a",
        "https://abc.storage.supabase.co/storage/v1/object/images/a",
        "https://abc.storage.supabase.co/storage/v1/s3/images/a",
    ],
)
def test_this_projects_host_is_recognised_however_it_is_written(url: str) -> None:
    assert parse(url) == StorageObject("images", "a")


@pytest.mark.parametrize("origin", ["http://localhost:54321", "http://[::1]:54321", "https://files.example.com"])
def test_a_self_hosted_origin_or_custom_domain_is_recognised(origin: str) -> None:
    assert parse(f"{origin}/storage/v1/object/images/a", origin) == StorageObject("images", "a")


@pytest.mark.parametrize(
    "start",
    [
        "https://xyz.supabase.co",
        "https://abc.supabase.co.evil.com",
        "https://evil.com/abc.supabase.co",
        "http://abc.supabase.co",
        "https://abc.supabase.co:8443",
        "https://abc.supabase.co:80",
        "https://abc.supabase.co.",
        "https://xyz.storage.supabase.co",
        "https://abc.supabase.co\\.evil.com",
        "https://abc.supabase.co%2F",
        "https://",
        "//evil.com",
        "//storage/v1",
    ],
)
def test_another_host_is_foreign(start: str) -> None:
    assert reason(f"{start}/storage/v1/object/images/a") is Reason.FOREIGN_HOST


def test_the_storage_host_belongs_to_projects_on_supabase_only() -> None:
    url = "https://files.storage.supabase.co/storage/v1/object/images/a"
    assert reason(url, "https://files.example.com") is Reason.FOREIGN_HOST


@pytest.mark.parametrize("user", ["me@", "me:pw@", "abc.supabase.co@", "@"])
def test_credentials_are_refused(user: str) -> None:
    assert reason(f"https://{user}abc.supabase.co/storage/v1/object/images/a") is Reason.CREDENTIALS


@pytest.mark.parametrize("url", [None, "", " ", "\n\t", "  \r\n"])
def test_nothing_is_empty(url: object) -> None:
    assert reason(url) is Reason.EMPTY


@pytest.mark.parametrize(
    "url",
    [
        3,
        b"/object/images/a",
        ["/object/images/a"],
        "data:image/png;base64,AAAA",
        "blob:https://abc.supabase.co/1",
        "s3://images/a",
        "javascript:alert(1)",
        "https:/abc.supabase.co/object/images/a",
        "https:object/images/a",
        "://",
    ],
)
def test_what_is_neither_text_nor_an_http_url_nor_a_path_is_no_url(url: object) -> None:
    assert reason(url) is Reason.NOT_A_URL


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/images/a.png",
        "/rest/v1/render_jobs",
        "/storage/v1",
        "/storage/v1/bucket/images",
        "/storage/v2/object/images/a",
        "/storage/v1//object/images/a",
        "/storage/v1/Object/images/a",
        "/storage/v1/object%2Fimages/a",
        "/object",
        "/storage/v1/../v1/object/images/a",
        "/storage/v1/storage/v1/object/images/a",
        "/render/images/a",
        "/object/list/images/a",
        "/object/list-v2/images/a",
        "/object/move/a",
        "/object/info/sign/images/a",
        "/object/upload/images/a",
        "/storage/v1/upload/resumable/images/a",
    ],
)
def test_other_paths_are_no_storage_paths(path: str) -> None:
    for url in (ORIGIN + path, path, path.removeprefix("/") + "?x"):
        assert reason(url) is Reason.NOT_A_STORAGE_PATH


@pytest.mark.parametrize("bucket", ["image", "images2", "Images", "..", ".", "", "%69mages2", "images%2Fu", "imäges"])
def test_a_bucket_that_is_not_listed_is_refused(bucket: str) -> None:
    assert reason(f"/object/sign/{bucket}/a?token=x") is Reason.UNLISTED_BUCKET


def test_a_word_of_storages_paths_is_no_bucket_even_if_it_were_listed() -> None:
    for url in ("/object/public/public/a", "/object/list/a", "/object/sign/%73ign/a"):
        assert isinstance(parse_storage_url(url, origin=ORIGIN, buckets={"public", "list", "sign"}), Refusal)


@pytest.mark.parametrize("spelling", ["storage-cleanup", "%73torage-cleanup"])
def test_our_own_bucket_is_none_even_if_it_were_listed(spelling: str) -> None:
    url = f"/object/public/{spelling}/canary/a"
    assert isinstance(parse_storage_url(url, origin=ORIGIN, buckets={"storage-cleanup"}), Refusal)


@pytest.mark.parametrize("path", ["images", "images/", "images?token=x", "images/?token=x", "images/#x"])
def test_a_bucket_alone_names_no_object(path: str) -> None:
    assert reason(f"/object/sign/{path}") is Reason.NO_OBJECT_NAME


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a%20b.png", "a b.png"),
        ("a b.png", "a b.png"),
        ("a+b.png", "a+b.png"),
        ("a%2Bb.png", "a+b.png"),
        ("q%3Fmark.png", "q?mark.png"),
        ("a%2Fb.png", "a/b.png"),
        ("a&=@;:,$!'(x)*.png", "a&=@;:,$!'(x)*.png"),
        ("/lead.png", "/lead.png"),
        ("a//b.png", "a//b.png"),
        ("trail/", "trail/"),
        ("x%20", "x "),
        ("a%2e%2e.png", "a...png"),
        ("...", "..."),
        ("storage/v1/object/public/images/b", "storage/v1/object/public/images/b"),
        ("http://x", "http://x"),
    ],
)
def test_a_name_is_decoded_once_and_otherwise_kept_literally(written: str, name: str) -> None:
    assert name_in(f"{ORIGIN}/storage/v1/object/sign/images/{written}?token=x") == name
    assert name_in(f"/object/sign/images/{written}?token=x") == name


def test_a_bucket_is_decoded_too() -> None:
    assert parse("/object/public/my%20files/a") == StorageObject("my files", "a")


def test_a_signed_name_may_hold_a_question_mark_because_the_server_does_not_encode_it() -> None:
    assert name_in("/object/sign/images/what?.png?token=abc") == "what?.png"


@pytest.mark.parametrize("url", ["/object/public/images/a?.png?token=x", "/object/sign/images/a.png?token=x?y=z"])
def test_a_second_question_mark_that_begins_no_token_is_refused(url: str) -> None:
    assert parse(url) == Refusal(Reason.TWO_QUERIES)


@pytest.mark.parametrize("tail", ["#x", "#x?y", "?", "#", "?x=/../y"])
def test_query_and_fragment_are_cut_at_the_first_mark(tail: str) -> None:
    assert name_in(f"/object/public/images/a.png{tail}") == "a.png"


@pytest.mark.parametrize(
    "url",
    [
        " /object/images/a",
        "\n/object/images/a\r\n",
        "/object/images/a\n",
        " /object/images/a?x ",
        "/object/images/a#x ",
    ],
)
def test_white_space_around_a_url_is_ignored(url: str) -> None:
    assert name_in(url) == "a"


@pytest.mark.parametrize("url", ["/object/images/x ", "/object/images/x \n", f"{ORIGIN}/storage/v1/object/images/x "])
def test_a_space_that_may_belong_to_the_name_is_refused(url: str) -> None:
    assert reason(url) is Reason.TRAILING_SPACE


def test_a_space_before_the_query_belongs_to_the_name() -> None:
    assert name_in("/object/sign/images/x ?token=y") == "x "


@pytest.mark.parametrize(
    "name",
    [
        "%252e",
        "a%",
        "a%zz",
        "a%2",
        "%25",
        "a%00b",
        "a\x00b",
        "a\\b",
        "a%5Cb",
        "a\tb",
        "a%0Ab",
        "a%7F",
        "ü.png",
        "%C3%BC",
        "%FF",
        "a\u2025b",
        "a\ud800b",
        *(f"a{character}b" for character in '"<>[]^{|}~`'),
    ],
)
def test_a_character_that_storage_does_not_allow_is_refused(name: str) -> None:
    assert reason(f"/object/public/images/{name}") is Reason.ILLEGAL_NAME


@pytest.mark.parametrize("name", ["..", ".", "a/../b", "a/./b", "%2e%2e/a", "a/.%2E", "..%2Fa", "%2e", "a/.."])
def test_dot_segments_are_refused_raw_and_encoded(name: str) -> None:
    assert reason(f"/object/public/images/{name}") is Reason.DOT_SEGMENT


def test_a_name_has_at_most_1024_characters() -> None:
    assert len(name_in("/object/images/" + "%20" * 1024 + "?x")) == 1024
    assert reason("/object/images/" + "a" * 1025) is Reason.TOO_LONG


@pytest.mark.parametrize(("length", "expected"), [(8192, Reason.FOREIGN_HOST), (8193, Reason.TOO_LONG)])
def test_a_url_over_8_kb_is_left_alone(length: int, expected: Reason) -> None:
    assert reason("https://elsewhere.example/".ljust(length, "a")) is expected


def test_a_no_break_space_is_part_of_the_url() -> None:
    assert reason("/object/images/a.png\u00a0") is Reason.ILLEGAL_NAME


@pytest.mark.parametrize(
    "unit", ["a", "%", "%41", "/", "./", "../", ":", "@", "?", "#", "//", " ", "\u00fc", "[", "object/"]
)
def test_a_megabyte_is_answered_at_once(unit: str) -> None:
    text = unit * (2**20 // len(unit))
    start = time.process_time()
    for url in (text, f"/object/public/images/{text}", f"https://{text}", f"{ORIGIN}/storage/v1/object/{text}"):
        parse(url)
    assert time.process_time() - start < 3


def test_every_reason_has_a_meaning() -> None:
    assert all(reason.meaning for reason in Reason)


def test_a_longer_prefix_comes_before_the_one_that_it_begins_with() -> None:
    for position, shape in enumerate(SHAPES):
        assert not any(later.startswith(shape) for later in SHAPES[position:] if later != shape)


def has_dot_segment(name: str) -> bool:
    return bool({".", ".."} & set(name.split("/")))


legal_names = st.text(st.sampled_from(sorted(LEGAL_IN_NAMES)), min_size=1, max_size=40).filter(
    lambda name: not has_dot_segment(name)
)


@settings(max_examples=300, deadline=None)
@given(legal_names, st.sampled_from(SHAPES), st.sampled_from(["", "/", "/storage/v1/", f"{ORIGIN}/storage/v1/"]))
def test_every_legal_name_survives_the_way_into_a_url_and_back(name: str, shape: str, start: str) -> None:
    written = quote(name, safe="/!.*'()&$@=;:+,-_")
    assert parse(f"{start}{shape}images/{written}?token=x") == StorageObject("images", name)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.sampled_from([*SHAPES, ORIGIN, "/", "images", "%2e", "%", "..", " ", "?", "//", "@"]) | st.text(max_size=3)
    )
)
def test_whatever_the_text_is_only_legal_names_in_listed_buckets_come_out(parts: list[str]) -> None:
    found = parse("".join(parts))
    if isinstance(found, StorageObject):
        assert found.bucket in BUCKETS
        assert LEGAL_IN_NAMES.issuperset(found.name)
        assert found.name
        assert not has_dot_segment(found.name)
