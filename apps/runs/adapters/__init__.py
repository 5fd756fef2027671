"""The doorbell over Celery."""
