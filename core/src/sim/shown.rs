//! Values of options as people read them: a time with its unit, a size in KiB, lists by their numbers.
//!
//! Exact: two values that differ are shown differently. Knows no option.

use crate::id::Nanos;
use crate::shard::Shape;

/// Units of time, longest first, in nanoseconds.
const TIME_UNITS: [(&str, u64); 4] = [
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units of size, largest first, in bytes.
const SIZE_UNITS: [(&str, u64); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Something that an option can be.
pub(super) trait Shown {
    /// The value, in words where there are any.
    fn shown(&self) -> String;
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl Shown for $type {
            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}

plain!(u32, u64, usize, i64);

impl Shown for bool {
    fn shown(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }
}

impl Shown for Nanos {
    fn shown(&self) -> String {
        // In the longest unit that it has one of, with all digits that it takes.
        let (name, scale) = TIME_UNITS
            .into_iter()
            .find(|(_, scale)| self.0 >= *scale)
            .unwrap_or(("ns", 1));
        let (whole, rest) = (self.0 / scale, self.0 % scale);
        if rest == 0 {
            return format!("{whole} {name}");
        }
        let digit_count = scale.ilog10() as usize;
        let fraction = format!("{rest:0digit_count$}");
        format!("{whole}.{} {name}", fraction.trim_end_matches('0'))
    }
}

impl Shown for Vec<u32> {
    fn shown(&self) -> String {
        if self.is_empty() {
            return "none".to_owned();
        }
        let numbers: Vec<_> = self.iter().map(u32::to_string).collect();
        numbers.join(" ")
    }
}

impl Shown for Shape {
    fn shown(&self) -> String {
        let Self {
            ring,
            arena_size,
            arena_count,
            segment_write_size,
            segment_size_max,
            segment_read_size,
            catch_up_size,
            bounds,
        } = self;
        format!(
            "journal {} x {}, runs {}; memory {arena_count} x {}; segments {}, written {}, read {}; \
             chunks {}; undecided {}, kept {} blocks",
            ring.file_count,
            size(ring.file_size),
            size(ring.run_size as u64),
            size(*arena_size as u64),
            size(*segment_size_max),
            size(*segment_write_size as u64),
            size(*segment_read_size as u64),
            size(*catch_up_size as u64),
            size(bounds.undecided_size_full),
            bounds.tail_keep_count,
        )
    }
}

/// Bytes, in the largest unit that leaves no rest.
fn size(bytes: u64) -> String {
    let fits = |(_, scale): &(&str, u64)| bytes >= *scale && bytes.is_multiple_of(*scale);
    let (name, scale) = SIZE_UNITS.into_iter().find(fits).unwrap_or(("B", 1));
    format!("{} {name}", bytes / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_all_their_digits() {
        for (nanos, text) in [
            (0, "0 ns"),
            (7, "7 ns"),
            (1_000, "1 us"),
            (25_500, "25.5 us"),
            (12_000_000, "12 ms"),
            (123_456_789, "123.456789 ms"),
            (1_000_000_001, "1.000000001 s"),
            (600_000_000_000, "600 s"),
        ] {
            assert_eq!(Nanos(nanos).shown(), text);
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (bytes, text) in [
            (0, "0 B"),
            (513, "513 B"),
            (72 << 10, "72 KiB"),
            (4 << 20, "4 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn flags_and_lists_are_words() {
        assert_eq!(true.shown(), "yes");
        assert_eq!(Vec::<u32>::new().shown(), "none");
        assert_eq!(vec![3, 17].shown(), "3 17");
    }
}
