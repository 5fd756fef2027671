from django.db import migrations

WORKING = ("todo", "in_progress", "blocked", "done")


def place(apps, schema_editor):
    """Put every task into the column of its status, urgent first."""
    tasks = apps.get_model("boards", "Task").objects.filter(position__lt=100_000)
    for task in tasks.iterator():
        due = task.due_date
        day = due.year * 10_000 + due.month * 100 + due.day if due else 9999_12_31
        task.board_column = task.status if task.status in WORKING else "todo"
        task.position = task.priority * 100_000_000 + day
        if task.status == "done":
            task.position = -int((task.updated_at or task.created_at).timestamp())
        task.updated_at = task.updated_at or task.created_at
        task.save(update_fields=["board_column", "position", "updated_at"])


class Migration(migrations.Migration):

    dependencies = [('boards', '0002_comments_and_columns')]

    operations = [migrations.RunPython(place, migrations.RunPython.noop)]
