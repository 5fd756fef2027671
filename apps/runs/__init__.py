"""All background work: runs, schedules, leases, retries, dead letters.

Hides: how a run is claimed, kept, lost and picked up again, and how a moment on
the calendar becomes a run.
Nouns: run, schedule, slot, lease, fence, attempt, dead letter.
Invariants: one running run per serial key; every write after a claim carries the
fence; a run is terminal, waiting with a named reason, queued, leased, or a dead
letter; one slot of a schedule fires at most once.
"""
