//! Addresses of clients behind proxies that the operator trusts, as named by `X-Forwarded-For`, by
//! `Forwarded` (RFC 7239), or by a PROXY protocol version 2 header at the start of a connection.
//!
//! Proxies append to the two HTTP headers, so both are read from the right: the client is the rightmost
//! address that is not a trusted proxy itself. The client may have written anything to the left of it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, copy, sink};
use tokio::net::TcpStream;

use super::error::ApiError;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers by which proxies say that they forward a request: those of the client's address, that of nginx'
/// guides, and `Via` (RFC 9110, section 7.6.3).
const FORWARDING: [HeaderName; 4] =
    [X_FORWARDED_FOR, header::FORWARDED, HeaderName::from_static("x-real-ip"), header::VIA];

/// Signature of a PROXY protocol version 2 header (proxy-protocol.txt, section 2.2).
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Networks of trusted proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(Arc<[IpNet]>);

/// Error for a trusted proxy's header that can't be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadForwarding {
    #[error("the proxy's X-Forwarded-For is not a list of addresses")]
    XForwardedFor,
    #[error("the proxy's Forwarded is not as RFC 7239 has it")]
    Forwarded,
    /// The two headers name different clients. A proxy that sets one of them may pass on the other as its
    /// client wrote it.
    #[error("X-Forwarded-For and Forwarded name different clients: the proxy should remove one of them")]
    Contradiction,
}

/// A client of a proxy, as the proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Address(IpAddr),
    /// The proxy doesn't know its client, or doesn't name it.
    Hidden,
}

/// Returns whether a proxy says that it forwards the request.
pub(crate) fn is_forwarded(headers: &HeaderMap) -> bool {
    FORWARDING.iter().any(|name| headers.contains_key(name))
}

impl TrustedProxies {
    pub(crate) fn new(networks: &[IpNet]) -> TrustedProxies {
        TrustedProxies(networks.into())
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Returns the address of the client whose request came from `peer`: another than `peer` if `peer` is a
    /// trusted proxy that names its client.
    ///
    /// # Errors
    /// Returns [`BadForwarding`] if the headers of a trusted proxy are malformed or contradict each other.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Result<IpAddr, BadForwarding> {
        if !self.trusts(peer) {
            return Ok(peer);
        }
        let by_x = self.rightmost(peer, x_forwarded_for(headers))?;
        let by_rfc = self.rightmost(peer, forwarded(headers)?.into_iter().rev().map(Ok))?;
        let has = |name| headers.contains_key(name);
        match (has(X_FORWARDED_FOR), has(header::FORWARDED)) {
            (true, true) if by_x != by_rfc => Err(BadForwarding::Contradiction),
            (true, _) => Ok(by_x),
            (false, _) => Ok(by_rfc),
        }
    }

    /// Returns the first of `nodes`, nearest first, that is not a trusted proxy. If all are, returns the
    /// farthest known one.
    fn rightmost(
        &self,
        peer: IpAddr,
        nodes: impl Iterator<Item = Result<Node, BadForwarding>>,
    ) -> Result<IpAddr, BadForwarding> {
        let mut client = peer;
        for node in nodes {
            let Node::Address(address) = node? else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        Ok(client)
    }
}

/// Returns the nodes of `X-Forwarded-For`, from the right. The header has no standard; an address may have
/// a port, as some proxies write it.
fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Result<Node, BadForwarding>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')).map(|entry| {
        let entry = std::str::from_utf8(entry).map_err(|_| BadForwarding::XForwardedFor)?;
        let entry = entry.trim_matches([' ', '\t']);
        let address = entry.parse::<IpAddr>().ok();
        let address = address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
        address.map(Node::Address).ok_or(BadForwarding::XForwardedFor)
    })
}

/// Returns the nodes of `Forwarded`, from the left.
fn forwarded(headers: &HeaderMap) -> Result<Vec<Node>, BadForwarding> {
    let mut nodes = Vec::new();
    for line in headers.get_all(header::FORWARDED) {
        let mut line = Cursor(line.as_bytes());
        line.elements(&mut nodes).ok_or(BadForwarding::Forwarded)?;
    }
    Ok(nodes)
}

