"""Refusals of this app.

Denied
  RoleRequired    the role does not reach
  ScopeRequired   the token's scope does not reach
"""

from apps.common.errors import Denied


class RoleRequired(Denied):
    """Your role does not allow this."""


class ScopeRequired(Denied):
    """The token's scope does not allow this."""
