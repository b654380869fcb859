"""Our answers to the traps of the wire, each as the change that takes it out and the test that then fails.

``docs/traps.md`` says what each trap is; ``tests/traps/test_answers.py`` takes the answers out one by one.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` of ``module`` is the answer to ``trap``; with ``without`` in its place ``test`` (a node id) fails."""

    trap: int
    module: str
    text: str
    without: str
    test: str


_UNIT: Final = "tests/unit"
_SERVICE: Final = f"{_UNIT}/nsm/service"
_SESSION: Final = f"{_UNIT}/nsm/session"
_TRANSPORT: Final = f"{_UNIT}/nsm/transport"
_IDENTITY: Final = f"{_UNIT}/nsm/identity"
_WIRE: Final = f"{_UNIT}/nsm/wire"
_MANAGER: Final = f"{_UNIT}/controlplane/manager"
_ENDPOINT: Final = f"{_UNIT}/controlplane/endpoint"
_CLIENT: Final = f"{_UNIT}/controlplane/client"
_REGISTRY: Final = f"{_UNIT}/controlplane/registry/test_registry_over_sockets.py"
_FORWARDER: Final = f"{_UNIT}/forwarder_vpp/request/test_forwarder_role.py"
_HOP: Final = f"{_SERVICE}/test_hop_server.py"
_NEXT: Final = f"{_SERVICE}/test_hop_next_hop.py"
_DESCRIPTORS: Final = f"{_TRANSPORT}/test_transport_descriptors.py"
_TRUST: Final = f"{_TRANSPORT}/test_transport_trust.py"

