//! Durations as people write them: `90s`, `30m`, `2h`, `7d`, `1d12h`. And moments: a duration
//! from now, or an RFC 3339 time.

use std::{str::FromStr, time::Duration};

use bureau_core::Timestamp;

/// Why a text is no duration and no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DurationError {
    #[error("write a number and a unit of s, m, h or d, as in 90s, 30m, 2h, 7d or 1d12h")]
    Form,
    #[error("longer than 10,000 days")]
    TooLong,
    #[error("write a duration, as in 2h or 7d, or a time, as in 2027-01-31T12:00:00Z")]
    Moment,
}

/// Far above any lifetime, far below any overflow.
const SECONDS_MAX: u64 = 10_000 * 86_400;

/// Reads a duration.
pub(crate) fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut seconds: u64 = 0;
    let mut number: Option<u64> = None;
    // Each unit once, the larger first: 1d12h, never 12h1d.
    let mut smallest = u64::MAX;
    for character in text.chars() {
        if let Some(digit) = character.to_digit(10) {
            let grown = number.unwrap_or(0).checked_mul(10).ok_or(DurationError::TooLong)?;
            number = Some(grown.checked_add(digit.into()).ok_or(DurationError::TooLong)?);
            continue;
        }
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return Err(DurationError::Form),
        };
        let (Some(count), true) = (number.take(), unit < smallest) else {
            return Err(DurationError::Form);
        };
        smallest = unit;
        let added = count.checked_mul(unit).ok_or(DurationError::TooLong)?;
        seconds = seconds.checked_add(added).ok_or(DurationError::TooLong)?;
    }
    match (number, smallest) {
        (None, unit) if unit != u64::MAX => {}
        _ => return Err(DurationError::Form),
    }
    if seconds > SECONDS_MAX {
        Err(DurationError::TooLong)
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

/// A moment, given as such or by how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// So long after now.
    In(Duration),
    /// Then.
    At(Timestamp),
}

impl Moment {
    /// The moment, seen from `now`.
    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::In(duration) => {
                now.plus_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
            }
            Self::At(moment) => moment,
        }
    }
}

impl FromStr for Moment {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp::from_ms(moment.as_millisecond())));
        }
        match parse(text) {
            Ok(duration) => Ok(Self::In(duration)),
            Err(DurationError::Form) => Err(DurationError::Moment),
            Err(error) => Err(error),
        }
    }
}

/// A length of time in the two largest units that say something: `3d 4h`, `12m 5s`, `0s`.
pub(crate) fn show(seconds: u64) -> String {
    const UNITS: [(u64, char); 4] = [(86_400, 'd'), (3_600, 'h'), (60, 'm'), (1, 's')];
    let first = UNITS.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (unit, name) = UNITS[first];
    let shown = format!("{}{name}", seconds / unit);
    match UNITS.get(first + 1) {
        Some((next, name)) if seconds % unit / next > 0 => {
            format!("{shown} {}{name}", seconds % unit / next)
        }
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("90s", 90),
            ("30m", 1800),
            ("2h", 7200),
            ("7d", 604_800),
            ("1d12h", 129_600),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "2", "h", "2x", "2h ", "-2h", "1.5h", "12h1d", "1h1h", "2h30", "２h"] {
            assert_eq!(parse(text), Err(DurationError::Form), "{text:?}");
        }
        for text in ["10001d", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(parse(text), Err(DurationError::TooLong), "{text:?}");
        }
    }

    #[test]
    fn moments_are_read() {
        let now = Timestamp::from_ms(1_000_000);
        let at = |text: &str| text.parse::<Moment>().map(|moment| moment.from(now));
        assert_eq!(at("2h"), Ok(Timestamp::from_ms(8_200_000)));
        assert_eq!(at("1970-01-01T01:00:00Z"), Ok(Timestamp::from_ms(3_600_000)));
        assert_eq!(at("1970-01-01T03:00:00+02:00"), Ok(Timestamp::from_ms(3_600_000)));
        assert_eq!(at("tomorrow"), Err(DurationError::Moment));
    }

    #[test]
    fn lengths_are_shown() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (725, "12m 5s"),
            (273_600, "3d 4h"),
            (86_401, "1d"),
        ] {
            assert_eq!(show(seconds), text);
        }
    }
}
