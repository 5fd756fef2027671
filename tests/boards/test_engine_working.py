"""An agent is given a task: asked once, and its answer moves the task once."""

import pytest
from django.db import transaction

from apps.access import services as access
from apps.agents.engine import ending
from apps.agents.models import Turn, TurnState
from apps.audit.models import Event
from apps.boards import queries, services
from apps.boards.engine import working
from apps.boards.errors import StillWorking, VersionConflict
from apps.boards.models import Task, TaskComment, TaskEvent
from apps.common.errors import Denied, InvalidTransition
from apps.gateway import services as gateway
from apps.providers import services as providers
from apps.runs import services as runs
from apps.runs.models import Run


@pytest.fixture
def given(board, alice, writer) -> Task:
    """Alice gives a task to @writer."""
    return services.upsert_task(
        by=alice.principal, board=board, draft=draft_for(writer, "Write a greeting")
    )


def draft_for(profile, title="Write a greeting", **more):
    return services.TaskDraft(
        title=title,
        assignee_kind="agent_profile" if profile else "",
        assignee_profile_id=profile.id if profile else None,
        **more,
    )


def end(task: Task, state: str, text: str = "Good morning.", reason: str = "") -> Turn:
    """Let the turn of a task come to its end, as the loop would."""
    turn = Turn.objects.select_related("run", "profile", "conversation__workspace").get(
        id=task.turn_id
    )
    with transaction.atomic():
        ending.close_turn(turn, [], ending.Close(state, text=text, reason=reason))
    return turn


def fresh(task: Task) -> Task:
    task.refresh_from_db()
    return task


def test_assigned_agent_is_asked_at_once(given):
    turn = Turn.objects.get()

    assert (given.status, given.turn_id) == ("in_progress", turn.id)
    assert "Write a greeting" in turn.message_text


def test_same_words_again_ask_nobody(given, alice, board, writer):
    services.upsert_task(
        by=alice.principal,
        board=board,
        draft=services.TaskDraft(
            title=given.title,
            assignee_kind="agent_profile",
            assignee_profile_id=writer.id,
            session_id=given.session_id,
            run_id=given.run_id,
        ),
        task_id=given.id,
        expected_version=given.version,
    )

    assert Turn.objects.count() == 1


def test_second_request_while_the_agent_works_is_refused(given, alice):
    with pytest.raises(StillWorking):
        services.start_task(
            by=alice.principal, task_id=given.id, expected_version=given.version
        )


def test_answer_moves_the_task_and_is_left_as_a_comment(given):
    turn = end(given, TurnState.ANSWERED)

    assert services.settle_turn(turn_id=turn.id)

    comment = TaskComment.objects.get()
    assert fresh(given).status == "done"
    assert (comment.text, comment.trace_id) == ("Good morning.", turn.trace_id)
    assert "writer" in comment.actor_label


def test_result_told_twice_moves_and_comments_once(given):
    turn = end(given, TurnState.ANSWERED)
    services.settle_turn(turn_id=turn.id)
    events = TaskEvent.objects.count()

    assert not services.settle_turn(turn_id=turn.id)
    assert services.settle_awaited() == 0

    assert (TaskEvent.objects.count(), TaskComment.objects.count()) == (events, 1)


def test_failure_blocks_the_task_with_its_reason(given):
    turn = end(given, TurnState.FAILED, text="", reason="no_route")

    services.settle_turn(turn_id=turn.id)

    assert fresh(given).status == "blocked"
    assert given.status_reason == "@writer failed: no route"


def test_cancelled_run_is_noticed_by_the_tick(given, alice):
    runs.cancel(by=alice.principal, run_id=given.run_id, reason="enough")
    end(given, TurnState.CANCELLED, text="", reason="enough")

    assert services.settle_awaited() == 1

    assert fresh(given).status == "blocked"
    assert "cancelled" in given.status_reason


def test_dead_letter_blocks_and_a_later_answer_still_counts(given):
    runs.dead_letter(
        by=access.system_principal().actor, run_id=given.run_id, reason="poison"
    )
    services.settle_awaited()
    services.settle_awaited()
    blocked = fresh(given)
    assert (blocked.status, "dead letter" in blocked.status_reason) == ("blocked", True)

    end(given, TurnState.ANSWERED)
    services.settle_awaited()

    assert fresh(given).status == "done"


def test_tick_looks_only_at_what_is_news(given):
    assert working.with_news() == []

    Task.objects.filter(id=given.id).update(turn_id=given.id)

    assert working.with_news() == [given.id]
    services.settle_awaited()
    assert fresh(given).status_reason == "Its turn is no longer in the store."


def test_what_a_person_decided_meanwhile_stands(given, alice):
    services.transition_task(
        by=alice.principal,
        task_id=given.id,
        status="todo",
        expected_version=given.version,
    )
    turn = end(given, TurnState.ANSWERED)

    services.settle_turn(turn_id=turn.id)

    assert fresh(given).status == "todo"
    assert TaskComment.objects.count() == 1


def test_marked_task_stays_marked_when_its_result_comes(given):
    system = access.system_principal()
    services.mark_task(by=system, task_id=given.id, mark="stale", reason="restored")
    turn = end(given, TurnState.ANSWERED)

    services.settle_turn(turn_id=turn.id)

    assert fresh(given).status == "stale"
    assert given.turn_id is None


