//! How often a test does what it does: as its variable says, or as often as a quick run can afford.

pub(crate) fn cycle_count(variable: &str, quick_count: usize) -> usize {
    match std::env::var(variable) {
        Ok(count) => count
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => quick_count,
    }
}
