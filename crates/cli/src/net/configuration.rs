//! The two configuration files of a bureau. Every value comes from a narrow alphabet, so none
//! needs quoting.

use std::fmt::Write as _;

use bureau_core::PublicKey;
use data_encoding::BASE64;

use super::{Plan, plan::Member};

/// `bureau.toml`: the node.
pub(super) fn node(plan: &Plan, member: &Member, root_key: &PublicKey) -> String {
    let ports = member.ports;
    let mut text = format!(
        "\
# The node of {code}. Paths are relative to this file.
network = \"{network}\"
bureau = \"{code}\"
node = \"{node}\"
data_dir = \"data\"

[keys]
signing_key = \"keys/signing.pem\"
sealing_key = \"keys/sealing.key\"

[tls]
ca = \"tls/ca.pem\"
certificate = \"tls/node.pem\"
key = \"tls/node.key\"

[roster]
file = \"roster.bin\"
root_keys = [\"{root_key}\"]
threshold = 1

[desk]
listen = \"127.0.0.1:{desk}\"

[link]
listen = \"127.0.0.1:{link}\"

[admin]
listen = \"127.0.0.1:{admin}\"
",
        code = member.code,
        network = plan.network(),
        node = plan.node(member),
        root_key = BASE64.encode(root_key.as_bytes()),
        desk = ports.desk,
        link = ports.link,
        admin = ports.admin,
    );
    if let Some(port) = ports.metrics {
        // Writing to a string cannot fail; so below.
        let _ = write!(text, "\n[metrics]\nlisten = \"127.0.0.1:{port}\"\n");
    }
    text.push_str(
        "
[policy]
# OPEN leaves bodies readable to relays, so it must be allowed by name.
sealing_suites = [\"OPEN\"]
",
    );
    for (code, address) in plan.peers(member) {
        let _ = write!(
            text,
            "\n[[peer]]\nbureau = \"{code}\"\naddresses = [\"{address}\"]\ndial = true\n"
        );
    }
    let _ = write!(
        text,
        "\n[[client]]\ndesk = \"{}\"\npermissions = [\"submit\", \"receive\", \"operate\"]\n",
        plan.desk()
    );
    text
}

/// `desk.toml`: the desk.
pub(super) fn desk(plan: &Plan, member: &Member) -> String {
    format!(
        "\
# The desk {desk} of {code}. Paths are relative to this file.
network = \"{network}\"
bureau = \"{code}\"
desk = \"{desk}\"
address = \"127.0.0.1:{port}\"
admin_address = \"127.0.0.1:{admin}\"
ca = \"tls/ca.pem\"
certificate = \"tls/desk-{desk}.pem\"
key = \"tls/desk-{desk}.key\"
",
        desk = plan.desk(),
        code = member.code,
        network = plan.network(),
        port = member.ports.desk,
        admin = member.ports.admin,
    )
}
