"""Makes the repository's root importable, so that tests share ``tests.fakes``."""
