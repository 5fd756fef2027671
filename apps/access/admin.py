"""People, agents and tokens, for keeping records."""

from django.contrib import admin
from django.contrib.auth.models import Group

from apps.common.admin import ReadOnlyAdmin

from .models import (
    AccessPolicy,
    ExternalIdentity,
    KeyedAnswer,
    Lockout,
    Membership,
    Principal,
    RecoveryCode,
    SecondFactor,
    SignIn,
    Token,
    User,
    Workspace,
)


class GroupAdmin(ReadOnlyAdmin):
    """What each role's group carries; it follows the roles and nobody edits it.

    Registered by the admin site in place of Django's own.
    """

    list_display = ["name"]
    search_fields = ["name"]
    fields = ["name", "carries"]

    @admin.display(description="permissions")
    def carries(self, group: Group) -> str:
        """All of them by one statement: a permission's own name asks for its model."""
        held = group.permissions.order_by("content_type__app_label", "codename")
        names = held.values_list("content_type__app_label", "codename")
        return ", ".join(f"{app}.{code}" for app, code in names) or "none"


@admin.register(Workspace)
class WorkspaceAdmin(ReadOnlyAdmin):
    list_display = ["slug", "name", "created_at"]
    search_fields = ["slug", "name"]


@admin.register(User)
class UserAdmin(ReadOnlyAdmin):
    list_display = ["username", "is_active", "is_staff", "last_login"]
    list_filter = ["is_active", "is_staff"]
    search_fields = ["username"]
    exclude = ["password"]


@admin.register(ExternalIdentity)
class ExternalIdentityAdmin(ReadOnlyAdmin):
    list_display = ["user", "issuer", "subject", "created_at"]
    list_select_related = ["user"]
    search_fields = ["user__username", "subject"]


@admin.register(Membership)
class MembershipAdmin(ReadOnlyAdmin):
    list_display = ["user", "workspace", "role"]
    list_filter = ["role"]
    search_fields = ["user__username"]


@admin.register(Principal)
class PrincipalAdmin(ReadOnlyAdmin):
    list_display = ["key", "kind", "label", "is_active"]
    list_filter = ["kind", "is_active"]
    search_fields = ["key", "label"]


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    list_display = ["name", "principal", "scopes", "expires_at", "last_used_at"]
    list_filter = ["source"]
    search_fields = ["name"]
    exclude = ["digest"]


@admin.register(SignIn)
class SignInAdmin(ReadOnlyAdmin):
    list_display = ["user", "address", "browser", "created_at", "ended_at"]
    search_fields = ["user__username", "address"]
    exclude = ["session_key"]


@admin.register(Lockout)
class LockoutAdmin(ReadOnlyAdmin):
    list_display = ["key", "failures", "since", "locked_until"]


@admin.register(SecondFactor)
class SecondFactorAdmin(ReadOnlyAdmin):
    list_display = ["user", "confirmed_at"]
    search_fields = ["user__username"]


@admin.register(RecoveryCode)
class RecoveryCodeAdmin(ReadOnlyAdmin):
    list_display = ["user", "used_at"]
    search_fields = ["user__username"]
    exclude = ["digest"]


@admin.register(AccessPolicy)
class AccessPolicyAdmin(ReadOnlyAdmin):
    list_display = ["__str__", "second_factor_required"]


@admin.register(KeyedAnswer)
class KeyedAnswerAdmin(ReadOnlyAdmin):
    list_display = ["principal", "key", "status", "expires_at"]
    search_fields = ["key"]
    exclude = ["body"]
