//! `Payload`: how large records are: all alike, or by a distribution.
//!
//! Real logs carry many small records and few large ones, and a tail of latency is often the large
//! ones'. Sizes are drawn before the run, from a seed. Knows no log.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use ringwood_core::limits::RECORD_SIZE_MAX;

/// Sizes that are drawn; the records of a run have them in turn, over and over.
const DRAW_COUNT: usize = 1 << 16;

/// The bounds of a log-normal distribution are this many standard deviations from its median.
const DEVIATION_COUNT: f64 = 3.0;

/// Most sizes in a list.
pub const CHOICE_COUNT_MAX: usize = 64;

/// Sizes of records, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Fixed(usize),
    Uniform { least: usize, most: usize },
    LogNormal { least: usize, most: usize },
    Choices(Vec<Choice>),
}

/// One size of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Bytes.
    pub size: usize,
    /// How often, against the others.
    pub weight: u32,
}

/// Why records cannot have such sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Beyond what a log takes.
    #[error("a record has at most {RECORD_SIZE_MAX} bytes")]
    Large,
    /// The largest size is below the smallest.
    #[error("the largest size is below the smallest")]
    Descending,
    /// The logarithm of no bytes is no size.
    #[error("a log-normal size is at least 1 byte")]
    Nothing,
    /// No choices, or too many, or all without weight.
    #[error("a list has 1 to {CHOICE_COUNT_MAX} sizes, one of them with a weight above 0")]
    Choices,
}

impl Payload {
    /// All of one size.
    ///
    /// # Errors
    /// `PayloadError::Large`.
    pub fn fixed(size: usize) -> Result<Self, PayloadError> {
        bounded(size).map(|size| Self(Kind::Fixed(size)))
    }

    /// Every size from `least` to `most` as often as any other.
    ///
    /// # Errors
    /// `PayloadError::Large`, `PayloadError::Descending`.
    pub fn uniform(least: usize, most: usize) -> Result<Self, PayloadError> {
        let (least, most) = ordered(least, bounded(most)?)?;
        Ok(Self(Kind::Uniform { least, most }))
    }

    /// Logarithms of sizes are normal: the median is the geometric mean of the bounds, each bound
    /// three standard deviations from it, and what falls outside is drawn again.
    ///
    /// # Errors
    /// `PayloadError`, but for `Choices`.
    pub fn log_normal(least: usize, most: usize) -> Result<Self, PayloadError> {
        let (least, most) = ordered(least, bounded(most)?)?;
        match least {
            0 => Err(PayloadError::Nothing),
            _ => Ok(Self(Kind::LogNormal { least, most })),
        }
    }

    /// Some sizes, each as often as its weight says.
    ///
    /// # Errors
    /// `PayloadError::Large`, `PayloadError::Choices`.
    pub fn choices(choices: Vec<Choice>) -> Result<Self, PayloadError> {
        for choice in &choices {
            bounded(choice.size)?;
        }
        let has_weight = choices.iter().any(|choice| choice.weight > 0);
        match has_weight && choices.len() <= CHOICE_COUNT_MAX {
            true => Ok(Self(Kind::Choices(choices))),
            false => Err(PayloadError::Choices),
        }
    }

    /// What the records of a run have, in turn. The same for the same seed.
    #[must_use]
    pub fn sizes(&self, seed: u64) -> Vec<usize> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        match &self.0 {
            Kind::Fixed(size) => vec![*size],
            kind => (0..DRAW_COUNT).map(|_| kind.draw(&mut rng)).collect(),
        }
    }
}

impl Kind {
    fn draw(&self, rng: &mut ChaCha8Rng) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { least, most } => least + below(rng, (most - least) as u64 + 1) as usize,
            Self::LogNormal { least, most } => {
                let (low, high) = ((*least as f64).ln(), (*most as f64).ln());
                let deviation = (high - low) / (2.0 * DEVIATION_COUNT);
                loop {
                    let normal: f64 = StandardNormal.sample(rng);
                    let size = (f64::midpoint(low, high) + normal * deviation)
                        .exp()
                        .round();
                    if (*least as f64..=*most as f64).contains(&size) {
                        break size as usize;
                    }
                }
            }
            Self::Choices(choices) => {
                let total = choices.iter().map(|choice| u64::from(choice.weight)).sum();
                let mut rest = below(rng, total);
                let chosen = choices.iter().find(|choice| {
                    let weight = u64::from(choice.weight);
                    let is_here = rest < weight;
                    rest = rest.saturating_sub(weight);
                    is_here
                });
                chosen.expect("the weights add up to the total").size
            }
        }
    }
}

