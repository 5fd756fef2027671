"""The tables of reliability."""

from apps.reliability.models.alerts import ALERT as ALERT
from apps.reliability.models.alerts import NOTICE as NOTICE
from apps.reliability.models.alerts import STANDING as STANDING
from apps.reliability.models.alerts import Alert as Alert
from apps.reliability.models.alerts import AlertCode as AlertCode
from apps.reliability.models.alerts import AlertOrigin as AlertOrigin
from apps.reliability.models.alerts import AlertState as AlertState
from apps.reliability.models.alerts import Level as Level
from apps.reliability.models.alerts import Notice as Notice
from apps.reliability.models.alerts import NoticeRoute as NoticeRoute
from apps.reliability.models.alerts import NoticeState as NoticeState
from apps.reliability.models.alerts import Silence as Silence
from apps.reliability.models.alerts import SloMark as SloMark
from apps.reliability.models.alerts import SloMinute as SloMinute
from apps.reliability.models.alerts import Webhook as Webhook
from apps.reliability.models.drills import DRILL_LIFECYCLE as DRILL_LIFECYCLE
from apps.reliability.models.drills import DrillMode as DrillMode
from apps.reliability.models.drills import DrillRun as DrillRun
from apps.reliability.models.drills import DrillState as DrillState
from apps.reliability.models.drills import DrillStep as DrillStep
from apps.reliability.models.incidents import INCIDENT as INCIDENT
from apps.reliability.models.incidents import UNDER_WAY as UNDER_WAY
from apps.reliability.models.incidents import Incident as Incident
from apps.reliability.models.incidents import IncidentQuerySet as IncidentQuerySet
from apps.reliability.models.incidents import IncidentState as IncidentState
from apps.reliability.models.incidents import Severity as Severity
from apps.reliability.models.incidents import StepResult as StepResult
from apps.reliability.models.store import (
    ROLLBACK_LIFECYCLE as ROLLBACK_LIFECYCLE,
)
from apps.reliability.models.store import (
    Recovery as Recovery,
)
from apps.reliability.models.store import (
    RecoveryKind as RecoveryKind,
)
from apps.reliability.models.store import (
    Rollback as Rollback,
)
from apps.reliability.models.store import (
    RollbackState as RollbackState,
)