/// The unread rest of a field value.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// Parses `1#forwarded-element`. Empty elements are skipped (RFC 9110, section 5.6.1.2).
    fn elements(&mut self, nodes: &mut Vec<Node>) -> Option<()> {
        loop {
            self.space();
            if !matches!(self.0.first(), None | Some(b',')) {
                nodes.push(self.element()?);
            }
            match self.byte() {
                None => return Some(()),
                Some(b',') => {}
                Some(_) => return None,
            }
        }
    }

    /// Parses `[ forwarded-pair ] *( ";" [ forwarded-pair ] )`, up to the comma or the end.
    fn element(&mut self) -> Option<Node> {
        let mut node = None;
        loop {
            self.space();
            if !matches!(self.0.first(), None | Some(b',' | b';')) {
                let name = self.token()?;
                (self.byte()? == b'=').then_some(())?;
                let value = self.value()?;
                // A parameter may occur once only (section 4). Parameters other than `for` are ignored.
                if name.eq_ignore_ascii_case(b"for") && node.replace(parse_node(&value)?).is_some() {
                    return None;
                }
            }
            self.space();
            match self.0.first() {
                Some(b';') => self.byte(),
                _ => return Some(node.unwrap_or(Node::Hidden)),
            };
        }
    }

    /// Parses a token, or a quoted string to its content.
    fn value(&mut self) -> Option<Vec<u8>> {
        if self.0.first() != Some(&b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        self.byte();
        let mut said = Vec::new();
        loop {
            match self.byte()? {
                b'"' => return Some(said),
                b'\\' => said.push(self.byte()?),
                byte => said.push(byte),
            }
        }
    }

    /// Parses `1*tchar` (RFC 9110, section 5.6.2).
    fn token(&mut self) -> Option<&'a [u8]> {
        let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        let length = self.0.iter().position(|byte| !is_tchar(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(length);
        self.0 = rest;
        (length > 0).then_some(token)
    }

    fn space(&mut self) {
        let length = self.0.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(self.0.len());
        self.0 = &self.0[length..];
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }
}

/// Parses `nodename [ ":" node-port ]` (RFC 7239, section 6).
fn parse_node(value: &[u8]) -> Option<Node> {
    let value = std::str::from_utf8(value).ok()?;
    let (name, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Node::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
        }
        None => {
            let (name, port) = value.split_at(value.find(':').unwrap_or(value.len()));
            let is_hidden = name.eq_ignore_ascii_case("unknown") || is_obfuscated(name);
            let address = || Some(Node::Address(IpAddr::V4(name.parse::<Ipv4Addr>().ok()?)));
            (if is_hidden { Node::Hidden } else { address()? }, port)
        }
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => {
            let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
            is_number || is_obfuscated(port)
        }
    };
    is_port.then_some(name)
}

/// Returns whether `name` is `"_" 1*( ALPHA / DIGIT / "." / "_" / "-" )`.
fn is_obfuscated(name: &str) -> bool {
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(may_be))
}

/// Reads the PROXY protocol version 2 header of a trusted proxy's connection, if the connection begins with
/// one. Returns the address and port of the proxy's client, if the header names one. Neither HTTP nor TLS
/// begins with a carriage return, as the signature does.
///
/// # Errors
/// Returns [`io::Error`] if the connection fails or ends, if it begins like the signature and goes on
/// otherwise, or if the header has another version, an unknown command, or a transport other than TCP or a
/// Unix socket.
pub(crate) async fn read_header(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 || first[0] != SIGNATURE[0] {
        return Ok(None);
    }
    let mut head = [0; 16];
    socket.read_exact(&mut head).await?;
    let (signature, fixed) = head.split_at(SIGNATURE.len());
    let malformed = |reason: &str| io::Error::new(ErrorKind::InvalidData, format!("PROXY header: {reason}"));
    if signature != SIGNATURE {
        return Err(malformed("not the signature of version 2"));
    }
    let [command, family, length @ ..] = fixed else { unreachable!("sixteen bytes less twelve") };
    let length = u16::from_be_bytes(length.try_into().expect("sixteen bytes less fourteen"));
    let mut rest = (&mut *socket).take(length.into());
    let source = match (command, family) {
        // LOCAL: the proxy speaks for itself. PROXY with an unspecified family: the proxy can't name its
        // client.
        (0x20, _) | (0x21, 0x00) => None,
        (0x21, 0x11) => {
            let mut addresses = [0; 12];
            rest.read_exact(&mut addresses).await?;
            let [a, b, c, d, _, _, _, _, high, low, _, _] = addresses;
            Some(SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))))
        }
        (0x21, 0x21) => {
            let mut addresses = [0; 36];
            rest.read_exact(&mut addresses).await?;
            let source: [u8; 16] = addresses[..16].try_into().expect("sixteen of 36 bytes");
            Some(SocketAddr::from((source, u16::from_be_bytes([addresses[32], addresses[33]]))))
        }
        // A Unix socket has no address to limit by.
        (0x21, 0x31) => None,
        (0x21, _) => return Err(malformed("neither TCP nor a Unix socket")),
        _ => return Err(malformed("not version 2, or an unknown command")),
    };
    // Skip what follows the addresses, such as certificates (section 2.2.1).
    copy(&mut rest, &mut sink()).await?;
    if rest.limit() > 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(source)
}