/// A number below `bound`, by multiplication: uneven by less than one in 2^32 for bounds below 2^32.
fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    let product = u128::from(rng.next_u64()) * u128::from(bound);
    (product >> 64) as u64
}

fn bounded(size: usize) -> Result<usize, PayloadError> {
    (size <= RECORD_SIZE_MAX)
        .then_some(size)
        .ok_or(PayloadError::Large)
}

fn ordered(least: usize, most: usize) -> Result<(usize, usize), PayloadError> {
    (least <= most)
        .then_some((least, most))
        .ok_or(PayloadError::Descending)
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Fixed(size) => write!(f, "{size} B"),
            Kind::Uniform { least, most } => write!(f, "{least} to {most} B (uniform)"),
            Kind::LogNormal { least, most } => write!(f, "{least} to {most} B (log-normal)"),
            Kind::Choices(choices) => {
                let words = choices
                    .iter()
                    .map(|c| format!("{} B x {}", c.size, c.weight));
                write!(f, "{}", words.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Least, median and most of what is drawn.
    fn drawn(payload: Result<Payload, PayloadError>) -> (usize, usize, usize) {
        let mut sizes = payload.unwrap().sizes(1);
        assert_eq!(sizes.len(), DRAW_COUNT);
        sizes.sort_unstable();
        (sizes[0], sizes[DRAW_COUNT / 2], sizes[DRAW_COUNT - 1])
    }

    #[test]
    fn sizes_are_the_same_for_the_same_seed() {
        let payload = Payload::log_normal(64, 4_096).unwrap();
        assert_eq!(payload.sizes(7), payload.sizes(7));
        assert_ne!(payload.sizes(7), payload.sizes(8));
        assert_eq!(Payload::fixed(256).unwrap().sizes(7), [256]);
    }

    #[test]
    fn sizes_keep_to_their_bounds_and_their_shape() {
        let (least, median, most) = drawn(Payload::uniform(10, 1_010));
        assert_eq!((least, most), (10, 1_010));
        assert!(median.abs_diff(510) <= 10, "{median}");
        // The geometric mean of 64 and 4096 is 512.
        let (least, median, most) = drawn(Payload::log_normal(64, 4_096));
        assert!(
            least >= 64 && most <= 4_096 && least < 80 && most > 3_300,
            "{least} {most}"
        );
        assert!(median.abs_diff(512) <= 10, "{median}");
        assert_eq!(drawn(Payload::log_normal(9, 9)), (9, 9, 9));
        assert_eq!(drawn(Payload::uniform(0, 0)), (0, 0, 0));
    }

    #[test]
    fn a_list_is_drawn_by_weight() {
        let choice = |size, weight| Choice { size, weight };
        let list = vec![choice(64, 9), choice(5, 0), choice(4_096, 1)];
        let sizes = Payload::choices(list).unwrap().sizes(3);
        let share = |size| sizes.iter().filter(|s| **s == size).count() as f64 / DRAW_COUNT as f64;
        assert!((share(64) - 0.9).abs() < 0.01 && (share(4_096) - 0.1).abs() < 0.01);
        assert_eq!(share(5), 0.0);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let choice = |size, weight| Choice { size, weight };
        assert_eq!(
            Payload::fixed(RECORD_SIZE_MAX + 1),
            Err(PayloadError::Large)
        );
        assert_eq!(Payload::uniform(2, 1), Err(PayloadError::Descending));
        assert_eq!(Payload::log_normal(0, 1), Err(PayloadError::Nothing));
        assert_eq!(Payload::choices(vec![]), Err(PayloadError::Choices));
        assert_eq!(
            Payload::choices(vec![choice(1, 0)]),
            Err(PayloadError::Choices)
        );
        assert_eq!(
            Payload::choices(vec![choice(1, 1); 65]),
            Err(PayloadError::Choices)
        );
        let large = vec![choice(RECORD_SIZE_MAX + 1, 1)];
        assert_eq!(Payload::choices(large), Err(PayloadError::Large));
    }
}
