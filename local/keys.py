"""Keys as a Supabase project hands them out: JWTs of a role, signed with the project's secret."""

import time
from dataclasses import dataclass
from uuid import uuid4

import jwt

JWT_SECRET = "a-secret-of-the-embedded-stack-that-guards-nothing"  # noqa: S105


@dataclass(frozen=True)
class Keys:
    """The keys of a project, good and bad ones.

    Parameters
    ----------
    secret
        What the project signs its keys with.
    """

    secret: str = JWT_SECRET

    @property
    def service_role(self) -> str:
        """The key that may do everything."""
        return mint(self.secret, role="service_role")

    @property
    def anon(self) -> str:
        """The key that browsers carry."""
        return mint(self.secret, role="anon")

    @property
    def expired(self) -> str:
        """A service key whose time is over."""
        return mint(self.secret, role="service_role", lifetime=-3600)

    @property
    def foreign(self) -> str:
        """A service key of another project."""
        return mint(self.secret + "-of-another-project", role="service_role")

    @property
    def without_role(self) -> str:
        """A key that names no role."""
        return mint(self.secret)

    def authenticated(self, subject: str | None = None) -> str:
        """Return the key of a signed-in user, by default of one whom nobody knows."""
        return mint(self.secret, role="authenticated", subject=subject or str(uuid4()))


def mint(
    secret: str, *, role: str | None = None, subject: str | None = None, lifetime: float = 10 * 365 * 86400
) -> str:
    """Return a signed JWT that expires ``lifetime`` seconds from now."""
    now = int(time.time())
    claims: dict[str, object] = {"iss": "supabase", "iat": now - 7200, "exp": now + int(lifetime)}
    if role:
        claims["role"] = role
    if subject:
        claims["sub"] = subject
    return jwt.encode(claims, secret, algorithm="HS256")
