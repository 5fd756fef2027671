from django.apps import AppConfig


class BoardsConfig(AppConfig):
    """Shows what is to be done, and what became of it."""

    name = "apps.boards"
    label = "boards"
