"""What can go wrong, apart from mistakes in the code."""


class UserError(Exception):
    """A mistake the user can mend; scripts print it as one line and exit with status 2."""


class OutOfMemory(Exception):
    """Memory is too short for a probe; scripts print it as one line and exit with status 1."""