ANSWERS: Final = (
    Answer(
        1,
        "nsm/wire/method.py",
        'return f"/{self.service}/{self.name}"',
        'return "/networkservice." + self.service.rpartition(".")[2] + "/" + self.name',
        f"{_WIRE}/test_wire_methods.py::test_a_method_has_its_path_messages_and_streaming_kind",
    ),
    Answer(
        2,
        "nsm/identity/tokens.py",
        'claims["aud"] = [audience]',
        'claims["aud"] = audience',
        f"{_IDENTITY}/test_identity_tokens.py::test_header_and_claims_are_exactly_those_of_upstream",
    ),
    Answer(
        2,
        "nsm/policy/builtin.py",
        "if len(left.aud) != 1:",
        "if len(left.aud) < 1:",
        f"{_UNIT}/nsm/policy/test_policy_rules.py::test_two_audiences_break_the_chain",
    ),
    Answer(
        3,
        "nsm/session/path.py",
        "path = route if caller is None or route.index == 0 else _with_token(route, route.index - 1, caller)",
        "path = route",
        f"{_HOP}::test_the_answer_has_the_callers_place_both_tokens_and_our_segment",
    ),
    Answer(
        4,
        "nsm/session/path.py",
        "path = path if own is None else _with_token(path, route.index, own)",
        "path = path if own is None else path",
        f"{_HOP}::test_the_answer_has_the_callers_place_both_tokens_and_our_segment",
    ),
    Answer(
        5,
        "nsm/transport/channel.py",
        "link.svid is self._identity.current.svid and link.is_usable",
        "link.is_usable",
        f"{_TRUST}::test_rotation_drops_no_connection_and_new_calls_use_the_new_svid",
    ),
    Answer(
        5,
        "nsm/service/arrival.py",
        "self._tokens.token(call.peer.spiffe_id, call.peer.not_after, call.peer.shown)",
        "self._tokens.token(call.peer.spiffe_id, call.peer.not_after)",
        f"{_SERVICE}/test_rotation.py::test_a_connection_is_refreshed",
    ),
    Answer(
        6,
        "nsm/identity/svid.py",
        "return isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and isinstance(\n"
        "        key.curve, ec.SECP256R1\n    )",
        "return bool(key)",
        f"{_IDENTITY}/test_identity_source.py::test_an_update_of_an_rsa_svid_is_refused_because_it_cannot_sign_tokens",
    ),
    Answer(
        7,
        "nsm/session/path.py",
        "replace(segment, token=token.text, expires=token.expires)",
        "replace(segment, token=token.text)",
        f"{_HOP}::test_the_answer_has_the_callers_place_both_tokens_and_our_segment",
    ),
    Answer(
        7,
        "nsm/session/timing.py",
        "if previous is None or previous.expires is None:",
        "if previous is None:",
        f"{_SESSION}/test_session_timing.py::test_no_expiry_of_the_caller_is_refused",
    ),
    Answer(
        8,
        "nsm/service/config.py",
        "return min(self.request_timeout, self.max_token_lifetime / 3)",
        "return self.request_timeout",
        f"{_SERVICE}/test_service_config.py::test_a_call_is_over_long_before_its_token",
    ),
    Answer(
        8,
        "nsm/session/timing.py",
        "return max(now, previous.expires / _SECOND_NS - (remaining or 0.0))",
        "return max(now, previous.expires / _SECOND_NS)",
        f"{_SESSION}/test_session_timing.py::test_a_deadline_longer_than_the_token_closes_at_once",
    ),
    Answer(
        8,
        "nsm/session/timing.py",
        "return max(now, end - min(remaining or 0.0, (end - now) * UNREGISTER_SHARE))",
        "return max(now, end - (remaining or 0.0))",
        f"{_SESSION}/test_session_timing.py::test_a_registration_is_not_dropped_before_its_refresh_is_due",
    ),
    Answer(
        9,
        "nsm/transport/call.py",
        "longest = FD_TIMEOUT if remaining is None else remaining * _MARGIN",
        "longest = float('inf') if remaining is None else remaining * _MARGIN",
        f"{_DESCRIPTORS}::test_one_that_never_comes_is_bounded_without_a_deadline",
    ),
    Answer(
        9,
        "nsm/transport/channel.py",
        "deadline = loop.time() + timeout\n",
        "deadline = loop.time() + 1e6\n",
        f"{_TRANSPORT}/test_transport_calls.py::test_the_deadline_reaches_the_handler",
    ),
    Answer(
        10,
        "nsm/service/arrival.py",
        "        self._check_name(connection.route)\n",
        "",
        f"{_SERVICE}/test_hop_traps.py::test_a_caller_of_our_own_name_is_refused_by_field",
    ),
    Answer(
        11,
        "nsm/session/path.py",
        "if caller.id != connection.id:",
        "if not caller.id:",
        f"{_SESSION}/test_session_path.py::test_a_step_that_cannot_be_names_the_field",
    ),
    Answer(
        11,
        "nsm/service/next_hop.py",
        "if answer.id != asked.id or answer.route.index != route.index:",
        "if not answer.id:",
        f"{_SERVICE}/test_next_hop_traps.py::test_an_answer_that_stands_on_another_segment_is_refused",
    ),
    Answer(
        12,
        "nsm/service/hop.py",
        "            built = trim(built)\n",
        "            pass\n",
        f"{_HOP}::test_an_endpoint_trims_and_a_middle_hop_does_not",
    ),
    Answer(
        12,
        "nsm/service/hop.py",
        "        if self._is_endpoint:\n            built = trim(built)",
        "        built = trim(built)",
        f"{_HOP}::test_an_endpoint_trims_and_a_middle_hop_does_not",
    ),
    Answer(
        13,
        "nsm/service/hop.py",
        "answer = restore(sent, arrival.ret)",
        "answer = sent",
        f"{_HOP}::test_the_answer_has_the_callers_place_both_tokens_and_our_segment",
    ),
    Answer(
        13,
        "nsm/service/hop.py",
        "        self._watchers.update(agreed)\n        return answer",
        "        self._watchers.update(answer)\n        return answer",
        f"{_HOP}::test_watchers_get_the_state_at_once_then_changes_of_what_they_selected",
    ),
    Answer(
        14,
        "nsm/service/watchers.py",
        "            yield self._table.initial(selector)\n",
        "            for event in (self._table.initial(selector),):\n"
        "                if event.connections:\n                    yield event\n",
        f"{_HOP}::test_watchers_get_the_state_at_once_then_changes_of_what_they_selected",
    ),
    Answer(
        15,
        "nsm/session/monitor.py",
        "for start in range(len(segments) - len(wanted) + 1)",
        "for start in range(1)",
        f"{_SESSION}/test_session_monitor.py::test_a_selector_names_a_run_of_the_path_and_a_service",
    ),
    Answer(
        15,
        "nsm/session/monitor.py",
        "return index < len(segments) and segments[index].id == own.id and theirs.route.index in (index, index + 1)",
        "return theirs.id == own.id",
        f"{_SESSION}/test_session_monitor.py::test_path_context_and_state_are_followed_and_nothing_else",
    ),
    Answer(
        16,
        "nsm/service/next_hop.py",
        "if not is_down and reason is not Code.CANCELLED:",
        "if is_down and reason is not Code.CANCELLED:",
        f"{_NEXT}::test_a_next_hop_that_stays_away_is_down_and_up_when_it_is_back",
    ),
    Answer(
        16,
        "nsm/service/next_hop.py",
        "if not is_down and reason is not Code.CANCELLED:",
        "if not is_down:",
        f"{_SERVICE}/test_next_hop_traps.py::test_a_cancelled_stream_says_nothing_about_connections",
    ),
    Answer(
        17,
        "nsm/transport/wire.py",
        "self.received: Final = Received()",
        'self.received: Final = globals().setdefault("EVERYBODYS", Received())',
        f"{_TRANSPORT}/test_transport_traps.py::test_a_descriptor_belongs_to_the_connection_it_came_on",
    ),
    Answer(
        18,
        "controlplane/endpoint/mechanism.py",
        "if connection.mechanism is not None and connection.mechanism.type:",
        "if connection.mechanism is not None and not preferences:",
        f"{_ENDPOINT}/test_endpoint_mechanism.py::test_a_refresh_keeps_what_was_agreed",
    ),
    Answer(
        18,
        "forwarder_vpp/request/ends.py",
        "if agreed is not None and agreed.type:",
        "if agreed is not None and not preferences:",
        f"{_UNIT}/forwarder_vpp/request/test_forwarder_traps.py::"
        "test_what_was_agreed_on_comes_before_the_preferences_of_a_refresh",
    ),
    Answer(
        19,
        "controlplane/client/wish.py",
        "        if mechanism.type == KERNEL:\n            mechanism = mechanism.having(**{INODE_URL: self.netns})\n",
        "",
        f"{_CLIENT}/test_client_traps.py::test_the_mechanism_of_a_refresh_has_our_namespace_whatever_the_answer_had",
    ),
    Answer(
        19,
        "nsm/service/fds.py",
        "sent = None if known is None else self.mechanism(known)",
        "sent = known",
        f"{_SERVICE}/test_hop_parts.py::test_the_same_object_leaves_once_whatever_leads_to_it",
    ),
    Answer(
        20,
        "nsm/transport/wire.py",
        "data, ancillary, flags, _ = self._sock.recvmsg(READ_SIZE, _CONTROL_SPACE, _CLOSE_ON_EXEC)",
        "data, ancillary, flags = self._sock.recv(READ_SIZE), [], 0",
        f"{_DESCRIPTORS}::test_those_that_a_go_server_sends_back_are_received",
    ),
    Answer(
        20,
        "nsm/service/next_hop.py",
        "                _let_go(channel, ours, leaving)\n",
        "",
        f"{_SERVICE}/test_next_hop_traps.py::test_our_own_descriptor_that_comes_back_is_let_go_of",
    ),
    Answer(
        21,
        "nsm/transport/tls.py",
        "        except ssl.SSLWantReadError:\n            return plain, False\n",
        "        except ssl.SSLWantReadError:\n            return plain, True\n",
        f"{_DESCRIPTORS}::test_one_byte_reads_carry_them_too",
    ),
    Answer(
        22,
        "nsm/transport/wire.py",
        "socket.CMSG_SPACE(253 * array",
        "socket.CMSG_SPACE(64 * array",
        f"{_TRANSPORT}/test_transport_traps.py::test_as_many_descriptors_as_the_kernel_lets_one_message_carry_arrive",
    ),
    Answer(
        22,
        "nsm/transport/wire.py",
        "if flags & _LOST:",
        "if flags & 0:",
        f"{_TRANSPORT}/test_transport_traps.py::test_descriptors_that_the_kernel_dropped_end_the_connection",
    ),
    Answer(
        23,
        "nsm/service/fds.py",
        'return f"{INODE}{status.st_dev}/{status.st_ino}"',
        'return f"{INODE}{os.major(status.st_dev)}:{os.minor(status.st_dev)}/{status.st_ino}"',
        f"{_TRANSPORT}/test_transport_traps.py::test_a_namespace_is_named_by_the_numbers_of_what_its_link_leads_to",
    ),
    Answer(
        23,
        "nsm/service/fds.py",
        "return os.open(path, os.O_PATH | os.O_CLOEXEC)",
        "return os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)",
        f"{_TRANSPORT}/test_transport_traps.py::test_a_namespace_is_named_by_the_numbers_of_what_its_link_leads_to",
    ),
    Answer(
        24,
        "nsm/transport/wire.py",
        "        while self.outbox and sent < len(data):",
        "        while self.outbox and sent < len(data) and len(data) < 30:",
        f"{_DESCRIPTORS}::test_ours_leave_before_or_with_the_request",
    ),
    Answer(
        25,
        "nsm/service/hop.py",
        "if not call.peer.passes_fds or url.startswith(fds.INODE):",
        "if call.peer.passes_fds and url.startswith(fds.INODE):",
        f"{_HOP}::test_over_tcp_no_url_of_a_descriptor_is_answered",
    ),
    Answer(
        26,
        "nsm/session/registry_path.py",
        'content = {"Index": path.index, "PathSegments": segments or None}',
        'content = {"index": path.index, "path_segments": segments or None}',
        f"{_SESSION}/test_registry_path.py::test_names_on_the_wire_are_those_of_go",
    ),
    Answer(
        26,
        "controlplane/registry/server.py",
        "call.send_metadata(path_metadata(leave(path)))",
        "path_metadata(leave(path))",
        f"{_REGISTRY}::test_the_path_comes_back_to_its_caller",
    ),
    Answer(
        27,
        "nsm/service/registry.py",
        "metadata = path_metadata(path)\n",
        "metadata = ()\n",
        f"{_REGISTRY}::test_services_get_the_default_payload_and_are_found",
    ),
    Answer(
        27,
        "controlplane/registry/server.py",
        "tokens = arrival.path.tokens[: arrival.path.index + 1] if sent is not None else ()\n"
        "        index = arrival.path.index if sent is not None else 0",
        "tokens = arrival.path.tokens[: arrival.path.index + 1]\n        index = arrival.path.index",
        f"{_REGISTRY}::test_without_a_path_it_is_denied_but_find_needs_none",
    ),
    Answer(
        28,
        "nsm/policy/rules.py",
        "self._owners.pop(name, None)",
        "del name",
        f"{_REGISTRY}::test_a_name_belongs_to_who_registered_it_until_it_is_unregistered",
    ),
    Answer(
        28,
        "nsm/policy/builtin.py",
        "return None if caller == owner else",
        "return None if caller else",
        f"{_REGISTRY}::test_a_name_belongs_to_who_registered_it_until_it_is_unregistered",
    ),
    Answer(
        29,
        "nsm/service/registration.py",
        "return replace(self._wanted, initial_registration_time=",
        "return replace(self._current, initial_registration_time=",
        f"{_SERVICE}/test_registry_client_registration.py::"
        "test_a_refresh_sends_the_endpoint_as_wanted_and_keeps_the_watch",
    ),
    Answer(
        30,
        "nsm/session/matching.py",
        "and query.url in endpoint.url",
        "and query.url in ('', endpoint.url)",
        f"{_SESSION}/test_matching.py::test_endpoint_queries",
    ),
    Answer(
        30,
        "nsm/session/matching.py",
        'query.name in ("", endpoint.name)\n        and query.url',
        "query.name in endpoint.name\n        and query.url",
        f"{_SESSION}/test_matching.py::test_endpoint_queries",
    ),
    Answer(
        31,
        "nsm/service/registration.py",
        "            await asyncio.sleep(max(0.0, self._retry_delay - (loop.time() - opened)))\n"
        "            await self._register(services=True)\n",
        "            return\n",
        f"{_SERVICE}/test_registry_client_registration.py::test_everything_is_registered_again_when_the_watch_is_lost",
    ),
    Answer(
        32,
        "controlplane/manager/local.py",
        "return response if response.deleted else None",
        "return response",
        f"{_MANAGER}/test_manager_local.py::test_stale_entries_of_ours_are_hidden_unless_deleted",
    ),
    Answer(
        32,
        "controlplane/manager/local.py",
        "shown = replace(endpoint, url=local.url, expiration_time=latest)",
        "shown = replace(endpoint, expiration_time=latest)",
        f"{_MANAGER}/test_manager_local.py::test_find_results_show_our_endpoints_by_the_url_we_dial",
    ),
    Answer(
        33,
        "controlplane/manager/registry.py",
        "            try:\n                sent = replace(wanted, url=self._local.public_url)",
        "            try:\n                sent = wanted",
        f"{_MANAGER}/test_manager_registry.py::test_the_registry_gets_our_url_and_labels_the_caller_its_own",
    ),
    Answer(
        34,
        "nsm/session/matching.py",
        "    known = tuple(forwarders)\n    if not service.matches:\n        return known\n",
        "    known = tuple(forwarders)\n",
        f"{_SESSION}/test_matching.py::test_forwarders_are_selected_by_metadata_labels",
    ),
    Answer(
        34,
        "nsm/session/matching.py",
        "wanted = match.metadata or FORWARDER_LABELS",
        "wanted = match.metadata or {}",
        f"{_SESSION}/test_matching.py::test_forwarders_are_selected_by_metadata_labels",
    ),
    Answer(
        35,
        "nsm/session/matching.py",
        'and query.payload in ("", service.payload)',
        "and bool(service)",
        f"{_SESSION}/test_matching.py::test_service_queries",
    ),
    Answer(
        35,
        "forwarder_vpp/request/role.py",
        'payload = connection.payload or service_payload or (known.intent.payload if known else "") or IP',
        "payload = connection.payload or IP",
        f"{_FORWARDER}::test_towards_another_node_ethernet_goes_by_vxlan_and_lowers_the_mtu",
    ),
    Answer(
        36,
        "nsm/session/matching.py",
        "if not found and match.metadata is not None and not match.routes:",
        "if not found and not match.routes:",
        f"{_SESSION}/test_matching.py::test_metadata_without_routes_selects_all",
    ),
    Answer(
        37,
        "nsm/session/matching.py",
        "    if len(labels) < len(selector):\n        return False\n",
        "    if not labels:\n        return True\n",
        f"{_SESSION}/test_matching.py::test_subset",
    ),
    Answer(
        38,
        "controlplane/manager/role.py",
        "connection = replace(incoming.connection, labels=self._labels.added_to(incoming.connection.labels))",
        "connection = incoming.connection",
        f"{_MANAGER}/test_manager_role.py::test_labels_and_prefixes_are_added_before_the_forwarder_is_asked",
    ),
    Answer(
        38,
        "nsm/session/matching.py",
        "if actual not in (wanted, render(wanted, values)):",
        "if actual != wanted:",
        f"{_SESSION}/test_matching.py::test_endpoint_on_the_clients_node_is_selected_by_template",
    ),
    Answer(
        39,
        "controlplane/endpoint/mechanism.py",
        "return mechanism.having(**{INODE_URL: netns, INTERFACE_NAME: name})",
        "return mechanism",
        f"{_ENDPOINT}/test_endpoint_mechanism.py::test_kernel_gets_our_namespace_and_a_name_that_stays",
    ),
    Answer(
        39,
        "forwarder_vpp/request/ends.py",
        "            kernel.preference()\n",
        '            Mechanism(LOCAL, KERNEL, {INTERFACE_NAME: "nsm0"})\n',
        f"{_FORWARDER}::test_a_local_connection_has_an_interface_at_each_end",
    ),
    Answer(
        40,
        "forwarder_vpp/request/ends.py",
        "cls = LOCAL if is_local else REMOTE",
        "cls = REMOTE",
        f"{_FORWARDER}::test_a_local_connection_has_an_interface_at_each_end",
    ),
    Answer(
        40,
        "forwarder_vpp/request/role.py",
        "built = replace(answer, mechanism=attempt.client.mechanism, context=context, payload=payload)",
        "built = replace(answer, context=context, payload=payload)",
        f"{_FORWARDER}::test_a_local_connection_has_an_interface_at_each_end",
    ),
    Answer(
        40,
        "controlplane/client/wish.py",
        "if mechanism is None or (mechanism.cls, mechanism.type) != (LOCAL, self.mechanism):",
        "if mechanism is None:",
        f"{_CLIENT}/test_client_session.py::test_a_mechanism_we_did_not_offer_is_refused_and_closed",
    ),
    Answer(
        41,
        "forwarder_vpp/mechanisms/kernel.py",
        "if not 0 < size <= MAX_NAME or is_odd or name in",
        "if not 0 < size or is_odd or name in",
        f"{_UNIT}/forwarder_vpp/mechanisms/test_kernel_ends.py::test_names_the_kernel_refuses_are_refused",
    ),
    Answer(
        42,
        "controlplane/endpoint/ipam.py",
        "above=dst)\n            if src is not None:\n                return self._take(Pair(src, dst))",
        "above=dst)\n            if src is not None:\n                return self._take(Pair(dst, src))",
        f"{_ENDPOINT}/test_point_to_point_ipam.py::"
        "test_the_endpoint_gets_the_lower_address_and_each_end_a_route_to_the_other",
    ),
    Answer(
        43,
        "controlplane/client/excluded.py",
        "if address is not None and parse_network(host(address)) in taken:",
        "if address is not None and not taken:",
        f"{_CLIENT}/test_client_excluded.py::test_an_answer_with_an_address_of_another_connection_is_refused",
    ),
    Answer(
        44,
        "forwarder_vpp/mechanisms/vxlan.py",
        "is_odd = _sixteen_bytes(source) > _sixteen_bytes(destination)",
        "is_odd = number & 1",
        f"{_UNIT}/forwarder_vpp/mechanisms/test_tunnel_sweep.py::"
        "test_two_nodes_that_answer_each_other_never_choose_the_same_vni",
    ),
    Answer(
        44,
        "forwarder_vpp/mechanisms/vxlan.py",
        "source = offered.get(SRC_ORIGINAL_IP) or offered.get(SRC_IP)",
        "source = offered.get(SRC_IP)",
        f"{_UNIT}/forwarder_vpp/mechanisms/test_tunnel_sweep.py::test_vni_parity_reads_the_original_addresses",
    ),
    Answer(
        45,
        "forwarder_vpp/request/ends.py",
        "before = known.client if known is not None else Choice()",
        "before = Choice()",
        f"{_UNIT}/forwarder_vpp/request/test_forwarder_traps.py::"
        "test_an_answered_wireguard_tunnel_keeps_its_key_over_refreshes",
    ),
    Answer(
        46,
        "forwarder_vpp/mechanisms/refused.py",
        '    MEMIF: "shared-memory interfaces are not carried by this forwarder; offer KERNEL",\n',
        "",
        f"{_UNIT}/forwarder_vpp/mechanisms/test_tunnel_sweep.py::"
        "test_every_type_nsm_knows_is_carried_or_refused_with_a_reason",
    ),
    Answer(
        47,
        "controlplane/endpoint/mechanism.py",
        "_TYPES: Final = (KERNEL, NOOP)",
        '_TYPES: Final = (KERNEL, NOOP, "MEMIF")',
        f"{_ENDPOINT}/test_endpoint_traps.py::test_memif_is_left_to_endpoints_that_have_a_memif_socket",
    ),
    Answer(
        48,
        "nsm/service/hop.py",
        "            if stored is None:\n                return\n            box",
        "            assert stored is not None\n            box",
        f"{_HOP}::test_close_of_an_unknown_connection_goes_on_only_where_the_path_is_all_that_is_known",
    ),
    Answer(
        49,
        "nsm/service/hop.py",
        "stored = self._table.on_close(own.id) or (own if self._is_forgetful else None)",
        "stored = own if self._is_forgetful else None",
        f"{_HOP}::test_close_gives_the_role_the_stored_connection_with_fresh_tokens",
    ),
    Answer(
        49,
        "forwarder_vpp/request/role.py",
        "undo = self._close_behind(attempt.url, answer)",
        "undo = asyncio.ensure_future(asyncio.sleep(0))",
        f"{_FORWARDER}::test_a_request_that_fails_here_leaves_nothing_and_closes_behind",
    ),
    Answer(
        50,
        "nsm/session/begin.py",
        "            return Admission(requested, must_close_first=True, is_refresh=False)",
        "            return Admission(requested, must_close_first=False, is_refresh=False)",
        f"{_HOP}::test_reselect_closes_what_is_stored_and_builds_anew",
    ),
    Answer(
        50,
        "nsm/service/hop.py",
        "            built = replace(built, state=State.UP)\n",
        "            pass\n",
        f"{_HOP}::test_reselect_closes_what_is_stored_and_builds_anew",
    ),
    Answer(
        51,
        "nsm/transport/tls.py",
        "    context.set_alpn_protocols([ALPN])\n",
        "",
        f"{_TRANSPORT}/test_transport_calls.py::test_both_ends_know_each_other_and_the_token_travels",
    ),
    Answer(
        52,
        "nsm/transport/channel.py",
        "(*pairs, *token_metadata(token))",
        "pairs",
        f"{_TRANSPORT}/test_transport_traps.py::test_a_stream_carries_the_token_too",
    ),
    Answer(
        53,
        "nsm/session/tokens.py",
        """return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}{fraction}Z\"""",
        """return f"{moment.replace(tzinfo=None).isoformat(timespec='seconds')}{fraction}\"""",
        f"{_SESSION}/test_session_tokens.py::test_what_is_written_can_be_read",
    ),
    Answer(
        54,
        "nsm/session/tokens.py",
        "if len(texts) != 1 or len(expiries) != 1:",
        "if not texts or not expiries:",
        f"{_SESSION}/test_session_tokens.py::test_anything_but_one_of_each_counts_as_no_token",
    ),
    Answer(
        57,
        "controlplane/manager/settings.py",
        "if not url:",
        "if url is None:",
        f"{_MANAGER}/test_manager_settings.py::test_a_manager_needs_a_registry",
    ),
    Answer(
        58,
        "controlplane/manager/registry.py",
        "        if not call.peer.passes_fds:\n            raise NsmError(",
        "        if call.peer is None:\n            raise NsmError(",
        f"{_MANAGER}/test_manager_traps.py::test_a_socket_is_taken_from_callers_on_unix_only",
    ),
    Answer(
        60,
        "nsm/identity/svid.py",
        "if chain[-1] not in bundle:",
        "if not chain[-1]:",
        f"{_TRUST}::test_a_federated_authority_cannot_sign_for_our_domain",
    ),
    Answer(
        61,
        "nsm/wire/codec/base.py",
        "stamp.nanos = nanos",
        "stamp.nanos = 0",
        f"{_WIRE}/test_wire_errors.py::test_times_from_year_1_to_9999_are_exact",
    ),
    Answer(
        61,
        "nsm/identity/tokens.py",
        "exp = int(min(now + self._max_lifetime, svid.not_after))",
        "exp = min(now + self._max_lifetime, svid.not_after)",
        f"{_IDENTITY}/test_identity_traps.py::test_exp_is_whole_seconds_and_never_later_than_asked",
    ),
    Answer(
        62,
        "nsm/session/registry_path.py",
        'content.get("Index", 0)',
        'content.get("Index")',
        f"{_SESSION}/test_session_traps.py::test_an_index_that_is_left_out_is_0",
    ),
    Answer(
        67,
        "nsm/service/next_hop.py",
        "if peer.passes_fds and _names_a_path(ours):",
        "if not peer.passes_fds and _names_a_path(ours):",
        f"{_SERVICE}/test_next_hop_traps.py::test_an_answer_that_names_a_path_is_asked_for_again_on_the_same_path",
    ),
    Answer(
        67,
        "nsm/service/next_hop.py",
        "if receive is None or url.startswith(fds.FILE):",
        "if url.startswith(fds.FILE):\n            return answer\n        if receive is None:",
        f"{_SERVICE}/test_next_hop_traps.py::test_a_path_that_a_next_hop_insists_on_is_never_opened",
    ),
    Answer(
        67,
        "nsm/service/fds.py",
        "if url.startswith(FILE) and self._passes_fds:\n                raise",
        "if url.startswith(FILE) and not self._passes_fds:\n                raise",
        f"{_HOP}::test_a_path_that_a_peer_names_is_refused_and_never_opened",
    ),
)
