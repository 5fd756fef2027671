"""The tables of runs: runs, schedules, processes."""

from apps.runs.models.process import (
    ClockLease as ClockLease,
)
from apps.runs.models.process import (
    WorkerBeat as WorkerBeat,
)
from apps.runs.models.run import (
    CANCELLABLE as CANCELLABLE,
)
from apps.runs.models.run import (
    FINISHED as FINISHED,
)
from apps.runs.models.run import (
    LIFECYCLE as LIFECYCLE,
)
from apps.runs.models.run import (
    LONGEST_LEASE as LONGEST_LEASE,
)
from apps.runs.models.run import (
    SETTLED as SETTLED,
)
from apps.runs.models.run import (
    UNSETTLED as UNSETTLED,
)
from apps.runs.models.run import (
    WAITING as WAITING,
)
from apps.runs.models.run import (
    Reason as Reason,
)
from apps.runs.models.run import (
    Run as Run,
)
from apps.runs.models.run import (
    RunQuerySet as RunQuerySet,
)
from apps.runs.models.run import (
    State as State,
)
from apps.runs.models.run import (
    Trigger as Trigger,
)
from apps.runs.models.schedule import (
    PROPOSAL_LIFECYCLE as PROPOSAL_LIFECYCLE,
)
from apps.runs.models.schedule import (
    SCHEDULE_LIFECYCLE as SCHEDULE_LIFECYCLE,
)
from apps.runs.models.schedule import (
    CatchUp as CatchUp,
)
from apps.runs.models.schedule import (
    DeliveryDay as DeliveryDay,
)
from apps.runs.models.schedule import (
    Overlap as Overlap,
)
from apps.runs.models.schedule import (
    Proposal as Proposal,
)
from apps.runs.models.schedule import (
    ProposalState as ProposalState,
)
from apps.runs.models.schedule import (
    Schedule as Schedule,
)
from apps.runs.models.schedule import (
    ScheduleKind as ScheduleKind,
)
from apps.runs.models.schedule import (
    ScheduleQuerySet as ScheduleQuerySet,
)
from apps.runs.models.schedule import (
    ScheduleState as ScheduleState,
)
from apps.runs.models.schedule import (
    Slot as Slot,
)
from apps.runs.models.schedule import (
    SlotState as SlotState,
)
