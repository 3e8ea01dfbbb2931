class UserError(Exception):
    """A mistake the user can mend; scripts print it as one line and exit with status 2."""
