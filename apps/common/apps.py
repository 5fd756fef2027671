from django.apps import AppConfig


class CommonConfig(AppConfig):
    """Makes templates and the abstract models of `common` known to Django."""

    name = "apps.common"
    label = "common"

    def ready(self) -> None:
        from django.db.models import CharField

        from apps.common.lookups import Among

        CharField.register_lookup(Among)
