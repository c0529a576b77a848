//! Words for what travels as numbers: one text for each lane, kind and state, times as RFC 3339.

use bureau_core::Timestamp;
use bureau_proto::{
    admin::v1::{ExplanationCause, LinkState, NodeRole},
    desk::v1::DeliveryState,
    envelope::v1::{HandlingCode, Kind, Lane, Purpose, ReceiptKind},
};

macro_rules! texts {
    ($($name:ident: $type:ty, $prefix:literal;)*) => {
        $(
            /// The text of a number; a number of a newer version is shown as it is.
            pub(crate) fn $name(number: i32) -> String {
                match <$type>::try_from(number) {
                    Ok(value) => value.as_str_name().trim_start_matches($prefix).to_owned(),
                    Err(_) => format!("UNKNOWN_{number}"),
                }
            }
        )*
    };
}

texts! {
    lane: Lane, "LANE_";
    kind: Kind, "KIND_";
    handling: HandlingCode, "HANDLING_CODE_";
    purpose: Purpose, "PURPOSE_";
    delivery_state: DeliveryState, "DELIVERY_STATE_";
    receipt_kind: ReceiptKind, "RECEIPT_KIND_";
    link_state: LinkState, "LINK_STATE_";
    cause: ExplanationCause, "EXPLANATION_CAUSE_";
    node_role: NodeRole, "NODE_ROLE_";
}

/// A time for programs: RFC 3339 in UTC, to the millisecond.
pub(crate) fn time(wire: Option<&prost_types::Timestamp>) -> Option<String> {
    Timestamp::from_wire(wire).map(|time| time.to_string())
}

/// A time for people: to the second, or a dash.
pub(crate) fn shown_time(wire: Option<&prost_types::Timestamp>) -> String {
    Timestamp::from_wire(wire).map_or_else(|| "-".to_owned(), |time| to_second(&time.to_string()))
}

/// How long ago, or in how long; a dash where unset.
pub(crate) fn shown_distance(wire: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    let Some(time) = Timestamp::from_wire(wire) else { return "-".to_owned() };
    let distance = now.since(time);
    let length = crate::duration::show(distance.unsigned_abs() / 1000);
    if distance < -999 { format!("in {length}") } else { format!("{length} ago") }
}

/// Bytes for people.
pub(crate) fn shown_bytes(bytes: u64) -> String {
    shown_size(bytes)
}

/// A size for people.
pub(crate) fn shown_size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut shown = format!("{bytes} B");
    let mut size = bytes as f64;
    for unit in UNITS {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        shown = format!("{size:.1} {unit}");
    }
    shown
}

/// The system's clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    Timestamp::from_ms(i64::try_from(ms).unwrap_or(i64::MAX))
}

/// A text, or a dash where it is empty.
pub(crate) const fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A text, or nothing where it is empty: `null` for programs.
pub(crate) fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The first characters of a message id: enough to be the only one, short enough for a table.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(12).collect()
}

/// `2026-11-24T09:45:45.678Z` as `2026-11-24 09:45:45Z`.
fn to_second(rfc_3339: &str) -> String {
    let seconds = rfc_3339.split('.').next().unwrap_or(rfc_3339);
    format!("{}Z", seconds.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_words() {
        assert_eq!(lane(1), "FLASH");
        assert_eq!(kind(1), "MESSAGE");
        assert_eq!(handling(3), "H2");
        assert_eq!(delivery_state(4), "ACKNOWLEDGED");
        assert_eq!(receipt_kind(1), "CUSTODY");
        assert_eq!(link_state(1), "UP");
        assert_eq!(purpose(4), "MISSING_PERSON");
        assert_eq!(lane(99), "UNKNOWN_99");
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0, 1023, 1024, 1536, 200 << 20, 5 << 40].map(shown_size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "200.0 MiB", "5.0 TiB"]);
    }

    #[test]
    fn times_have_two_forms() {
        let wire = Timestamp::from_ms(1_795_513_545_678).to_wire();
        assert_eq!(time(Some(&wire)).as_deref(), Some("2026-11-24T09:45:45.678Z"));
        assert_eq!(shown_time(Some(&wire)), "2026-11-24 09:45:45Z");
        assert_eq!((time(None), shown_time(None)), (None, "-".to_owned()));
        let now = Timestamp::from_ms(1_795_513_605_678);
        assert_eq!(shown_distance(Some(&wire), now), "1m ago");
        assert_eq!(shown_distance(Some(&now.plus_ms(7_200_000).to_wire()), now), "in 2h");
    }
}
