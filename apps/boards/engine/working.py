"""An agent at work on a task: how it starts, and what its result does.

Invariants: one turn of a task is awaited at a time; its result moves the task
once and leaves one comment, whoever notices first; what a person decided
meanwhile stands, and a marked task stays marked.
"""

from uuid import UUID

from django.db.models import Q

from apps.access import services as access
from apps.access.models import Principal, PrincipalKind
from apps.agents import services as agents
from apps.agents.models import AgentProfile, Turn, TurnState
from apps.audit import services as audit
from apps.boards.engine import changes
from apps.boards.errors import StillWorking
from apps.boards.models import (
    AssigneeKind,
    Task,
    TaskComment,
    TaskEvent,
    TaskEventType,
    TaskStatus,
)
from apps.common import clock
from apps.gateway.ports import UNTRUSTED
from apps.runs import services as runs
from apps.runs.models import CANCELLABLE, Run, State

#: The run that brings a finished turn back to its task.
RUN_KIND = "boards.turn_ended"
CHANNEL = "board"
#: A longer answer is cut on the board; its trace has all of it.
MOST_COMMENT_CHARACTERS = 20_000
#: How many awaited turns one tick looks at.
TICK_LIMIT = 200
#: How many comments an agent is shown when it is asked again.
COMMENTS_SHOWN = 20
#: Whose words carry the label that the rule of two reads.
MACHINES = (PrincipalKind.AGENT, PrincipalKind.AUTOMATION)
#: From here a task can be worked on.
STARTABLE = (TaskStatus.TODO, TaskStatus.IN_PROGRESS, TaskStatus.BLOCKED)


def starts(task: Task) -> bool:
    """Tell whether the assignee of a task is one that can be set to work."""
    return (
        task.assignee_kind == AssigneeKind.AGENT_PROFILE
        and task.assignee_profile_id is not None
        and task.status in STARTABLE
    )


def start(by: Principal, task: Task) -> Task:
    """Ask the assigned agent to do the task, in the caller's transaction.

    Writes: Conversation, Turn, Run, Task.   Raises: StillWorking, Denied.
    """
    if task.turn_id is not None:
        raise StillWorking()
    assert task.assignee_profile_id is not None
    profile = AgentProfile.objects.get(id=task.assignee_profile_id)
    conversation = agents.ensure_conversation(
        workspace=task.workspace,
        principal=by,
        channel=CHANNEL,
        external_key=str(task.id),
        title=task.title,
    )
    turn = agents.start_turn(
        conversation=conversation,
        principal=by,
        text=_request(task),
        profile=profile,
        trigger="manual",
        reply_run_kind=RUN_KIND,
        labels=_labels(task),
    )
    change = changes.Change(
        type=TaskEventType.TRANSITIONED
        if task.status != TaskStatus.IN_PROGRESS
        else TaskEventType.UPDATED,
        before=task,
        fields={
            "status": TaskStatus.IN_PROGRESS,
            "status_reason": f"@{profile.slug} works on it",
            "turn_id": turn.id,
            "run_id": turn.run_id,
            "session_id": conversation.id,
        },
        reason=f"@{profile.slug} was asked",
    )
    return changes.apply(by, change)


def release(by: Principal, task: Task) -> dict[str, None]:
    """Stop the work of the former assignee; returns what that changes.

    Raises: Conflict when the run ended in this very moment.
    """
    if task.turn_id is None:
        return {}
    turn = Turn.objects.filter(id=task.turn_id).select_related("run").first()
    if turn is not None and turn.run.state in CANCELLABLE:
        runs.cancel(by=by, run_id=turn.run_id, reason="task reassigned")
    return {"turn_id": None}


def with_news() -> list[UUID]:
    """Return the tasks whose awaited turn is over, lost, or newly set aside.

    What still works, or stands blocked by a dead letter, crowds nobody out.
    """
    still_open = Turn.objects.open()
    set_aside = still_open.filter(run__state=State.DEAD_LETTER)
    awaited = Task.objects.filter(
        ~Q(turn_id__in=still_open.values("id"))
        | Q(turn_id__in=set_aside.values("id"), status=TaskStatus.IN_PROGRESS),
        turn_id__isnull=False,
    )
    rows = awaited.order_by("updated_at", "id").values_list("id", flat=True)
    return list(rows[:TICK_LIMIT])


