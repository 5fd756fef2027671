"""What models cost, from which day on."""

from django.db import models

from apps.common.models import Row
from apps.providers import ports
from apps.providers.models.core import Model


class Price(Row):
    """What a model costs from one day on. Kept for ever; a call is priced by the
    day on which it began."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="prices")
    starts_on = models.DateField()
    input_micros = models.PositiveBigIntegerField()
    output_micros = models.PositiveBigIntegerField()
    cached_micros = models.PositiveBigIntegerField()
    by_label = models.CharField(max_length=150, blank=True, default="")
    note = models.CharField(max_length=300, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model", "starts_on"], name="providers_price_day_once"
            )
        ]

    def __str__(self) -> str:
        return f"{self.model_id} from {self.starts_on}"

    @property
    def tariff(self) -> ports.Tariff:
        return ports.Tariff(self.input_micros, self.output_micros, self.cached_micros)
