//! Which private address blocks a guard leaves open.

use std::net::IpAddr;

use super::super::node::Node;

/// Blocks no forward proxy may reach (RFC 6890 and cloud metadata).
const PRIVATE: [(&str, u64); 10] = [
    ("0.0.0.0", 8),
    ("10.0.0.0", 8),
    ("100.64.0.0", 10),
    ("127.0.0.0", 8),
    ("169.254.0.0", 16),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("::1", 128),
    ("fc00::", 7),
    ("fe80::", 10),
];

/// The private blocks that no unconditional `upstream_ip` permission of these rules names.
pub(super) fn uncovered_by(denying: &[Node<'_>]) -> Vec<String> {
    let mut denied = Vec::new();
    for rules in denying {
        rules.walk(&mut |node| {
            let block = node.field("upstream_ip");
            denied.extend(
                block.and_then(|block| Some((bits(block.text("address_prefix")?)?, block.number("prefix_len")?))),
            );
            // Inside these a block is denied under a condition only.
            let conditional = |field| node.field(field).is_some();
            !(conditional("and_rules") || conditional("not_rule"))
        });
    }
    let open = PRIVATE.iter().filter(|(prefix, length)| {
        !bits(prefix)
            .is_some_and(|wanted| denied.iter().any(|&(network, bound)| contains(network, bound, wanted, *length)))
    });
    open.map(|(prefix, length)| format!("{prefix}/{length}")).collect()
}

/// An address as its family's width and its bits, left-aligned.
fn bits(address: &str) -> Option<(u32, u128)> {
    match address.parse().ok()? {
        IpAddr::V4(address) => Some((32, u128::from(u32::from(address)) << 96)),
        IpAddr::V6(address) => Some((128, u128::from(address))),
    }
}

fn contains(outer: (u32, u128), outer_length: u64, inner: (u32, u128), inner_length: u64) -> bool {
    let mask = u32::try_from(outer_length)
        .ok()
        .and_then(|length| u128::MAX.checked_shl(128_u32.saturating_sub(length)))
        .unwrap_or(0);
    outer.0 == inner.0 && outer_length <= inner_length && outer.1 & mask == inner.1 & mask
}