def test_reassigning_stops_the_former_agent(given, alice, board):
    services.upsert_task(
        by=alice.principal,
        board=board,
        draft=draft_for(None),
        task_id=given.id,
        expected_version=given.version,
    )

    assert fresh(given).turn_id is None
    assert Run.objects.get(id=Turn.objects.get().run_id).state == "cancelled"


def test_asking_again_shows_the_agent_what_was_said(given, alice):
    services.settle_turn(turn_id=end(given, TurnState.FAILED, reason="no_route").id)
    services.comment_on_task(
        by=alice.principal, task_id=given.id, text="Make it shorter."
    )

    services.start_task(
        by=alice.principal, task_id=given.id, expected_version=fresh(given).version
    )

    newest = Turn.objects.order_by("-created_at").first()
    assert "Make it shorter." in newest.message_text
    assert newest.conversation_id == given.session_id


def test_done_task_starts_nothing(given, alice):
    services.settle_turn(turn_id=end(given, TurnState.ANSWERED).id)

    with pytest.raises(InvalidTransition):
        services.start_task(
            by=alice.principal, task_id=given.id, expected_version=fresh(given).version
        )


def test_agent_cannot_set_an_agent_to_work(board, rob, writer):
    with pytest.raises(Denied):
        services.upsert_task(by=rob, board=board, draft=draft_for(writer))

    assert (Turn.objects.count(), Task.objects.count()) == (0, 0)


def test_text_that_an_agent_wrote_is_labelled_untrusted(board, rob, alice, writer):
    task = services.upsert_task(by=rob, board=board, draft=draft_for(None))
    assigned = services.upsert_task(
        by=alice.principal,
        board=board,
        draft=draft_for(writer),
        task_id=task.id,
        expected_version=1,
    )

    assert Turn.objects.get(id=assigned.turn_id).labels == ["untrusted"]


def test_text_of_people_carries_no_label(given):
    assert Turn.objects.get(id=given.turn_id).labels == []


def test_assigned_agent_answers_through_the_real_machinery(workspace, alice, board):
    """From the assignment to the comment: worker, loop, reply run, move."""
    from apps.agents import services as agents
    from apps.agents.models import AgentProfile
    from apps.extensions import services as extensions

    system = access.system_principal()
    gateway.install_shipped_grants(by=system)
    extensions.sync_shipped_plugin()
    providers.sync_from_env()
    agents.install_default_profiles(workspace=workspace, by=system)
    profile = AgentProfile.objects.get(workspace=workspace, slug="primary")
    task = services.upsert_task(
        by=alice.principal, board=board, draft=draft_for(profile, "What time is it?")
    )

    runs.execute(task.run_id)
    for reply in Run.objects.filter(kind=services.RUN_KIND):
        runs.execute(reply.id)

    comment = TaskComment.objects.get()
    assert fresh(task).status == "done"
    assert comment.trace_id == Turn.objects.get(id=comment.key[5:]).trace_id
    assert Event.objects.filter(type="task.commented", subject_id=str(task.id)).exists()


def test_two_operators_move_one_card_and_one_is_told_why_not(task, alice, bob):
    services.transition_task(
        by=bob.principal, task_id=task.id, status="blocked", expected_version=1
    )

    with pytest.raises(VersionConflict) as caught:
        services.transition_task(
            by=alice.principal, task_id=task.id, status="done", expected_version=1
        )

    assert "bob moved it from todo to blocked" in caught.value.detail
    assert caught.value.facts["changes"][0]["by"] == "bob"


def test_stale_task_returns_to_the_column_it_stood_in(task, alice):
    by = alice.principal
    services.transition_task(by=by, task_id=task.id, status="done", expected_version=1)
    services.mark_task(by=by, task_id=task.id, mark="stale", reason="older store")
    assert fresh(task).board_column == "done"

    services.revalidate_task(by=by, task_id=task.id, reason="the effect is there")

    assert fresh(task).status == "done"


def test_marks_follow_the_runs_they_come_from(given, alice):
    system = access.system_principal()
    again = {"by": system, "run_ids": [given.run_id], "reason": "two histories"}

    first = services.mark_tasks_of_runs(mark="conflicted", **again)
    second = services.mark_tasks_of_runs(mark="stale", **again)

    assert [each.id for each in first] == [given.id]
    assert second == []
    assert fresh(given).status == "conflicted"


def test_agent_does_not_judge_history(task, rob):
    with pytest.raises(Denied):
        services.mark_task(by=rob, task_id=task.id, mark="stale", reason="x")


@pytest.mark.parametrize("status", ["in_progress", "blocked", "done"])
def test_marked_task_is_not_dragged_on(task, alice, status):
    services.mark_task(
        by=alice.principal, task_id=task.id, mark="stale", reason="older store"
    )

    with pytest.raises(InvalidTransition) as caught:
        services.transition_task(
            by=alice.principal, task_id=task.id, status=status, expected_version=2
        )

    assert "stands still" in caught.value.detail


def test_urgent_and_due_come_first(board, alice, workspace):
    from datetime import date

    for title, priority, due in (
        ("later", 2, None),
        ("due", 2, date(2030, 1, 1)),
        ("now", 0, None),
    ):
        draft = services.TaskDraft(title=title, priority=priority, due_date=due)
        services.upsert_task(by=alice.principal, board=board, draft=draft)

    todo = queries.columns(alice.principal, board, queries.TaskFilter(), {})[0]
    assert [task.title for task in todo.tasks] == ["now", "due", "later"]