/// Middleware that refuses a request whose trusted proxy names its client in an unreliable way.
pub(crate) async fn refuse_bad_forwarding(request: Request, next: Next) -> Response {
    match request.extensions().get::<BadForwarding>() {
        Some(bad) => ApiError::new(StatusCode::BAD_REQUEST, 400, bad.to_string()).into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// Returns the client of a request that came from `10.0.0.1`, behind proxies in `10.0.0.0/8` and
    /// `2001:db8:1::/48`.
    fn client(fields: &[(&'static str, &str)]) -> Result<String, BadForwarding> {
        let networks = ["10.0.0.0/8", "2001:db8:1::/48"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let client = TrustedProxies::new(&networks).client("10.0.0.1".parse().unwrap(), &headers);
        client.map(|address| address.to_string())
    }

    fn by_x(value: &str) -> Result<String, BadForwarding> {
        client(&[("x-forwarded-for", value)])
    }

    fn by_rfc(value: &str) -> Result<String, BadForwarding> {
        client(&[("forwarded", value)])
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_proxy() {
        for (value, expected) in [
            ("192.0.2.43", "192.0.2.43"),
            ("192.0.2.43, 198.51.100.17", "198.51.100.17"),
            ("192.0.2.43,10.9.9.9 ,\t10.0.0.2", "192.0.2.43"),
            // All of them are proxies, so the farthest counts.
            ("10.0.0.3, 10.0.0.2", "10.0.0.3"),
            ("::ffff:10.0.0.2", "10.0.0.2"),
            ("2001:db8::1, 2001:db8:1::2", "2001:db8::1"),
            ("192.0.2.43:5000", "192.0.2.43"),
            ("[2001:db8::1]:5000", "2001:db8::1"),
            // Text that the client wrote before its proxy is ignored.
            ("<script>, , unknown, 192.0.2.43", "192.0.2.43"),
        ] {
            assert_eq!(by_x(value).as_deref(), Ok(expected), "{value}");
        }
        let lines = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2, 10.0.0.2")];
        assert_eq!(client(&lines).as_deref(), Ok("192.0.2.2"));
        assert_eq!(client(&[]).as_deref(), Ok("10.0.0.1"));
    }

    #[test]
    fn malformed_x_forwarded_for_is_refused() {
        for value in
            ["", "unknown", "192.0.2.43,", "192.0.2.256", "192.0.2.43 192.0.2.44", "[2001:db8::1]", "\u{fe}"]
        {
            assert_eq!(by_x(value), Err(BadForwarding::XForwardedFor), "{value}");
        }
    }

    /// Checks the examples of RFC 7239, sections 4, 6.3 and 7.1 to 7.4, and the limits of its grammar.
    #[test]
    fn forwarded_follows_rfc_7239() {
        for (value, expected) in [
            ("for=\"_gazonk\"", "10.0.0.1"),
            ("For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
            ("for=192.0.2.43, for=198.51.100.17", "198.51.100.17"),
            ("for=_hidden, for=_SEVKISEK", "10.0.0.1"),
            ("for=192.0.2.43,for=\"[2001:db8:cafe::17]\",for=unknown", "10.0.0.1"),
            ("for=192.0.2.43, for=10.0.0.7, for=\"[2001:db8:1::9]:_port\"", "192.0.2.43"),
            ("for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("for=\"192\\.0.2.43\"", "192.0.2.43"),
            (" ,for=192.0.2.43 ; proto=https;; ,, ", "192.0.2.43"),
            ("by=203.0.113.43;x=\"a, for=9.9.9.9\"", "10.0.0.1"),
            ("for=192.0.2.43, proto=http", "10.0.0.1"),
        ] {
            assert_eq!(by_rfc(value).as_deref(), Ok(expected), "{value}");
        }
        for value in [
            "192.0.2.43",
            "for=",
            "for=192.0.2.43:47011",
            "for=[2001:db8::1]",
            "for=\"2001:db8::1\"",
            "for=\"[2001:db8::1\"",
            "for=\"[192.0.2.43]\"",
            "for=\"192.0.2.43",
            "for=192.0.2.43;for=192.0.2.44",
            "for = 192.0.2.43",
            "for=192.0.2.043",
            "for=\"192.0.2.43:\"",
            "for=\"192.0.2.43:123456\"",
            "for=_",
            "for=192.0.2.43 for=192.0.2.44",
            // A client leaves a quote open, before the text that its proxy appends.
            "for=9.9.9.9;x=\", for=192.0.2.43",
            "for=9.9.9.9;x=\", for=\"[2001:db8::1]\"",
        ] {
            assert_eq!(by_rfc(value), Err(BadForwarding::Forwarded), "{value}");
        }
    }

    #[test]
    fn both_headers_must_name_the_same_client() {
        let both = |x, rfc| client(&[("x-forwarded-for", x), ("forwarded", rfc)]);
        assert_eq!(both("192.0.2.1", "for=192.0.2.1").as_deref(), Ok("192.0.2.1"));
        assert_eq!(both("192.0.2.1", "for=192.0.2.2"), Err(BadForwarding::Contradiction));
        assert_eq!(both("192.0.2.1", "for=unknown"), Err(BadForwarding::Contradiction));
    }

    #[test]
    fn headers_of_untrusted_peers_are_ignored() {
        let proxies = TrustedProxies::new(&["10.0.0.0/8".parse().unwrap()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        headers.insert("forwarded", HeaderValue::from_static("nonsense"));
        let stranger = "198.51.100.1".parse().unwrap();
        assert_eq!(proxies.client(stranger, &headers), Ok(stranger));
        assert!(!TrustedProxies::default().trusts(Ipv4Addr::LOCALHOST.into()));
        assert!(proxies.trusts("::ffff:10.1.2.3".parse().unwrap()));
    }
}
