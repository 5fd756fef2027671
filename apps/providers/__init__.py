"""Model providers: who can answer, in which order, at what price.

Hides: vendors, their wire formats and failures, failover and circuit breakers.
Nouns: provider, model, route, lane, breaker, attempt, usage row.
Invariants: one gateway call per route attempt; every route of a plan leaves an
attempt row; a key lives only inside its lease; an answer says who served it.
"""
