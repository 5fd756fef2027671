"""What can go wrong with a run.

PolarError
  Conflict
    NotDeadLetter      the action is for dead letters
  Invalid
    BadSchedule        the expression or its time zone cannot be read
  NotFound
    NoHandler          no code of this install carries runs of this kind
  Unavailable
    QueueFull          work that can wait is refused while the queue is too long
"""

from apps.common.errors import Conflict, Invalid, NotFound, Unavailable


class NotDeadLetter(Conflict):
    """Only a dead letter can be retried, requeued or dismissed."""

    code = "POLAR_RUN_NOT_DEAD_LETTER"


class BadSchedule(Invalid):
    """The schedule's expression or time zone cannot be read."""


class NoHandler(NotFound):
    """No code of this install carries runs of this kind."""

    code = "POLAR_RUN_KIND_UNKNOWN"


class QueueFull(Unavailable):
    """The queue is too long for work that can wait; ask again later."""

    code = "POLAR_QUEUE_FULL"
    retry_after_seconds = 30
