//! The words of `bench`: loads, rates and objectives as people write them.
//!
//! Judges what can be judged by reading. Knows no cluster and no measurement.

use std::time::Duration;

use ringwood_bench::histogram::Share;
use ringwood_bench::objective::Objective;
use ringwood_bench::payload::{Choice, Payload};
use ringwood_bench::readers::ReadFrom;
use ringwood_bench::schedule::BURST_SIZE_MAX;
use ringwood_bench::sweep::{Ladder, Rung};
use ringwood_core::id::Nanos;

use crate::units::{parse_duration, parse_size};

/// The percentiles that an objective may name.
const SHARES: [(&str, Share); 5] = [
    ("p50", Share::P50),
    ("p90", Share::P90),
    ("p99", Share::P99),
    ("p99.9", Share::P999),
    ("p99.99", Share::P9999),
];

/// `Arrivals` before the seed is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    Even,
    Poisson,
    Bursts(u64),
}

/// Reads how arrivals are spread.
pub(crate) fn parse_spread(text: &str) -> Result<Spread, String> {
    match (text, text.strip_prefix("bursts:").map(str::parse)) {
        ("even", _) => Ok(Spread::Even),
        ("poisson", _) => Ok(Spread::Poisson),
        (_, Some(Ok(size))) if (1..=BURST_SIZE_MAX).contains(&size) => Ok(Spread::Bursts(size)),
        _ => Err(format!(
            "write even, poisson, or bursts:N with an N of 1 to {BURST_SIZE_MAX}"
        )),
    }
}

/// Reads where readers begin.
pub(crate) fn parse_read_from(text: &str) -> Result<ReadFrom, String> {
    match text {
        "start" => Ok(ReadFrom::Start),
        "end" => Ok(ReadFrom::End),
        _ => Err("write start or end".into()),
    }
}

/// Reads `rate=10k..1M:x1.5` or `rate=10k..100k:+10k`.
pub(crate) fn parse_ladder(text: &str) -> Result<Ladder, String> {
    let wrong =
        || "write rate=FIRST..LAST:xFACTOR or :+STEP, such as rate=10k..1M:x1.5".to_string();
    let (range, step) = text
        .strip_prefix("rate=")
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(wrong)?;
    let (first, last) = range.split_once("..").ok_or_else(wrong)?;
    let rung = match (step.strip_prefix('x'), step.strip_prefix('+')) {
        (Some(factor), _) => thousandths(factor).map(Rung::Times),
        (_, Some(step)) => parse_count(step).map(Rung::Plus),
        _ => None,
    };
    let (Some(first), Some(last), Some(rung)) = (parse_count(first), parse_count(last), rung)
    else {
        return Err(wrong());
    };
    Ladder::new(first, last, rung).map_err(|error| error.to_string())
}

/// Reads `p99=1ms`.
pub(crate) fn parse_objective(text: &str) -> Result<Objective, String> {
    let names = SHARES.map(|(name, _)| name).join(", ");
    let wrong = || format!("write PERCENTILE=DURATION, such as p99=1ms; percentiles are {names}");
    let (name, limit) = text.split_once('=').ok_or_else(wrong)?;
    let (_, share) = SHARES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(wrong)?;
    match parse_duration(limit)? {
        Duration::ZERO => Err("nothing is done in no time".into()),
        limit => Ok(Objective {
            share: *share,
            limit: Nanos(u64::try_from(limit.as_nanos()).map_err(|_| wrong())?),
        }),
    }
}

/// Reads `256`, `64..4KiB`, `64..4KiB:lognormal` or `64=9,4KiB=1`.
pub(crate) fn parse_payload(text: &str) -> Result<Payload, String> {
    let payload = if text.contains('=') {
        let choices: Result<Vec<Choice>, String> = text.split(',').map(parse_choice).collect();
        Payload::choices(choices?)
    } else if let Some((least, rest)) = text.split_once("..") {
        let (most, shape) = rest.split_once(':').unwrap_or((rest, "uniform"));
        let (least, most) = (parse_record_size(least)?, parse_record_size(most)?);
        match shape {
            "uniform" => Payload::uniform(least, most),
            "lognormal" => Payload::log_normal(least, most),
            _ => {
                return Err(format!(
                    "'{shape}' is no distribution; uniform and lognormal are"
                ));
            }
        }
    } else {
        Payload::fixed(parse_record_size(text)?)
    };
    payload.map_err(|error| error.to_string())
}

