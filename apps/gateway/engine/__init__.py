"""The pipeline and its stages. Private: callers use `gateway.services`."""
