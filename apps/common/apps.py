from django.apps import AppConfig


class CommonConfig(AppConfig):
    """Makes templates and the abstract models of `common` known to Django."""

    name = "apps.common"
    label = "common"
