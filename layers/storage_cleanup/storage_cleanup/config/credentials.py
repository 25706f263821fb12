"""The service-role key and the database's URL: how they are read, and what they tell of whom they belong to.

No message shows either of them.
"""

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from storage_cleanup.events.wording import shown
from storage_cleanup.model.origin import project_ref

_REF = re.compile(r"[a-z0-9]{20}")
_POOLER = ".pooler.supabase.com"


def service_role_key(value: str) -> str:
    """Read a key; raise ValueError with why it can be none."""
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("it is empty, or has white space or a character that no key has")
    if value.startswith("sb_publishable_"):
        raise ValueError("a publishable key may delete nothing")
    if _is_jwt(value) and _claims(value) is None:
        raise ValueError("a damaged JWT")
    return value


def database_url(value: str) -> str:
    """Read a database's URL; raise ValueError with what is wrong."""
    if not value.isprintable() or " " in value:
        raise ValueError("it has a character that a URL can't have")
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("no postgresql:// URL")
    try:
        host, user = _host_and_user(value)
    except ValueError:
        # The original message may quote the URL, password and all.
        raise ValueError("it can't be read as a URL") from None
    if not host or "," in host:
        raise ValueError("it doesn't name one host")
    if not user:
        raise ValueError("it names no user")
    return value


def key_faults(key: str, now: datetime) -> list[str]:
    """Return why ``key`` can't be a service-role key at the time ``now`` (aware), as far as the key itself tells.

    Only a JWT tells; a ``sb_secret_…`` key has no faults here.
    """
    claims = _claims(key)
    if claims is None:
        return []
    name = "supabase/service-role-key"
    faults = []
    if (role := claims.get("role")) != "service_role":
        faults.append(f"{name}: its role claim is {shown(role)}; it accepts a key of the role service_role")
    if (expiry := claims.get("exp")) is not None:
        if isinstance(expiry, bool) or not isinstance(expiry, int | float):
            faults.append(f"{name}: its exp claim is no number; it accepts a key as Supabase issues it")
        elif not expiry > now.timestamp():
            faults.append(f"{name}: the key has expired; it accepts a key that is still valid")
    return faults


def project_faults(values: Mapping[str, Any]) -> list[str]:
    """Refuse URL, key and database of different projects, as a change leaves them that stopped half-way."""
    refs: dict[str, str] = {}
    if url := values.get("supabase/url"):
        refs["supabase/url"] = project_ref(url) or ""
    if key := values.get("supabase/service-role-key"):
        ref = (_claims(key) or {}).get("ref")
        refs["supabase/service-role-key"] = ref if isinstance(ref, str) else ""
    if database := values.get("database/url"):
        refs["database/url"] = _database_ref(database) or ""
    named = {name: ref for name, ref in refs.items() if ref}
    if len(set(named.values())) <= 1:
        return []
    who = ", ".join(f"{name} names {shown(ref)}" for name, ref in named.items())
    return [f"the parameters belong to different projects ({who}); they accept one and the same project"]


def _is_jwt(key: str) -> bool:
    return key.startswith("eyJ")  # base64 of '{"', with which every JWT begins


def _claims(key: str) -> dict[str, Any] | None:
    """Return the claims of a JWT, without checking its signature; None for any other key."""
    segments = key.split(".")
    if not _is_jwt(key) or len(segments) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(segments[1] + "=" * (-len(segments[1]) % 4)))
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None


def _host_and_user(url: str) -> tuple[str, str]:
    """Return host and user as libpq takes them: from the query, where it names them, else from the authority."""
    parts = urlsplit(url)
    _ = parts.port  # raises ValueError where it is no port
    query = dict(parse_qsl(parts.query))
    host = query.get("host") or unquote(parts.hostname or "")
    return host.lower(), query.get("user") or unquote(parts.username or "")


def _database_ref(url: str) -> str | None:
    """Return the project that a database URL names by its host or by the pooler's user, or None."""
    host, user = _host_and_user(url)
    if host.startswith("db.") and host.endswith(".supabase.co"):
        return host.removeprefix("db.").removesuffix(".supabase.co")
    _, dot, tenant = user.rpartition(".")
    return tenant if dot and (host.endswith(_POOLER) or _REF.fullmatch(tenant)) else None
