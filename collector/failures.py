"""What users can mend."""


class Unusable(Exception):
    """Something that a user can mend; the message says in one line what is wrong, and what to do."""


class StoreError(Unusable):
    """The store cannot be opened or used; the message says why and what to do."""


class StoreDown(StoreError):
    """The store takes nothing at present, whatever it is."""
