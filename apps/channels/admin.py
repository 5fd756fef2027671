from django.contrib import admin

from apps.channels.models import (
    Account,
    ChannelIdentity,
    InboxMessage,
    OutboxMessage,
    PairingRequest,
)
from apps.common.admin import ReadOnlyAdmin, state_badge


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ("slug", "kind", "drawn_state", "workspace", "heard_at", "sent_at")
    list_filter = ("kind", "state")
    search_fields = ("slug",)

    @admin.display(description="state", ordering="state")
    def drawn_state(self, obj: Account) -> str:
        return state_badge(obj.state)


@admin.register(ChannelIdentity)
class ChannelIdentityAdmin(ReadOnlyAdmin):
    list_display = ("display", "external_user", "account", "tier", "state")
    list_filter = ("tier", "state")
    search_fields = ("external_user", "display")


@admin.register(PairingRequest)
class PairingRequestAdmin(ReadOnlyAdmin):
    list_display = ("display", "external_user", "account", "state", "expires_at")
    list_filter = ("state",)
    exclude = ("code",)


@admin.register(InboxMessage)
class InboxMessageAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "account", "external_user", "outcome", "turn_id")
    list_filter = ("outcome",)
    search_fields = ("external_id", "external_user")


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "account", "chat", "drawn_state", "attempts", "error")
    list_filter = ("state",)
    search_fields = ("dedupe_key", "chat")

    @admin.display(description="state", ordering="state")
    def drawn_state(self, obj: OutboxMessage) -> str:
        return state_badge(obj.state)
