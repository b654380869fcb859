"""The labs come from ``tests.scenes``, shared with the chaos suite."""

from tests.scenes import Scene, build

__all__ = ["Scene", "build"]