fn parse_choice(text: &str) -> Result<Choice, String> {
    let wrong = || format!("'{text}' is not SIZE=WEIGHT, such as 64=9");
    let (size, weight) = text.split_once('=').ok_or_else(wrong)?;
    Ok(Choice {
        size: parse_record_size(size)?,
        weight: weight.parse().map_err(|_| wrong())?,
    })
}

fn parse_record_size(text: &str) -> Result<usize, String> {
    // What is too large for the machine is too large for a record.
    parse_size(text).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

/// Reads a number of appends: `500`, `10k`, `1.5M`.
fn parse_count(text: &str) -> Option<u64> {
    let (number, scale) = match text.strip_suffix(['k', 'M']) {
        Some(number) if text.ends_with('k') => (number, 1_000),
        Some(number) => (number, 1_000_000),
        None => return text.parse().ok(),
    };
    Some(thousandths(number)?.checked_mul(scale)? / 1_000)
}

/// A decimal number with up to three digits behind its point, times a thousand.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part: u64 = format!("{part:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_a_thousand_and_a_million() {
        for (text, count) in [
            ("1", 1),
            ("10k", 10_000),
            ("1.5M", 1_500_000),
            ("0.25k", 250),
        ] {
            assert_eq!(parse_count(text), Some(count), "{text}");
        }
        for text in [
            "",
            "k",
            "1.",
            "1.2345k",
            "-1",
            "1e3",
            "1K",
            "1.5",
            "99999999999999999999M",
        ] {
            assert_eq!(parse_count(text), None, "{text:?} was taken");
        }
    }

    #[test]
    fn a_ladder_has_a_first_a_last_and_a_step() {
        let same = Ladder::new(10_000, 1_000_000, Rung::Times(1_500)).expect("a ladder");
        assert_eq!(parse_ladder("rate=10k..1M:x1.5"), Ok(same));
        let same = Ladder::new(1, 5, Rung::Plus(2)).expect("a ladder");
        assert_eq!(parse_ladder("rate=1..5:+2"), Ok(same));
        for text in [
            "",
            "10k..1M:x2",
            "rate=1..2",
            "rate=1:x2",
            "rate=1..2:2",
            "rate=2..1:x2",
            "rate=1..2:x1",
        ] {
            assert!(parse_ladder(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn an_objective_is_a_percentile_and_a_bound() {
        let objective = parse_objective("p99.9=250us").expect("an objective");
        assert_eq!(
            (objective.share, objective.limit),
            (Share::P999, Nanos(250_000))
        );
        for text in ["", "p99", "p98=1ms", "p99=1", "p99=0ms", "max=1ms"] {
            assert!(parse_objective(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn records_have_a_size_or_a_distribution() {
        for (text, same) in [
            ("1KiB", Payload::fixed(1_024)),
            ("64..4KiB", Payload::uniform(64, 4_096)),
            ("64..4KiB:uniform", Payload::uniform(64, 4_096)),
            ("64..4KiB:lognormal", Payload::log_normal(64, 4_096)),
            (
                "64=9",
                Payload::choices(vec![Choice {
                    size: 64,
                    weight: 9,
                }]),
            ),
        ] {
            assert_eq!(
                parse_payload(text),
                same.map_err(|error| error.to_string()),
                "{text}"
            );
        }
        for text in [
            "",
            "2MiB",
            "4..2",
            "0..9:lognormal",
            "1..2:pareto",
            "1..",
            "64=,1=1",
            "1=0",
            "1,2",
        ] {
            assert!(parse_payload(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn arrivals_have_a_name() {
        assert_eq!(parse_spread("bursts:64"), Ok(Spread::Bursts(64)));
        for text in ["", "bursts", "bursts:", "bursts:0", "Even", "poisson:1"] {
            assert!(parse_spread(text).is_err(), "{text:?} was taken");
        }
    }
}
