"""The envelope, the key ring and its check. Nothing here writes an event."""
