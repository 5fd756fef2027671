"""Bases for tables. A row's id sorts by time; a record cannot be rewritten."""

from typing import Any, NoReturn, Self

from django.db import models

from . import clock, ids


class Row(models.Model):
    """A table whose key is a UUIDv7."""

    id = models.UUIDField(primary_key=True, default=ids.new_id, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        abstract = True


class AppendOnlyError(TypeError):
    """A record of what happened is never changed."""


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Offers reading and inserting; changing and deleting are refused."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError(f"{self.model.__name__} rows are never updated")

    def delete(self) -> NoReturn:
        raise AppendOnlyError(f"{self.model.__name__} rows are never deleted")

    def bulk_update(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError(f"{self.model.__name__} rows are never updated")


class AppendOnly(Row):
    """A table that refuses everything but insert; triggers say so too."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError(f"{type(self).__name__} rows are never updated")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError(f"{type(self).__name__} rows are never deleted")


class SoleRow(models.Model):
    """A table of one row, reached by `load()`."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)

    class Meta:
        abstract = True

    @classmethod
    def load(cls) -> Self:
        """Return the row, making it at first use."""
        row, _ = cls._default_manager.get_or_create(id=1)
        return row
