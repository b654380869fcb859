"""Access lists, and which of them an interface obeys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forwarder_vpp.dataplane.contract.items import Handles, Item, Key, Present
from forwarder_vpp.dataplane.contract.vpp import Vpp
from forwarder_vpp.dataplane.vpp.messages import acl as api
from forwarder_vpp.dataplane.vpp.messages.common import ANY

from .inventory import inventory
from .keys import ACL, ACL_BINDING, number
from .outcome import remove
from .tags import owner_of

_GONE = frozenset({"NO_SUCH_ENTRY", "INVALID_SW_IF_INDEX"})


@dataclass(frozen=True, slots=True)
class Acl:
    """``rules`` in order; what none of them permits is denied."""

    tag: str
    rules: tuple[api.Rule, ...]

    @property
    def key(self) -> Key:
        """By the tag."""
        return Key(ACL, self.tag)

    @property
    def requires(self) -> tuple[Key, ...]:
        """Nothing."""
        return ()


class Acls:
    """Descriptor of ``Acl``; the handle is VPP's list index."""

    kind = ACL

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: Acl, handles: Handles) -> object:
        """One message."""
        request = api.AclReplace(acl_index=ANY, tag=item.tag, rules=item.rules)
        return (await self._vpp.create(request, lambda reply: api.AclDelete(reply.acl_index))).acl_index

    def updatable(self, old: Acl, new: Acl) -> bool:
        """Lists are replaced in place."""
        return old.tag == new.tag

    async def update(self, old: Acl, new: Acl, handle: object, handles: Handles) -> object:
        """One message."""
        assert isinstance(handle, int)
        await self._vpp.call(api.AclReplace(acl_index=handle, tag=new.tag, rules=new.rules))
        return handle

    async def delete(self, item: Acl, handle: object, handles: Handles) -> None:
        """One message."""
        assert isinstance(handle, int)
        await remove(self._vpp, api.AclDelete(handle), gone=_GONE)

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Tagged ones."""
        return [
            Present(Key(ACL, each.tag), Acl(each.tag, each.rules), each.acl_index, owner_of(each.tag))
            for each in await self._vpp.dump(api.AclDump())
            if owner_of(each.tag)
        ]


@dataclass(frozen=True, slots=True)
class AclBinding:
    """What ``interface`` lets in (``inputs``) and out (``outputs``): keys of lists, the first match counts."""

    interface: Key
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]

    @property
    def key(self) -> Key:
        """One for each interface."""
        return Key(ACL_BINDING, str(self.interface))

    @property
    def requires(self) -> tuple[Key, ...]:
        """The interface and the lists."""
        return (self.interface, *self.inputs, *self.outputs)


class AclBindings:
    """Descriptor of ``AclBinding``; the handle is the ``sw_if_index``."""

    kind = ACL_BINDING

    def __init__(self, vpp: Vpp) -> None:
        self._vpp = vpp

    async def create(self, item: AclBinding, handles: Handles) -> object:
        """One message."""
        index = number(handles, item.interface)
        lists = tuple(number(handles, key) for key in (*item.inputs, *item.outputs))
        await self._vpp.call(api.InterfaceAcls(sw_if_index=index, n_input=len(item.inputs), acls=lists))
        return index

    def updatable(self, old: AclBinding, new: AclBinding) -> bool:
        """The whole list is written at once."""
        return old.key == new.key

    async def update(self, old: AclBinding, new: AclBinding, handle: object, handles: Handles) -> object:
        """As a creation."""
        return await self.create(new, handles)

    async def delete(self, item: AclBinding, handle: object, handles: Handles) -> None:
        """One message."""
        assert isinstance(handle, int)
        await remove(self._vpp, api.InterfaceAcls(sw_if_index=handle, n_input=0, acls=()))

    async def dump(self, wanted: Mapping[Key, Item]) -> Sequence[Present]:
        """Those of interfaces with a natural key, as far as all lists are ours."""
        interfaces = (await inventory(self._vpp)).by_index
        names = {each.acl_index: each.tag for each in await self._vpp.dump(api.AclDump())}
        present = []
        for bound in await self._vpp.dump(api.InterfaceAclsDump()):
            found = interfaces.get(bound.sw_if_index)
            tags = [names.get(index, "") for index in bound.acls]
            if found is None or not tags or not all(owner_of(tag) for tag in tags):
                continue
            keys = tuple(Key(ACL, tag) for tag in tags)
            item = AclBinding(found.key, keys[: bound.n_input], keys[bound.n_input :])
            present.append(Present(item.key, item, bound.sw_if_index, found.owner or owner_of(tags[0])))
        return present
