from django.urls import path

from apps.boards import views

app_name = "boards"

urlpatterns = [
    path("boards/", views.board_list, name="list"),
    path("boards/panel/", views.panel, name="panel"),
    path("boards/new/", views.new_board, name="new_board"),
    path("boards/<uuid:board_id>/", views.board, name="board"),
    path("boards/<uuid:board_id>/live/", views.live, name="live"),
    path("boards/<uuid:board_id>/change/", views.change_board, name="change_board"),
    path("boards/<uuid:board_id>/new/", views.new_task, name="new_task"),
    path("boards/tasks/new/", views.new_task_anywhere, name="new_task_anywhere"),
    path("boards/tasks/<uuid:task_id>/", views.task, name="task"),
    path("boards/tasks/<uuid:task_id>/live/", views.task_live, name="task_live"),
    path("boards/tasks/<uuid:task_id>/edit/", views.edit_task, name="edit_task"),
    path("boards/tasks/<uuid:task_id>/move/", views.move, name="move"),
    path("boards/tasks/<uuid:task_id>/comment/", views.comment, name="comment"),
    path("boards/tasks/<uuid:task_id>/start/", views.start, name="start"),
    path(
        "boards/tasks/<uuid:task_id>/revalidate/", views.revalidate, name="revalidate"
    ),
]
