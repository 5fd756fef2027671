"""Task boards: what is to be done, by whom, and what became of it.

Nouns: board, task, mark.
Hides: how two writers are kept from overwriting each other.
Invariants: a status changes only along one table; `conflicted` and `stale` are
marks that only `mark_task` sets; every change of a task leaves one event.
"""
