"""The stock vpp_papi client against the fake: if it is fooled, the fake's socket is VPP's socket."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from vpp_papi import VPPApiClient

from tests.contract.targets import api_folder
from tests.fakes.fake_vpp.server import FakeVpp


def drive(path: str, folder: str) -> tuple[Any, ...]:
    client = VPPApiClient(apidir=folder, server_address=path)
    client.connect("papi")
    try:
        made = client.api.vxlan_add_del_tunnel_v3(
            src_address="10.0.0.1", dst_address="10.0.0.2", src_port=4789, dst_port=4789, vni=5
        )
        client.api.sw_interface_tag_add_del(is_add=True, sw_if_index=made.sw_if_index, tag="papi")
        tunnels = client.api.vxlan_tunnel_v2_dump()
        tags = [each.tag for each in client.api.sw_interface_dump()]
        version = client.api.show_version().version
        refused = client.api.sw_interface_set_flags(sw_if_index=77, flags=1).retval
    finally:
        client.disconnect()
    return made, tunnels, tags, version, refused


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_papi_creates_tags_and_dumps(tmp_path: Path) -> None:
    folder = api_folder()
    fake = FakeVpp(str(tmp_path / "api.sock"))
    await fake.start()
    made, tunnels, tags, version, refused = await asyncio.to_thread(drive, fake.path, folder)
    assert made.retval == 0
    assert [(each.vni, each.sw_if_index) for each in tunnels] == [(5, made.sw_if_index)]
    assert tags == ["", "papi"]
    assert version == "26.06-fake"
    assert refused == -2
    await fake.kill()
