"""Errors of the client."""


class OutcomeUnknown(Exception):
    """A write may or may not have happened: read the key to find out."""
