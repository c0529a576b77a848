//! The file as it is written, before anything is checked. Every option is optional here, so that
//! what is missing is told together with what is wrong. What each means stands in `config.rs`.

use serde::Deserialize;

macro_rules! raw {
    ($($name:ident { $($field:ident: $kind:ty,)* })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $(pub(super) $field: Option<$kind>,)*
        }
    )*};
}

raw! {
    Raw {
        network: String,
        bureau: String,
        node: String,
        data_dir: String,
        drain_seconds: u64,
        keys: RawKeys,
        tls: RawTls,
        roster: RawRoster,
        desk: RawFace,
        link: RawFace,
        admin: RawFace,
        metrics: RawFace,
        log: RawLog,
        policy: RawPolicy,
        limits: RawLimits,
        store: RawStore,
        links: RawLinks,
        peer: Vec<RawPeer>,
        client: Vec<RawClient>,
    }
    RawKeys {
        signing_key: String,
        sealing_key: String,
    }
    RawTls {
        ca: String,
        certificate: String,
        key: String,
        crls: Vec<String>,
    }
    RawRoster {
        file: String,
        root_keys: Vec<String>,
        threshold: u64,
    }
    RawFace {
        listen: String,
    }
    RawLog {
        format: String,
        level: String,
    }
    RawPolicy {
        sealing_suites: Vec<String>,
        quarantine_attachments: bool,
    }
    RawLimits {
        body_bytes: u64,
        attachments: u64,
        attachment_bytes: u64,
        recipients: u64,
        lifetime_days: u64,
        queued_messages_per_destination: u64,
        desk_messages_per_second: u64,
        desk_bytes_per_second: u64,
        handshakes: u64,
        handshakes_per_address: u64,
        streams_per_connection: u64,
    }
    RawStore {
        journal_segment_bytes: u64,
        snapshot_bytes: u64,
        cache_bytes: u64,
        disk_reserve_bytes: u64,
        staged_bytes: u64,
    }
    RawLinks {
        window_parcels: u64,
        window_bytes: u64,
        ping_ms: u64,
        stall_ms: u64,
        backoff_base_ms: u64,
        backoff_max_ms: u64,
        connect_timeout_ms: u64,
        messages_per_second: u64,
        custody_overdue_ms: u64,
        repair_after_ms: u64,
    }
    RawPeer {
        bureau: String,
        addresses: Vec<String>,
        dial: bool,
        metered: bool,
        bulk_hours: String,
    }
    RawClient {
        desk: String,
        permissions: Vec<String>,
    }
}