def settle(task_id: UUID) -> bool:
    """Let the result of a task's awaited turn move it, when there is one.

    Returns whether something changed.   Again: nothing, the turn is awaited no more.
    """
    # 1. Hold the row, so that the tick and the reply run take turns.
    task = (
        Task.objects.select_for_update(of=("self",))
        .select_related("workspace", "board")
        .filter(id=task_id, turn_id__isnull=False)
        .first()
    )
    if task is None:
        return False
    turn = Turn.objects.filter(id=task.turn_id).select_related("run", "profile").first()
    # 2. Not over: only a run that was set aside is news.
    if turn is not None and turn.state == TurnState.OPEN:
        return _note_dead_letter(task, turn.run)
    # 3. Over: comment once, then move, in the caller's transaction.
    by = access.system_principal()
    if turn is not None:
        _comment(turn, task)
    _move(by, task, turn)
    return True


def _note_dead_letter(task: Task, run: Run) -> bool:
    if run.state != State.DEAD_LETTER or task.status != TaskStatus.IN_PROGRESS:
        return False
    reason = f"Its run is a dead letter ({run.reason}); retry or dismiss it."
    _apply_status(access.system_principal(), task, TaskStatus.BLOCKED, reason)
    return True


def _move(by: Principal, task: Task, turn: Turn | None) -> None:
    status, reason = _verdict(turn)
    if task.status in (TaskStatus.IN_PROGRESS, TaskStatus.BLOCKED):
        _apply_status(by, task, status, reason, turn_id=None)
        return
    # A person, or history, decided otherwise: only stop waiting.
    change = changes.Change(
        type=TaskEventType.UPDATED, before=task, fields={"turn_id": None}, reason=reason
    )
    changes.apply(by, change)


def _verdict(turn: Turn | None) -> tuple[str, str]:
    if turn is None:
        return TaskStatus.BLOCKED, "Its turn is no longer in the store."
    name = f"@{turn.profile.slug}"
    if turn.state == TurnState.ANSWERED:
        return TaskStatus.DONE, f"{name} answered"
    why = turn.reason or turn.run.error_code or turn.run.reason
    because = f": {why.replace('_', ' ')}" if why else ""
    return TaskStatus.BLOCKED, f"{name} {turn.state}{because}"


def _apply_status(
    by: Principal, task: Task, status: str, reason: str, **more: None
) -> None:
    moved = task.status != status
    change = changes.Change(
        type=TaskEventType.TRANSITIONED if moved else TaskEventType.UPDATED,
        before=task,
        fields={"status": status, "status_reason": reason[:300], **more},
        reason=reason,
    )
    changes.apply(by, change)


def _comment(turn: Turn, task: Task) -> None:
    text = turn.answer_text or f"No answer: {_verdict(turn)[1]}."
    if len(text) > MOST_COMMENT_CHARACTERS:
        text = text[:MOST_COMMENT_CHARACTERS] + "… (cut; the trace has all of it)"
    agent = access.principal_for_agent(slug=turn.profile.slug, workspace=task.workspace)
    _, is_new = TaskComment.objects.get_or_create(
        key=f"turn:{turn.id}",
        defaults={
            "workspace_id": task.workspace_id,
            "task_id": task.id,
            "text": text,
            "actor_kind": agent.actor.kind,
            "actor_id": agent.actor.id,
            "actor_label": agent.actor.label,
            "run_id": turn.run_id,
            "trace_id": turn.trace_id,
        },
    )
    if is_new:
        audit.record(
            type="task.commented",
            actor=agent.actor,
            subject=("task", str(task.id)),
            workspace_id=task.workspace_id,
            run_id=turn.run_id,
            trace_id=turn.trace_id,
            data={"turn": str(turn.id), "characters": len(text)},
        )


def _labels(task: Task) -> frozenset[str]:
    """What an agent or automation wrote is not a person's word, whoever assigns."""
    wrote = TaskEvent.objects.filter(task_id=task.id, actor_kind__in=MACHINES)
    return frozenset({UNTRUSTED}) if wrote.exists() else frozenset()


def _request(task: Task) -> str:
    """What the agent is asked: the task, and what people said of it since."""
    parts = [f"Task: {task.title}"]
    if task.body:
        parts.append(task.body)
    if task.due_date:
        parts.append(f"Due: {task.due_date.isoformat()} (today is {clock.now():%F})")
    said = TaskComment.objects.filter(task_id=task.id).exclude(actor_kind__in=MACHINES)
    newest = list(said.order_by("-id")[:COMMENTS_SHOWN])[::-1]
    if newest:
        lines = [f"- {each.actor_label}: {each.text}" for each in newest]
        parts.append("Comments:\n" + "\n".join(lines))
    return "\n\n".join(parts)
