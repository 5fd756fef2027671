"""What every app stands on: clock, ids, canonical text, errors, redaction, egress.

No tables and no knowledge of any app. Time is read here and nowhere else, the
network is opened here or in an adapter and nowhere else.
"""
