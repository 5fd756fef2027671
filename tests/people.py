"""The cast. Alice operates, Bob approves, Charlie is elsewhere, Rob is an agent."""

from apps.access import services as access
from apps.access.models import Principal, Role, User, Workspace

PASSWORD = "correct-horse-battery-staple"


def person(name: str, role: Role, workspace: Workspace) -> User:
    """Let somebody in, as an administrator would."""
    return access.create_user(
        by=access.system_principal(),
        new=access.NewUser(
            username=name, password=PASSWORD, role=role, workspace=workspace
        ),
    )


def outsider(name: str) -> User:
    """Let somebody operate another workspace, and this one not."""
    elsewhere, _ = Workspace.objects.get_or_create(
        slug="elsewhere", defaults={"name": "Elsewhere"}
    )
    return person(name, Role.OPERATOR, elsewhere)


def stranger(name: str) -> User:
    """Make an account that belongs to no workspace."""
    user = User.objects.create_user(username=name, password=PASSWORD)
    access.principal_for_user(user=user)
    return user


def agent(slug: str, workspace: Workspace) -> Principal:
    """Make an agent's principal."""
    return access.principal_for_agent(slug=slug, workspace=workspace)
