"""The deep part of channels: streams to open pages."""
