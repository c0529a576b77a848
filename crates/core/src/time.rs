//! Moments, in milliseconds. No clock is read here: callers say what time it is.

use std::fmt;

/// A moment: milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// The end of the year 9999, which is where `google.protobuf.Timestamp` ends.
const MS_MAX: i64 = 253_402_300_799_999;

impl Timestamp {
    /// The moment so many milliseconds after 1970, held within 1970 to 9999.
    #[must_use]
    pub const fn from_ms(ms: i64) -> Self {
        if ms < 0 {
            Self(0)
        } else if ms > MS_MAX {
            Self(MS_MAX)
        } else {
            Self(ms)
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// So many milliseconds later; stops at the year 9999.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self::from_ms(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this; negative where it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// The moment from the wire; `None` where it is unset, before 1970 or malformed. What is
    /// below a millisecond is dropped.
    #[must_use]
    pub fn from_wire(wire: Option<&prost_types::Timestamp>) -> Option<Self> {
        let wire = wire?;
        let nanos = i64::from(wire.nanos);
        if !(0..1_000_000_000).contains(&nanos) || !(0..=MS_MAX / 1000).contains(&wire.seconds) {
            return None;
        }
        Some(Self(wire.seconds * 1000 + nanos / 1_000_000))
    }

    /// The moment for the wire.
    #[must_use]
    pub fn to_wire(self) -> prost_types::Timestamp {
        let nanos = i32::try_from(self.0 % 1000 * 1_000_000).unwrap_or(0);
        prost_types::Timestamp { seconds: self.0 / 1000, nanos }
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the millisecond.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // prost-types has no fraction rule of its own to rely on, so the date is counted here:
        // days to civil date after Howard Hinnant's algorithm.
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (ms / 3_600_000, ms / 60_000 % 60);
        let (second, milli) = (ms / 1000 % 60, ms % 1000);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shows_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_795_513_545_678, "2026-11-24T09:45:45.678Z"),
            (MS_MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_ms(ms).to_string(), text);
        }
    }

    #[test]
    fn refuses_malformed() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0)]
        {
            let wire = prost_types::Timestamp { seconds, nanos };
            assert_eq!(Timestamp::from_wire(Some(&wire)), None);
        }
        assert_eq!(Timestamp::from_wire(None), None);
    }

    proptest! {
        #[test]
        fn round_trips(ms in 0..=MS_MAX) {
            let time = Timestamp::from_ms(ms);
            prop_assert_eq!(Timestamp::from_wire(Some(&time.to_wire())).unwrap(), time);
        }
    }
}
