//! The client of a request: its address, its network, and its bearer token.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, header};

/// Returns the token of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns the token of `Authorization`, under either of the schemes of speech services: `Bearer`, or
/// `Token`, which Deepgram's clients use for keys.
pub(crate) fn bearer_or_key(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let is_known = ["bearer", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    is_known.then_some(token.trim())
}

/// Returns the address that the request comes from: that of the connection, or of the client of a trusted
/// proxy.
pub(crate) fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

/// Extension of a request: `false` if a proxy forwards it without a name of its client that is believed, so
/// that its address is the proxy's.
#[derive(Clone, Copy)]
pub(crate) struct AddressIsKnown(pub(crate) bool);

/// Returns whether the address of a request is that of its client, as far as anyone can tell.
pub(crate) fn has_known_address(request: &Request) -> bool {
    request.extensions().get::<AddressIsKnown>().is_some_and(|known| known.0)
}

/// Returns the address of the client of a request, or `None` if a proxy that is not trusted forwards it.
pub fn known_address(request: &Request) -> Option<IpAddr> {
    has_known_address(request).then(|| peer(request)).flatten()
}

/// Returns the address, or network of addresses, that counts as one client: an IPv4 address, or an IPv6
/// network of 64 bits, of which a client may use any address.
pub(crate) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}
