"""The faults of live drills, and taking them back.

Invariant: whatever a live drill changed is found here by its names and undone by any
process, again and again without harm. A held lane ends by itself besides.
"""

from contextlib import suppress

from apps.access import queries as access
from apps.access import services as access_services
from apps.agents import services as agents
from apps.agents.models import AgentProfile
from apps.common.errors import PolarError
from apps.providers import queries as provider_queries
from apps.providers import services as providers
from apps.providers.models import Provider
from apps.runs import services as runs
from apps.runs.models import SETTLED, Run

#: The scripted models and the agents of a live loop are called so.
LOOP_PROVIDERS = ("drill-loop-one", "drill-loop-two")
LOOP_AGENTS = ("drill-parent", "drill-child")


def standing() -> list[str]:
    """Name what a live drill left changed."""
    found = ["held lanes"] if provider_queries.lanes_are_held() else []
    if Provider.objects.filter(slug__in=LOOP_PROVIDERS).exists():
        found.append("scripted models of a loop")
    return found


def take_back(reason: str) -> list[str]:
    """Undo it all. Returns what there was to undo.   Again: nothing."""
    found = standing()
    system = access_services.system_principal()
    providers.release_lanes(by=system, reason=reason)
    for slug in Provider.objects.filter(slug__in=LOOP_PROVIDERS).values_list("slug"):
        with suppress(PolarError):  # another process was quicker
            providers.remove_provider(by=system, slug=slug[0])
    _retire_agents()
    _end_loops(reason)
    return found


def _retire_agents() -> None:
    workspace = access.default_workspace()
    rows = AgentProfile.objects.filter(workspace=workspace, slug__in=LOOP_AGENTS)
    for row in rows.filter(is_active=True):
        with suppress(PolarError):
            agents.save_profile(
                by=access_services.system_principal(),
                workspace=workspace,
                slug=row.slug,
                changes={"is_active": False},
                expected_version=row.version,
            )


def _end_loops(reason: str) -> None:
    """Cancel what the looping agents still do."""
    looping = Run.objects.filter(origin="drill", turns__profile__slug__in=LOOP_AGENTS)
    for run in looping.exclude(state__in=SETTLED).distinct().order_by("id")[:200]:
        with suppress(PolarError):
            runs.cancel(
                by=access_services.system_principal(), run_id=run.id, reason=reason
            )
