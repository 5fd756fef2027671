"""Runs, schedules and workers on the desk."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString

from apps.access import services as access
from apps.access.models import User
from apps.common.admin import ReadOnlyAdmin, reason_of, state_badge
from apps.common.errors import PolarError
from apps.runs import services
from apps.runs.models import (
    ClockLease,
    DeliveryDay,
    Proposal,
    Run,
    Schedule,
    ScheduleState,
    Slot,
    WorkerBeat,
)


class SteeredAdmin(ReadOnlyAdmin):
    """Rows that only machinery writes, with verbs that call services."""

    actions: Any = ()

    def has_steer_permission(self, request: HttpRequest) -> bool:
        """The services check the role; here only whether a verb is offered."""
        name = f"{self.opts.app_label}.change_{self.opts.model_name}"
        return request.user.has_perm(name)

    def each(self, request: HttpRequest, rows: QuerySet[Any], verb: Any) -> None:
        """Call `verb(principal, row)` for each row and say how it went."""
        if not isinstance(request.user, User):
            return
        principal, done = access.principal_for_user(user=request.user), 0
        for row in rows:
            try:
                verb(principal, row)
                done += 1
            except PolarError as error:
                messages.error(request, f"{row}: {error} ({error.code})")
        if done:
            messages.success(request, f"Done: {done}.")


@admin.register(Run)
class RunAdmin(SteeredAdmin):
    list_display = ("id", "kind", "badge", "reason", "trigger", "attempt", "created_at")
    list_filter = ("state", "kind", "trigger", "origin", "queue")
    search_fields = ("id", "trace_id", "serial_key", "waiting_on")
    date_hierarchy = "created_at"
    list_select_related = ("workspace", "principal")
    ordering = ("-id",)
    actions = ("cancel", "retry_now", "requeue", "dismiss")

    @admin.display(description="state", ordering="state")
    def badge(self, run: Run) -> SafeString:
        return state_badge(run.state)

    @admin.action(description="Cancel", permissions=["steer"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self.each(
            request,
            rows,
            lambda by, run: services.cancel(
                by=by, run_id=run.id, reason=reason_of(request)
            ),
        )

    @admin.action(description="Dead letter: retry now", permissions=["steer"])
    def retry_now(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._act(request, rows, "retry_now")

    @admin.action(description="Dead letter: requeue", permissions=["steer"])
    def requeue(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._act(request, rows, "requeue")

    @admin.action(description="Dead letter: dismiss", permissions=["steer"])
    def dismiss(self, request: HttpRequest, rows: QuerySet[Run]) -> None:
        self._act(request, rows, "dismiss")

    def _act(self, request: HttpRequest, rows: QuerySet[Run], action: str) -> None:
        self.each(
            request,
            rows,
            lambda by, run: services.act_on_dead_letter(
                by=by, run_id=run.id, action=action, reason=reason_of(request)
            ),
        )


@admin.register(Schedule)
class ScheduleAdmin(SteeredAdmin):
    list_display = ("slug", "kind", "expression", "timezone", "badge", "next_at")
    list_filter = ("state", "kind", "catch_up", "overlap")
    search_fields = ("slug", "title")
    list_select_related = ("workspace",)
    ordering = ("slug", "id")
    actions = ("pause", "resume", "run_now")

    @admin.display(description="state", ordering="state")
    def badge(self, schedule: Schedule) -> SafeString:
        return state_badge(schedule.state)

    @admin.action(description="Pause", permissions=["steer"])
    def pause(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        self._set(request, rows, ScheduleState.PAUSED)

    @admin.action(description="Resume", permissions=["steer"])
    def resume(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        self._set(request, rows, ScheduleState.ACTIVE)

    @admin.action(description="Run now", permissions=["steer"])
    def run_now(self, request: HttpRequest, rows: QuerySet[Schedule]) -> None:
        self.each(
            request,
            rows,
            lambda by, schedule: services.run_now(
                by=by, schedule_id=schedule.id, reason=reason_of(request)
            ),
        )

    def _set(self, request: HttpRequest, rows: QuerySet[Schedule], state: str) -> None:
        self.each(
            request,
            rows,
            lambda by, schedule: services.set_schedule_state(
                by=by, schedule_id=schedule.id, state=state, reason=reason_of(request)
            ),
        )


@admin.register(Slot)
class SlotAdmin(ReadOnlyAdmin):
    list_display = ("schedule", "slot_at", "badge", "run")
    list_filter = ("state",)
    date_hierarchy = "slot_at"
    list_select_related = ("schedule", "run")
    ordering = ("-slot_at", "-id")

    @admin.display(description="state", ordering="state")
    def badge(self, slot: Slot) -> SafeString:
        return state_badge(slot.state)


@admin.register(Proposal)
class ProposalAdmin(SteeredAdmin):
    list_display = ("slug", "agent", "badge", "decided_by", "created_at")
    list_filter = ("state",)
    search_fields = ("slug", "agent")
    list_select_related = ("proposed_by", "decided_by")
    ordering = ("-id",)
    actions = ("approve", "reject")

    @admin.display(description="state", ordering="state")
    def badge(self, proposal: Proposal) -> SafeString:
        return state_badge(proposal.state)

    @admin.action(description="Approve", permissions=["steer"])
    def approve(self, request: HttpRequest, rows: QuerySet[Proposal]) -> None:
        self._decide(request, rows, approve=True)

    @admin.action(description="Reject", permissions=["steer"])
    def reject(self, request: HttpRequest, rows: QuerySet[Proposal]) -> None:
        self._decide(request, rows, approve=False)

    def _decide(
        self, request: HttpRequest, rows: QuerySet[Proposal], *, approve: bool
    ) -> None:
        self.each(
            request,
            rows,
            lambda by, proposal: services.decide_proposal(
                by=by,
                proposal_id=proposal.id,
                approve=approve,
                reason=reason_of(request),
            ),
        )


@admin.register(DeliveryDay)
class DeliveryDayAdmin(ReadOnlyAdmin):
    list_display = ("recipient", "day", "delivered")
    date_hierarchy = "day"
    ordering = ("-day", "recipient")


@admin.register(WorkerBeat)
class WorkerBeatAdmin(ReadOnlyAdmin):
    list_display = ("process", "state", "in_flight", "concurrency", "beat_at")
    ordering = ("process",)


@admin.register(ClockLease)
class ClockLeaseAdmin(ReadOnlyAdmin):
    list_display = ("owner", "lease_until")
    ordering = ("id",)
