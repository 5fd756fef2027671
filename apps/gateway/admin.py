"""The ledger and its rules, for keeping records. Halts are set on their page."""

from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin, state_badge

from .models import (
    ApprovalRequest,
    Budget,
    BudgetSlice,
    Call,
    CallTree,
    Grant,
    Halt,
    PlanStep,
    Reservation,
    Setting,
)


@admin.register(Call)
class CallAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind", "capability", "badge", "agent", "lane", "created_at"]
    list_filter = ["state", "kind", "effect_class"]
    search_fields = ["=id", "=trace_id", "=idempotency_key", "capability"]
    date_hierarchy = "created_at"
    list_select_related = ["workspace", "principal"]

    @admin.display(description="state", ordering="state")
    def badge(self, row: Call) -> str:
        return state_badge(row.state)


@admin.register(CallTree)
class CallTreeAdmin(ReadOnlyAdmin):
    list_display = ["root_id", "handoffs"]
    search_fields = ["=root_id"]


@admin.register(Grant)
class GrantAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind", "capabilities", "reason", "expires_at", "revoked_at"]
    list_filter = ["kind", "is_shipped"]
    search_fields = ["reason", "granted_by"]


@admin.register(Budget)
class BudgetAdmin(ReadOnlyAdmin):
    list_display = ["scope", "scope_key", "limit", "unit", "window", "spent"]
    list_filter = ["scope", "unit", "window", "on_exceed"]
    search_fields = ["scope_key"]


@admin.register(BudgetSlice)
class BudgetSliceAdmin(ReadOnlyAdmin):
    list_display = ["budget", "starts_at", "amount"]
    search_fields = ["=budget__id"]


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = ["id", "budget", "call", "amount", "settled_amount"]
    search_fields = ["=call__id"]


@admin.register(ApprovalRequest)
class ApprovalRequestAdmin(ReadOnlyAdmin):
    list_display = ["id", "badge", "requester", "decided_by", "expires_at"]
    list_filter = ["state"]
    search_fields = ["=id", "=binding"]

    @admin.display(description="state", ordering="state")
    def badge(self, row: ApprovalRequest) -> str:
        return state_badge(row.state)


@admin.register(PlanStep)
class PlanStepAdmin(ReadOnlyAdmin):
    list_display = ["id", "approval", "position", "capability", "used_call_id"]
    search_fields = ["=approval__id", "capability"]


@admin.register(Halt)
class HaltAdmin(ReadOnlyAdmin):
    list_display = ["scope", "reason", "set_by", "created_at", "lifted_at"]
    search_fields = ["scope", "reason"]


@admin.register(Setting)
class SettingAdmin(ReadOnlyAdmin):
    list_display = ["strictness", "max_depth", "max_turns_per_root", "max_fan_out"]
