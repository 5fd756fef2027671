"""The doubles of a drill: who is played on which of the clone's places."""

from django.conf import settings

from apps.access import services as access_services
from apps.providers import services as providers
from apps.providers.models import Provider
from apps.reliability import ports
from apps.reliability.engine.drilling.asking import LANES
from apps.reliability.engine.drilling.notebook import notebook
from apps.reliability.ports import Double


def place(number: int) -> str:
    """The host:port of the clone's nth double."""
    return str(settings.POLAR_CLONE_REACHES[number])


def play(kind: str, number: int) -> Double:
    """Begin to play a vendor. It stops with the rehearsal."""
    double = ports.stage().double(kind, place(number))
    notebook.kept.setdefault("doubles", []).append(double)
    return double


def play_lanes() -> dict[str, Double]:
    """A model server of its own behind each lane, reached as a vendor is."""
    system = access_services.system_principal()
    played = {}
    for number, lane in enumerate(LANES):
        double = play("models", number)
        double.manner["reply"] = f"This is {lane}."
        if Provider.objects.filter(slug=f"drill-{lane}").exists():
            providers.remove_provider(by=system, slug=f"drill-{lane}")
        entry = providers.ProviderEntry(
            slug=f"drill-{lane}",
            kind="openai_compatible",
            base_url=f"http://{double.place}/v1",
        )
        providers.add_provider(by=system, entry=entry, model="drill", lane=lane)
        played[lane] = double
    return played
