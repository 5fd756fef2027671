"""What boards refuse.

Conflict
  VersionConflict    the task changed since it was read
"""

from apps.common.errors import Conflict


class VersionConflict(Conflict):
    """The task changed since you read it: read it again."""
