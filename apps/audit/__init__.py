"""Remember what happened, so that nobody can change it unnoticed.

Hides the tree, the tiles, the witness journal, the signatures and the sinks.
Nouns: event, chain head, checkpoint, witness, payload, sink. Invariants: an event
is written in the transaction of the change it records; rows are only inserted
(the one change is `gseq` from NULL to a number); leaf i of the RFC 6962 tree is
the event with gseq i; the witness is never ahead of the committed database.
"""
