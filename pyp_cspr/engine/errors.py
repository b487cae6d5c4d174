"""The errors that a user sees: one line that says what is wrong, where, and what to do."""

LONGEST = 900  # characters of a message: a value that it quotes from a damaged file may have any length


class CsprError(Exception):
    """A failure that the program understands. Commands print it as one line."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        text = str(message)
        if not text.isprintable():  # a damaged file may hold line ends and a terminal's control characters
            text = "".join(mark if mark.isprintable() else " " if mark.isspace() else "?" for mark in text)
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 305]} ... {text[-300:]}")


class InputError(CsprError):
    """The input or a setting is wrong; nothing was written. Commands exit with 2."""

    exit_code = 2
