from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [('boards', '0003_place_tasks')]

    operations = [
        migrations.AddConstraint(
            model_name='task',
            constraint=models.CheckConstraint(condition=models.Q(('board_column__in', ('todo', 'in_progress', 'blocked', 'done')), models.Q(('status', models.F('board_column')), ('status__in', ('conflicted', 'stale')), _connector='OR')), name='task_column'),
        ),
    ]
