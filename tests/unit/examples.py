"""What several tests start from: a tree of parameters without a fault, and keys."""

import base64
import json
from collections.abc import Mapping
from types import MappingProxyType

REF = "abcdefghijklmnopqrst"
OTHER_REF = "zyxwvutsrqponmlkjihg"

PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "profile": "production",
        "testing/interval-minutes": "3",
        "testing/max-age-minutes": "3",
        "production/interval-minutes": "60",
        "production/max-age-minutes": "60",
        "enabled": "true",
        "dry-run": "false",
        "phases/temp-files": "true",
        "phases/storage-files": "true",
        "phases/render-jobs": "true",
        "buckets": "images,videos",
        "temp/directories": "/tmp",
        "temp/prefixes": "storage-,mat-debug-",
        "limits/max-deletions-per-run": "10000",
        "limits/max-saved-drop-percent": "20",
        "limits/max-failure-percent": "10",
        "quarantine/retention-hours": "0",
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
