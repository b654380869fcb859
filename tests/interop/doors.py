"""Somebody at the doors of a connection's first hops, with identities that SPIRE gives out on its node."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tests import attacks
from tests.attacks import Attack

from .attested import caller_of, spire_of
from .casts import Mixed


def door(stage: Mixed, hop: str, victim: Mapping[str, Any]) -> Attack:
    """``victim`` is the ``connected`` event of a client on the near node."""
    world = spire_of(stage.world)
    world.identify(stage.near, "client", attacks.THIEF)
    return Attack(stage, hop, dict(victim), partial(caller_of, world, stage.near))


def doors(stage: Mixed, victim: Mapping[str, Any]) -> tuple[Attack, ...]:
    """Of the manager and the forwarder."""
    return tuple(door(stage, hop, victim) for hop in attacks.HOPS)
