"""The envelope and the rows that hold it. Nothing here writes an event."""
