class UserError(Exception):
    """A mistake the user can mend; scripts print it as one line and exit with status 2."""


class WorkerLost(Exception):
    """Worker processes died repeatedly on one probe; scripts print it and exit with status 1."""
