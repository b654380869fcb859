"""What a person sees while something takes long: one line a step on stderr, silent when nobody watches."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Progress:
    """Steps of a longer piece of work; ``quiet`` shows nothing."""

    quiet: bool = False
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """One line."""
        if not self.quiet:
            sys.stderr.write(f"{time.monotonic() - self.started:6.1f} s  {text}\n")
            sys.stderr.flush()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One line when it is done, or when it failed."""
        try:
            yield
        except BaseException:
            self.say(f"{text}: failed")
            raise
        self.say(text)
