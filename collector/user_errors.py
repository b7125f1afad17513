"""Errors that a user can correct."""


class UserError(Exception):
    """An error that a user can correct; the message says in one line what is wrong and what to do."""


class StoreError(UserError):
    """A store that cannot be opened or used; the message says why and what to do."""


class StoreUnavailable(StoreError):
    """A store that currently rejects all data, whatever its content."""
