"""The errors that a user sees: one line that says what is wrong, where, and what to do."""


class CsprError(Exception):
    """A failure that the program understands. Commands print it as one line."""

    exit_code = 1


class InputError(CsprError):
    """The input or a setting is wrong; nothing was written. Commands exit with 2."""

    exit_code = 2
