"""Two SPIRE servers that trust each other: each fetches the other's bundle from its endpoint (SPIFFE Federation §5)."""

from .spire import BUNDLE_PORT, Registrations


def federate(one: Registrations, other: Registrations) -> None:
    """Identities of ``one`` trust those of ``other`` from now on, whose bundle is carried over once by hand."""
    file = one.server.directory / "spire" / f"{other.trust_domain}.json"
    file.write_text(other.ask("bundle", "show", "-format", "spiffe"))
    relation = {
        "-trustDomain": other.trust_domain,
        "-bundleEndpointURL": f"https://{other.server.ip}:{BUNDLE_PORT}",
        "-bundleEndpointProfile": "https_spiffe",
        "-endpointSpiffeID": f"spiffe://{other.trust_domain}/spire/server",
        "-trustDomainBundlePath": str(file),
        "-trustDomainBundleFormat": "spiffe",
    }
    one.ask("federation", "create", *(word for pair in relation.items() for word in pair))
    one.federates_with.append(other.trust_domain)
    one.update()


def refresh(one: Registrations, other: Registrations) -> None:
    """``one`` asks for the bundle of ``other`` now instead of within a minute or so."""
    one.ask("federation", "refresh", "-id", other.trust_domain)


def withdraw(one: Registrations, other: Registrations) -> None:
    """Identities of ``one`` trust those of ``other`` no longer."""
    one.federates_with.remove(other.trust_domain)
    one.ask("federation", "delete", "-id", other.trust_domain)
    one.ask("bundle", "delete", "-id", f"spiffe://{other.trust_domain}", "-mode", "dissociate")
