"""What boards refuse.

Conflict
  VersionConflict    the task changed since it was read
  BoardArchived      the board rests
  StillWorking       an agent works on this task already
"""

from apps.common.errors import Conflict


class VersionConflict(Conflict):
    """The task changed since you read it: read it again."""


class BoardArchived(Conflict):
    """This board is archived; bring it back before you write on it."""


class StillWorking(Conflict):
    """An agent works on this task already; its answer moves the task."""
