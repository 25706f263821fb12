"""What several tests start from: a tree of parameters without a fault, and keys."""

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType

from storage_cleanup.config.parameters import DEFAULTS

REF = "abcdefghijklmnopqrst"
OTHER_REF = "zyxwvutsrqponmlkjihg"

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        **DEFAULTS,
        "dry-run": "false",
        "supabase/url": f"https://{REF}.supabase.co",
        "supabase/service-role-key": "sb_secret_hushhush",
        "database/url": f"postgresql://worker.{REF}:hushhush@aws-0-eu-central-1.pooler.supabase.com:6543/postgres",
    }
)


def jwt(**claims: object) -> str:
    """Return an unsigned JWT with ``claims``."""
    return f"{_segment({'alg': 'HS256', 'typ': 'JWT'})}.{_segment(claims)}.hushhush"


def _segment(part: dict[str, object]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part, separators=(",", ":")).encode()).rstrip(b"=").decode()
