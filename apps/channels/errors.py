"""What channels refuse.

PolarError
  Unavailable
    AccountPaused   503
"""

from apps.common.errors import Unavailable


class AccountPaused(Unavailable):
    """This channel is paused; nothing was sent and nothing was kept."""

    code = "POLAR_CHANNEL_PAUSED"
