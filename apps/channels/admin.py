from django.contrib import admin

from apps.channels.models import Account
from apps.common.admin import ReadOnlyAdmin, state_badge


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    list_display = ("slug", "kind", "drawn_state", "workspace", "created_at")
    list_filter = ("kind", "state")
    search_fields = ("slug",)

    @admin.display(description="state", ordering="state")
    def drawn_state(self, obj: Account) -> str:
        return state_badge(obj.state)
