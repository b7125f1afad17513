"""What users can mend."""


class UserError(Exception):
    """Something that a user can mend; the message says in one line what is wrong, and what to do."""


class StoreError(UserError):
    """The store cannot be opened or used; the message says why and what to do."""


class StoreUnavailable(StoreError):
    """The store takes nothing at present, whatever it is."""
