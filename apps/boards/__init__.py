"""Task boards: what is to be done, by whom, and what became of it.

Nouns: board, task, mark, comment.
Hides: how two writers are kept from overwriting each other, and how an agent that
is assigned a task is asked once and its answer moves the task once.
Invariants: a status changes only along one table; `conflicted` and `stale` are
marks that only `mark_task` sets, and a marked task stands still; every change of
a task leaves one event.
"""
