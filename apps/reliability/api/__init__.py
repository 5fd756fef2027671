"""The store, settings, alerts, incidents and drills over the API."""

from ninja import Router

from . import drills, incidents, settings, store

router = Router()
for _each in (store, settings, incidents, drills):
    router.add_router("", _each.router)
