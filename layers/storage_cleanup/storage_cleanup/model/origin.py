"""Where this project is: what counts as its own origin, and as this machine."""

from ipaddress import ip_address
from typing import Final

DEFAULT_PORTS: Final = {"http": "80", "https": "443"}
"""By the schemes that a URL may have."""


def normal_origin(scheme: str, authority: str) -> str:
    """Return ``scheme://host[:port]`` in lower case and without the scheme's default port."""
    scheme, authority = scheme.lower(), authority.lower()
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:  # no port; the colons of an IPv6 address stand in brackets
        return f"{scheme}://{authority}"
    return f"{scheme}://{host}" if port in {"", DEFAULT_PORTS.get(scheme)} else f"{scheme}://{authority}"


def project_ref(origin: str) -> str | None:
    """Return ``abc`` for ``https://abc.supabase.co``, and None for any other origin."""
    ref, _, domain = origin.removeprefix("https://").partition(".")
    return ref if origin.startswith("https://") and domain == "supabase.co" else None


def own_origins(origin: str) -> tuple[str, ...]:
    """Return every origin that the project at ``origin`` answers at: Supabase serves Storage at a host of its own, too.

    Examples
    --------
    >>> own_origins("https://abc.supabase.co")
    ('https://abc.supabase.co', 'https://abc.storage.supabase.co')
    """
    ref = project_ref(origin)
    return (origin,) if ref is None else (origin, f"https://{ref}.storage.supabase.co")


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine (a socket directory counts)."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
