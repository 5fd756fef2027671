"""The deep part: the first rows of a fresh install."""
