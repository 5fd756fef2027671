"""Refusals of this app.

Denied
  RoleRequired    the role does not reach
  ScopeRequired   the token's scope does not reach
  SignOnRefused   whoever came back from the identity provider does not enter
UpstreamError
  SignOnAway      the identity provider does not answer as it should
"""

from apps.common.errors import Denied, UpstreamError


class RoleRequired(Denied):
    """Your role does not allow this."""


class ScopeRequired(Denied):
    """The token's scope does not allow this."""


class SignOnRefused(Denied):
    """This sign-on does not lead in."""

    @property
    def reason(self) -> str:
        """Why, for the record; strangers are told less."""
        return str(self.facts.get("reason", ""))


class SignOnAway(UpstreamError):
    """The identity provider does not answer: try again, or use a password."""
