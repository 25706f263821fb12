"""The service-role key and the database's URL: what can be none, and whom they belong to."""

from datetime import timedelta

import pytest

from storage_cleanup.config.credentials import key_faults
from tests.unit.config.reading import NOW, faults, only_fault, read_tree
from tests.unit.examples import OTHER_REF, PARAMETERS, REF, jwt

LATER, EARLIER = NOW + timedelta(days=1), NOW - timedelta(seconds=1)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://me:pw@db.example.com:5432/postgres?sslmode=require",
        "postgres://me@localhost/postgres",
        "postgresql://postgres:@/postgres?host=/run/sockets",
        "postgresql://%2Frun%2Fsockets/postgres?user=me",
    ],
)
def test_a_database_url_has_a_host_and_a_user(value: str) -> None:
    assert read_tree({**PARAMETERS, "database/url": value}).database_url.get_secret_value() == value


@pytest.mark.parametrize(
    "value",
    [
        "mysql://me:hushhush@db/x",
        "host=db user=me password=hushhush",
        "postgresql://:hushhush@db/x",
        "postgresql://me:hushhush@/x",
        "postgresql://me:hushhush@db:port/x",
        "postgresql://me:hushhush@[db/x",
        "postgresql://me:hushhush@a,b/x",
        "postgresql://me:hushhush@db/x\n",
    ],
)
def test_other_database_urls_are_refused_and_not_shown(value: str) -> None:
    assert "hushhush" not in only_fault("database/url", value)


@pytest.mark.parametrize("key", ["sb_publishable_hushhush", "sb_secret_hush hush", "sb_secret_hushhush\n", "hushhüsh"])
def test_what_cannot_be_a_secret_key_is_refused_and_not_shown(key: str) -> None:
    assert "hush" not in only_fault("supabase/service-role-key", key)


@pytest.mark.parametrize(
    "key", ["eyJhushhush", "eyJa.eyJhushhush.c", "eyJa.W10.hushhush", "eyJa." + "W1tb" * 1500 + ".c"]
)
def test_a_damaged_jwt_is_refused_and_not_shown(key: str) -> None:
    assert "damaged" in (fault := only_fault("supabase/service-role-key", key))
    assert "hush" not in fault


def test_a_service_role_jwt_of_this_project_is_accepted() -> None:
    key = jwt(role="service_role", ref=REF, exp=LATER.timestamp())
    assert read_tree({**PARAMETERS, "supabase/service-role-key": key}).service_role_key.get_secret_value() == key


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        (jwt(role="anon"), "role claim is 'anon'"),
        (jwt(), "role claim is None"),
        (jwt(role="service_role", exp=EARLIER.timestamp()), "expired"),
        (jwt(role="service_role", exp=NOW.timestamp()), "expired"),
        (jwt(role="service_role", exp=float("nan")), "expired"),
        (jwt(role="service_role", exp="tomorrow"), "no number"),
        (jwt(role="service_role", exp=True), "no number"),
    ],
)
def test_a_jwt_tells_that_it_is_the_wrong_one(key: str, fault: str) -> None:
    assert fault in only_fault("supabase/service-role-key", key)


def test_a_jwt_whose_project_is_no_text_names_none() -> None:
    read_tree({**PARAMETERS, "supabase/service-role-key": jwt(role="service_role", ref=5)})


@pytest.mark.parametrize("key", ["sb_secret_x", jwt(role="service_role"), jwt(role="service_role", exp=1e400)])
def test_a_key_that_says_nothing_against_itself_has_no_faults(key: str) -> None:
    assert key_faults(key, NOW) == []


POOLER = "aws-0-eu-central-1.pooler.supabase.com:6543"


@pytest.mark.parametrize(
    "database",
    [
        f"postgresql://postgres:pw@db.{OTHER_REF}.supabase.co:5432/postgres",
        f"postgresql://postgres:pw@DB.{OTHER_REF}.supabase.co/postgres",
        f"postgresql://postgres.{OTHER_REF}:pw@{POOLER}/postgres",
        f"postgresql://worker.{OTHER_REF}:pw@{POOLER}/postgres",
        f"postgresql://my.worker.{OTHER_REF}:pw@{POOLER}/postgres",
        f"postgresql://worker%2E{OTHER_REF}:pw@{POOLER}/postgres",
        f"postgresql://postgres.{REF}:pw@{POOLER}/postgres?user=postgres.{OTHER_REF}",
        f"postgresql://postgres:pw@db.{REF}.supabase.co/postgres?host=DB.{OTHER_REF}.supabase.co",
        f"postgresql://worker.{OTHER_REF}:pw@proxy.example.com/postgres",
    ],
)
def test_the_database_of_another_project_is_refused(database: str) -> None:
    (fault,) = faults({"database/url": database})
    assert f"supabase/url names '{REF}', database/url names '{OTHER_REF}'" in fault


@pytest.mark.parametrize(
    "database",
    [
        f"postgresql://postgres:pw@db.{REF}.supabase.co:5432/postgres",
        f"postgresql://postgres.{REF}:pw@{POOLER}/postgres",
        "postgresql://first.last:pw@proxy.example.com/postgres",
    ],
)
def test_a_database_that_names_this_project_or_none_is_accepted(database: str) -> None:
    read_tree({**PARAMETERS, "database/url": database})


def test_the_key_of_another_project_is_refused() -> None:
    (fault,) = faults({"supabase/service-role-key": jwt(role="service_role", ref=OTHER_REF)})
    assert f"supabase/service-role-key names '{OTHER_REF}'" in fault


def test_key_and_database_are_compared_behind_a_custom_domain_too() -> None:
    (fault,) = faults(
        {
            "supabase/url": "https://storage.example.com",
            "supabase/service-role-key": jwt(role="service_role", ref=OTHER_REF),
        }
    )
    assert f"database/url names '{REF}'" in fault
