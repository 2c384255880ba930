//! Durations and sizes as people write them: `250ms`, `64KiB`.
//!
//! What is shown here is understood here: `show` and `parse` are each other's inverse up to the
//! digits shown. Knows no flag and no column.

use std::time::Duration;

/// Units of time, longest first, in nanoseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, largest first, in bytes. Powers of two only: a size here is memory or disk.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// Reads a duration: a decimal number and a unit, such as `10s`, `1.5s` or `250ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    parse(text, &TIME_UNITS, None)
        .map(Duration::from_nanos)
        .ok_or_else(|| "write a number and a unit: 250ms, 10s, 5m".to_string())
}

/// Reads a size: a decimal number and a unit, such as `64KiB`; without a unit, bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, &SIZE_UNITS, Some("B"))
        .ok_or_else(|| "write bytes, or a number and a unit: 256, 4KiB, 1MiB".to_string())
}

/// Shows a duration with three significant digits or more: `41us`, `1.30ms`, `12.0s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    // Minutes and hours read better as seconds next to other spans: nothing here lasts long.
    show(
        duration.as_nanos().try_into().unwrap_or(u64::MAX),
        &TIME_UNITS[2..],
    )
}

/// Shows a size with three significant digits or more: `512B`, `64KiB`, `1.50MiB`.
pub(crate) fn show_size(size: u64) -> String {
    show(size, &SIZE_UNITS)
}

fn parse(text: &str, units: &[(&str, u64)], default_unit: Option<&str>) -> Option<u64> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit = if unit.is_empty() {
        default_unit?
    } else {
        unit.trim_start()
    };
    let (_, scale) = units
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // A fraction of more digits than a u64 holds is nobody's wish.
    let fraction_scale = 10u64.checked_pow(fraction.len().try_into().ok()?)?;
    let fraction: u64 = fraction.parse().ok()?;
    let fraction = u128::from(fraction) * u128::from(*scale) / u128::from(fraction_scale);
    whole
        .checked_mul(*scale)?
        .checked_add(fraction.try_into().ok()?)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    let (name, scale) = units
        .iter()
        .find(|(_, scale)| amount >= *scale)
        .or(units.last())
        .expect("units exist");
    if amount.is_multiple_of(*scale) {
        return format!("{}{name}", amount / scale);
    }
    let value = amount as f64 / *scale as f64;
    // Judged as it will be rounded: 99.96 has three digits before its point, not "100.0".
    let digits = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        let good = [
            ("10s", Duration::from_secs(10)),
            ("250ms", Duration::from_millis(250)),
            ("1.5s", Duration::from_millis(1500)),
            ("2m", Duration::from_secs(120)),
            ("7us", Duration::from_micros(7)),
            ("10 s", Duration::from_secs(10)),
        ];
        for (text, duration) in good {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        for text in [
            "",
            "s",
            "10",
            "-1s",
            "1..5s",
            ".s",
            "10 parsecs",
            "99999999999h",
            "1.s",
            "∞s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn sizes_are_read_with_or_without_a_unit() {
        for (text, size) in [
            ("256", 256),
            ("64KiB", 65_536),
            ("1.5mib", 1_572_864),
            ("0", 0),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        // KB is refused rather than guessed: some mean 1000 by it and some 1024.
        for text in [
            "",
            "KiB",
            "1KB",
            "-1",
            "1e3",
            "18446744073709551616",
            "99999999TiB",
        ] {
            assert!(parse_size(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for (nanos, shown) in [
            (0, "0ns"),
            (41_000, "41us"),
            (41_234, "41.2us"),
            (1_304_000, "1.30ms"),
            (99_951_000, "100ms"),
            (150_000_000, "150ms"),
            (12_000_000_000, "12s"),
            (4_000_000_000_000, "4000s"),
        ] {
            assert_eq!(show_duration(Duration::from_nanos(nanos)), shown);
            let back = parse_duration(shown).expect("own notation").as_nanos() as u64;
            assert!(
                back.abs_diff(nanos) <= nanos / 100,
                "{shown} came back as {back}ns"
            );
        }
        for (size, shown) in [
            (0, "0B"),
            (512, "512B"),
            (65_536, "64KiB"),
            (1_572_864, "1.50MiB"),
        ] {
            assert_eq!(show_size(size), shown);
            assert_eq!(parse_size(shown), Ok(size));
        }
    }
}
