//! How much a test is asked to do: numbers in its environment. Knows no test's default.

/// The number that a variable holds, if it is set.
pub(crate) fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is a number")))
}
