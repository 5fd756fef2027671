from django.urls import path

from apps.gateway import views

app_name = "gateway"

urlpatterns = [
    path("halt/", views.halts, name="halts"),
    path("halt/set/", views.set_halt, name="set_halt"),
    path("halt/<uuid:halt_id>/resume/", views.resume, name="resume"),
    path("approvals/", views.approvals, name="approvals"),
    path("approvals/panel/", views.panel, name="panel"),
    path("approvals/news/", views.news, name="news"),
    path("approvals/decided/", views.decided, name="decided"),
    path("approvals/decide/", views.decide_many, name="decide_many"),
    path("approvals/of/<uuid:run_id>/", views.run_questions, name="run_questions"),
    path("approvals/<uuid:approval_id>/", views.approval, name="approval"),
    path("approvals/<uuid:approval_id>/decide/", views.decide, name="decide"),
    path("grants/", views.grants, name="grants"),
    path("grants/make/", views.make_grant, name="make_grant"),
    path("grants/<uuid:grant_id>/revoke/", views.revoke_grant, name="revoke_grant"),
    path("budgets/", views.budgets, name="budgets"),
    path("budgets/new/", views.budget, name="budget_new"),
    path("budgets/<uuid:budget_id>/", views.budget, name="budget"),
    path("budgets/<uuid:budget_id>/end/", views.end_budget, name="end_budget"),
    path("what-if/", views.what_if, name="whatif"),
    path("explain/", views.find_explanation, name="find_explanation"),
    path("explain/<str:trace_id>/", views.explain, name="explain"),
]
