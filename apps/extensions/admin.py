"""Extensions on the desk. Rows are written by services alone."""

from django.contrib import admin

from apps.common.admin import ReadOnlyAdmin, state_badge

from .models import (
    Capability,
    Certificate,
    Connection,
    ConnectionAsk,
    Extension,
    Review,
    Version,
)


@admin.register(Extension)
class ExtensionAdmin(ReadOnlyAdmin):
    list_display = ("ext_id", "type", "drawn_trust", "drawn_lifecycle", "version")
    list_filter = ("type", "trust", "lifecycle")
    search_fields = ("ext_id", "title")

    @admin.display(description="trust", ordering="trust")
    def drawn_trust(self, obj: Extension) -> str:
        return state_badge(obj.trust)

    @admin.display(description="state", ordering="lifecycle")
    def drawn_lifecycle(self, obj: Extension) -> str:
        return state_badge(obj.lifecycle)


@admin.register(Capability)
class CapabilityAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "alias", "risk_level", "side_effects", "data_egress")
    list_select_related = ("extension",)
    list_filter = ("risk_level", "data_egress")
    search_fields = ("capability_id", "alias", "title")


@admin.register(Version)
class VersionAdmin(ReadOnlyAdmin):
    list_display = ("extension", "version", "definition_hash", "created_at")
    list_select_related = ("extension",)
    date_hierarchy = "created_at"


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    list_display = ("extension", "is_approved", "trust", "reviewer", "created_at")
    list_select_related = ("extension",)
    date_hierarchy = "created_at"


@admin.register(Certificate)
class CertificateAdmin(ReadOnlyAdmin):
    list_display = ("extension", "digest", "unconfirmed", "created_at")
    list_select_related = ("extension",)
    date_hierarchy = "created_at"


@admin.register(Connection)
class ConnectionAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "server_url", "status", "connected_by", "expires_at")
    list_select_related = ("extension",)
    list_filter = ("status",)
    search_fields = ("extension__ext_id", "server_url")


@admin.register(ConnectionAsk)
class ConnectionAskAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "server_url", "asked_by", "expires_at", "used_at")
    list_select_related = ("connection", "asked_by")
    exclude = ("state_hash", "session_hash")
    ordering = ("-id",)
