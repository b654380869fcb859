"""The one error of the operator's tool: a sentence that says what is wrong and what to do."""


class LabError(Exception):
    """Shown to the operator as it is, without a traceback; exit status 1."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """The message, and behind it what to do."""
        return f"{self.message}; {self.hint}" if self.hint else self.message
