"""Every profile of vpp-config boots a real VPP that speaks our API, or names the hardware it needs."""

from pathlib import Path

import pytest

from forwarder_vpp.dataplane.vpp.process import VppProcess
from forwarder_vpp.dataplane.vpp.profile import render
from forwarder_vpp.dataplane.vpp.session import VppSession
from nsm.model.errors import Code, NsmError
from tests.contract.targets import vpp_binary


@pytest.mark.vpp
@pytest.mark.parametrize("profile", ["lab", "af_packet"])
async def test_it_boots_and_speaks_our_api(profile: str, tmp_path: Path) -> None:
    process = VppProcess(tmp_path, profile=profile, binary=vpp_binary())
    await process.ensure()
    session = VppSession(str(process.api_socket))
    try:
        await session.connect()
        assert session.version.startswith("26.06")
    finally:
        await session.close()
        await process.stop()
    assert not process.api_socket.exists()


@pytest.mark.parametrize(
    ("profile", "needs"), [("af_xdp", "a NIC that can AF_XDP"), ("dpdk", "a NIC or an SR-IOV VF of its own")]
)
def test_the_others_say_which_hardware_they_need(profile: str, needs: str, tmp_path: Path) -> None:
    text = render(profile, tmp_path, {"pci_address": "0000:03:00.0"})
    assert needs in text.splitlines()[0]
    assert f"{profile}_plugin.so {{ enable }}" in text


def test_an_unknown_profile_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NsmError, match="no profile 'none'") as caught:
        render("none", tmp_path, {})
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.field == "profile"
