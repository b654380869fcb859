"""Scenario 7: the set of services of a running client changes, and what stays is not touched."""

import os
import signal
from pathlib import Path

import yaml

from nsmctl.lab.demonstration import flows_of
from tests.scenes import Scene, carried, links, settled


def write(file: Path, *urls: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump({"network_services": list(urls)}))
    new.replace(file)


def test_a_third_service_comes_and_the_first_goes_without_a_loss_on_the_second(
    lab: Scene, tmp_path: Path
) -> None:
    pools = {
        name: f"[172.16.{number}.0/24],[fd00:172:{number}::/112]"
        for number, name in enumerate(("one", "two", "three"))
    }
    for name, pool in pools.items():
        node = lab.near if name == "one" else lab.far
        lab.endpoint(name, node=node, payload="IP" if name != "three" else "ETHERNET", NSM_CIDR_PREFIX=pool)
    first, second, third = (
        f"kernel://{name}-service/{interface}"
        for name, interface in (("one", "nsm-1"), ("two", "nsm-2"), ("three", "nsm-3"))
    )
    file = tmp_path / "client.yaml"
    write(file, first, second)
    lab.client_of_file("switcher", file)
    kept = lab.wait("switcher", "connected", connection="switcher-1")
    before = links(lab.netns("switcher"))
    assert set(before) == {"nsm-1", "nsm-2"}

    with lab.probes(flows_of(kept), "switcher", "two") as running:
        since = lab.mark_log("switcher")
        write(file, second, third)
        os.kill(lab.process("switcher").pid, signal.SIGHUP)
        reloaded = lab.wait("switcher", "reloaded", since=since)
        added = lab.wait("switcher", "connected", since=since, connection=reloaded["added"][0])
        lab.wait("switcher", "closed", since=since, connection="switcher-0")
        verdicts = running.finish()

    carried(verdicts)
    assert reloaded["removed"] == ["switcher-0"]
    # The forwarder removes an interface after it has answered the Close.
    after = settled(lambda: links(lab.netns("switcher")), lambda found: "nsm-1" not in found)
    assert set(after) == {"nsm-2", "nsm-3"}
    assert after["nsm-2"] == before["nsm-2"]
    carried(lab.probe(added, "switcher", "three", seconds=0.5))


def test_a_settings_file_that_is_wrong_changes_nothing(lab: Scene, tmp_path: Path) -> None:
    lab.endpoint("one")
    file = tmp_path / "client.yaml"
    write(file, "kernel://one-service/nsm-1")
    lab.client_of_file("switcher", file)
    before = links(lab.netns("switcher"))
    since = lab.mark_log("switcher")
    write(file, "memif://one-service/nsm-1?=")
    os.kill(lab.process("switcher").pid, signal.SIGHUP)
    refused = lab.wait("switcher", "reload.refused", since=since)
    assert "NSM_NETWORK_SERVICES" in refused["reason"]
    assert links(lab.netns("switcher")) == before
