"""VPP's return values as errors with names (numbers: the API errors of VPP 26.06)."""

from typing import Final

from nsm.model.errors import Code, NsmError

NAMES: Final[dict[int, str]] = {
    -1: "UNSPECIFIED",
    -2: "INVALID_SW_IF_INDEX",
    -3: "NO_SUCH_FIB",
    -6: "NO_SUCH_ENTRY",
    -7: "INVALID_VALUE",
    -8: "INVALID_VALUE_2",
    -9: "UNIMPLEMENTED",
    -10: "INVALID_SW_IF_INDEX_2",
    -11: "SYSCALL_ERROR_1",
    -12: "SYSCALL_ERROR_2",
    -13: "SYSCALL_ERROR_3",
    -14: "SYSCALL_ERROR_4",
    -15: "SYSCALL_ERROR_5",
    -16: "SYSCALL_ERROR_6",
    -17: "SYSCALL_ERROR_7",
    -18: "SYSCALL_ERROR_8",
    -19: "SYSCALL_ERROR_9",
    -20: "SYSCALL_ERROR_10",
    -30: "FEATURE_DISABLED",
    -50: "NEXT_HOP_NOT_IN_FIB",
    -52: "NO_PATHS_IN_ROUTE",
    -54: "NO_MATCHING_INTERFACE",
    -57: "INVALID_SRC_ADDRESS",
    -58: "INVALID_DST_ADDRESS",
    -59: "ADDRESS_LENGTH_MISMATCH",
    -60: "ADDRESS_NOT_FOUND_FOR_INTERFACE",
    -61: "ADDRESS_NOT_DELETABLE",
    -62: "IP6_NOT_ENABLED",
    -68: "SUBIF_ALREADY_EXISTS",
    -70: "INVALID_MEMORY_SIZE",
    -71: "INVALID_INTERFACE",
    -73: "INVALID_ARGUMENT",
    -74: "UNEXPECTED_INTF_STATE",
    -75: "TUNNEL_EXIST",
    -76: "INVALID_DECAP_NEXT",
    -79: "IF_ALREADY_EXISTS",
    -81: "VALUE_EXIST",
    -82: "SAME_SRC_DST",
    -88: "IP_PREFIX_INVALID",
    -97: "INVALID_ADDRESS_FAMILY",
    -99: "TABLE_TOO_BIG",
    -100: "CANNOT_ENABLE_DISABLE_FEATURE",
    -105: "ADDRESS_IN_USE",
    -106: "ADDRESS_NOT_IN_USE",
    -107: "QUEUE_FULL",
    -114: "ADDRESS_FOUND_FOR_INTERFACE",
    -116: "ENTRY_ALREADY_EXISTS",
    -126: "UNSUPPORTED",
    -142: "ACL_IN_USE_INBOUND",
    -143: "ACL_IN_USE_OUTBOUND",
    -144: "INIT_FAILED",
    -145: "NETLINK_ERROR",
    -147: "INSTANCE_IN_USE",
    -149: "ACL_IN_USE_BY_LOOKUP_CONTEXT",
    -155: "RSRC_IN_USE",
    -156: "KEY_LENGTH",
    -160: "NO_CHANGE",
    -162: "LIMIT_EXCEEDED",
    -164: "UDP_PORT_TAKEN",
    -165: "EAGAIN",
    -167: "BUSY",
    -168: "BUG",
    -169: "FEATURE_ALREADY_DISABLED",
    -170: "FEATURE_ALREADY_ENABLED",
    -171: "INVALID_PREFIX_LENGTH",
}

GONE: Final = frozenset(
    {
        "INVALID_SW_IF_INDEX",
        "INVALID_SW_IF_INDEX_2",
        "NO_SUCH_ENTRY",
        "NO_MATCHING_INTERFACE",
        "INVALID_INTERFACE",
        "ADDRESS_NOT_FOUND_FOR_INTERFACE",
    }
)
"""What VPP answers when the object to remove is not there."""

_CODES: Final = {
    "IF_ALREADY_EXISTS": Code.ALREADY_EXISTS,
    "TUNNEL_EXIST": Code.ALREADY_EXISTS,
    "VALUE_EXIST": Code.ALREADY_EXISTS,
    "ENTRY_ALREADY_EXISTS": Code.ALREADY_EXISTS,
    "SUBIF_ALREADY_EXISTS": Code.ALREADY_EXISTS,
    "INSTANCE_IN_USE": Code.ALREADY_EXISTS,
    "UDP_PORT_TAKEN": Code.RESOURCE_EXHAUSTED,
    "INVALID_MEMORY_SIZE": Code.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": Code.RESOURCE_EXHAUSTED,
    "LIMIT_EXCEEDED": Code.RESOURCE_EXHAUSTED,
    "TABLE_TOO_BIG": Code.RESOURCE_EXHAUSTED,
    "UNIMPLEMENTED": Code.UNIMPLEMENTED,
    "UNSUPPORTED": Code.UNIMPLEMENTED,
    "FEATURE_DISABLED": Code.FAILED_PRECONDITION,
    "EAGAIN": Code.UNAVAILABLE,
    "BUSY": Code.UNAVAILABLE,
} | dict.fromkeys(GONE, Code.NOT_FOUND)


class VppError(NsmError):
    """VPP refused a message: ``request`` names it, ``retval`` is VPP's number and ``name`` its meaning."""

    def __init__(self, request: str, retval: int) -> None:
        self.request = request
        self.retval = retval
        self.name = NAMES.get(retval, f"ERROR_{-retval}")
        message = f"VPP refused {request}: {self.name} ({retval})"
        super().__init__(_CODES.get(self.name, Code.INTERNAL), message)


def unavailable(reason: str) -> NsmError:
    """UNAVAILABLE: VPP cannot be reached."""
    return NsmError(Code.UNAVAILABLE, reason)
