"""Makes the repository's root importable, and ends every run with one line per suite (``tests/suites.py``)."""

pytest_plugins = ["tests.suites", "tests.scenes"]
