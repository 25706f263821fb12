"""Who is asking: the bearer's JWT, or the token of a signed URL."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from local.storage_emulator import errors


@dataclass(frozen=True)
class Caller:
    """The database role that a request acts as, and the claims that policies may read."""

    role: str
    claims: Mapping[str, Any]

    @property
    def subject(self) -> str | None:
        """Id of the signed-in user, if it is one."""
        return self.claims.get("sub")

    @property
    def claims_json(self) -> str:
        """The claims as Postgres gets to see them."""
        return json.dumps(self.claims)


#: What the server does in its own name.
SERVER = Caller("supabase_storage_admin", {})
#: As whom the holder of a signed upload URL acts.
SERVICE_ROLE = Caller("service_role", {})


def authenticate(authorization: str | None, secret: str) -> Caller:
    """Return the caller that an Authorization header stands for.

    Raises
    ------
    StorageError
        The header is missing, or its token isn't one of this project's.
    """
    if authorization is None:
        raise errors.invalid_request("headers must have required property 'authorization'")
    claims = verify(authorization.removeprefix("Bearer ").strip(), secret)
    return Caller(claims.get("role") or "anon", claims)


def verify(token: str, secret: str) -> dict[str, Any]:
    """Return the claims of a token.

    Raises
    ------
    StorageError
        The token isn't a JWT, is signed with another secret, or is expired.
    """
    try:
        claims: dict[str, Any] = jwt.decode(token, secret, algorithms=["HS256"], options={"verify_aud": False})
    except jwt.ExpiredSignatureError:
        raise errors.unauthorized('"exp" claim timestamp check failed') from None
    except jwt.InvalidSignatureError:
        raise errors.unauthorized("signature verification failed") from None
    except jwt.InvalidTokenError:
        raise errors.unauthorized("Invalid Compact JWS") from None
    return claims


def sign(claims: Mapping[str, Any], secret: str, *, lifetime: int) -> str:
    """Return a token that expires ``lifetime`` seconds from now."""
    return jwt.encode({**claims, "exp": int(time.time()) + lifetime}, secret, algorithm="HS256")
