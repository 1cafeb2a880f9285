"""The two ways a command can end badly, told apart by who can cure it."""


class LeapError(Exception):
    """An error with a message meant for a person: what was wrong, the value, and the cure."""

    exit_code = 1


class UsageError(LeapError):
    """What was asked for cannot be done as asked: a wrong value, name, file or combination (exit code 2)."""

    exit_code = 2


class RunError(LeapError):
    """What was asked for failed on the way: a damaged file, a full disk, a walk that diverged (exit code 1)."""

    exit_code = 1


class Trouble(str):
    """A line for a person about what went wrong and was survived: who keeps other lines to themselves passes it on."""

    __slots__ = ()
