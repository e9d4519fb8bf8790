//! Which addresses a name may lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Metadata services of clouds that are not in a range of their own: Azure's, Alibaba's, and that of EC2 in IPv6.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On the internet.
    Public,
    /// In a private network (RFC 1918, RFC 6598, RFC 4193).
    Private,
    /// This machine.
    Loopback,
    /// Nothing that a name should lead to: the link, the cloud's metadata, groups, tunnels into IPv4, and what is reserved.
    Other,
}

/// From the registries of special addresses of IANA (RFC 6890 and its updates).
pub(super) fn place(ip: IpAddr) -> Place {
    if METADATA.contains(&ip) {
        return Place::Other;
    }
    match ip {
        IpAddr::V4(ip) => place_v4(ip),
        IpAddr::V6(ip) => place_v6(ip),
    }
}

fn place_v4(ip: Ipv4Addr) -> Place {
    match ip.octets() {
        [127, ..] => Place::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Place::Private,
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0, _]
        | [192, 0, 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Place::Other,
        _ => Place::Public,
    }
}

/// Only 2000::/3 is given out for use on the internet; IPv4 inside IPv6 (mapped, NAT64) is outside of it.
fn place_v6(ip: Ipv6Addr) -> Place {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Loopback,
        [0xfc00..=0xfdff, ..] => Place::Private,
        // Protocol assignments with Teredo, documentation, 6to4.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            Place::Other
        }
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Place {
        place(text.parse().unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    #[test]
    fn special_addresses_are_not_public() {
        for ip in ["127.0.0.1", "127.255.255.254", "::1"] {
            assert_eq!(of(ip), Place::Loopback, "{ip}");
        }
        for ip in
            ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12::1"]
        {
            assert_eq!(of(ip), Place::Private, "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "203.0.113.9",
            "168.63.129.16",
            "100.100.100.200",
            "fd00:ec2::254",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2001::1",
            "2001:db8::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
            "3fff::1",
        ] {
            assert_eq!(of(ip), Place::Other, "{ip}");
        }
        for ip in
            ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.0.1.1", "2606:4700::1111", "2001:4860:4860::8888"]
        {
            assert_eq!(of(ip), Place::Public, "{ip}");
        }
    }
}
