"""Every model's prices begin their history with what they are now."""

from django.db import migrations


def begin(apps, schema_editor):
    Model = apps.get_model("providers", "Model")
    Price = apps.get_model("providers", "Price")
    for row in Model.objects.order_by("id").iterator():
        Price.objects.get_or_create(
            model=row,
            starts_on=row.dated or row.created_at.date(),
            defaults={
                "input_micros": row.input_micros,
                "output_micros": row.output_micros,
                "cached_micros": row.cached_micros,
            },
        )


class Migration(migrations.Migration):
    dependencies = [("providers", "0003_prices_and_reasons")]
    operations = [migrations.RunPython(begin, migrations.RunPython.noop)]
