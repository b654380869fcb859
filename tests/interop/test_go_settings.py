"""The settings that the Go forwarder itself names are those of the table in docs/drop-in.md."""

import os
import re
import subprocess

from tests.unit.forwarder_vpp.test_upstream_settings import table

from . import peers

pytestmark = peers.needs(peers.FORWARDER)


def test_the_table_has_every_setting_that_the_go_forwarder_prints() -> None:
    program = peers.find(peers.FORWARDER)
    assert program is not None
    env = {"PATH": os.environ["PATH"], "NSM_DIAL_TIMEOUT": "none"}  # which ends it after its settings
    done = subprocess.run([program], env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    named = re.findall(r"^\s*(NSM_\w+)", done.stdout, re.MULTILINE)
    assert set(named) == set(table())
