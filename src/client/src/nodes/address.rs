//! Addresses of nodes.

use std::fmt;
use std::str::FromStr;

/// What is wrong with an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddressFault {
    /// The port is missing.
    #[error("the port is missing")]
    NoPort,
    /// The host is missing.
    #[error("the host is missing")]
    NoHost,
    /// The port is not a port number.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// The host has an invalid character.
    #[error("the host has a character that no host name has")]
    BadHost,
    /// An IPv6 address has no brackets.
    #[error("an IPv6 address goes in brackets: [::1]:7401")]
    BareV6,
}

/// A text that is not `HOST:PORT`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an address is HOST:PORT ({0})")]
pub struct AddressError(pub AddressFault);

/// `HOST:PORT`: a name, an IPv4 address or an IPv6 address in brackets, and a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Address(String);

impl Address {
    /// The text of the address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let (host, _) = self.0.rsplit_once(':').expect("an address has a port");
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// The port.
    pub fn port(&self) -> u16 {
        let (_, port) = self.0.rsplit_once(':').expect("an address has a port");
        port.parse().expect("the port was checked when the address was made")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::net::SocketAddr> for Address {
    fn from(address: std::net::SocketAddr) -> Self {
        Address(address.to_string())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fault = |fault| Err(AddressError(fault));
        let Some((host, port)) = text.rsplit_once(':') else {
            return fault(AddressFault::NoPort);
        };
        if host.is_empty() {
            return fault(AddressFault::NoHost);
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bracketed {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_err() => {
                return fault(AddressFault::BadHost);
            }
            Some(_) => {}
            None if host.chars().all(named) => {}
            None if host.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.') => {
                return fault(AddressFault::BareV6);
            }
            None => return fault(AddressFault::BadHost),
        }
        if port.is_empty() {
            return fault(AddressFault::NoPort);
        }
        match port.parse::<u16>() {
            Ok(1..) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(Address(text.to_owned()))
            }
            _ => fault(AddressFault::BadPort),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:7401", "node-1.example:1", "[::1]:65535", "a_b:80"] {
            assert_eq!(good.parse::<Address>().map(|a| a.to_string()), Ok(good.to_owned()));
        }
        assert_eq!("[::1]:7401".parse::<Address>().map(|a| a.host().to_owned()), Ok("::1".into()));
        assert_eq!("a:7401".parse::<Address>().map(|a| a.port()), Ok(7401));
        let fault = |text: &str| text.parse::<Address>().unwrap_err();
        assert_eq!(fault("localhost"), AddressError(AddressFault::NoPort));
        assert_eq!(fault("localhost:"), AddressError(AddressFault::NoPort));
        assert_eq!(fault(":7401"), AddressError(AddressFault::NoHost));
        assert_eq!(fault("a:0"), AddressError(AddressFault::BadPort));
        assert_eq!(fault("a:65536"), AddressError(AddressFault::BadPort));
        assert_eq!(fault("a:+1"), AddressError(AddressFault::BadPort));
        assert_eq!(fault("http://a:1"), AddressError(AddressFault::BadHost));
        assert_eq!(fault("::1:7401"), AddressError(AddressFault::BareV6));
        assert_eq!(fault("a b:1"), AddressError(AddressFault::BadHost));
        assert_eq!(fault("[x]:1"), AddressError(AddressFault::BadHost));
    }
}
