"""What the supervisor refuses or fails to do."""


class SupervisorError(Exception):
    """The supervisor cannot go on with what it was asked; the text says why."""


class Refused(SupervisorError):  # noqa: N818 - the name says what happened
    """What was asked cannot be done as things are; nothing was changed, and the text says why."""


class TooSoon(Refused):
    """What was asked can be done, but not so often; the text says how often."""


class WorkerError(SupervisorError):
    """A worker did not do what it was asked; the text says what and why."""


def describe(error: Exception) -> str:
    """Return what an operator needs to read of an error; an OSError's number is not among it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or repr(error)
