//! What a panic comes to: the end of the process, but for one a simulated cluster was made to find.
//!
//! A thread that panicked has left something half done, and whoever waits for it would wait for
//! ever: so the whole process goes. Knows no verb.

use std::cell::Cell;
use std::panic;

thread_local! {
    static IS_EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// From now on a panic of any thread is printed and ends the process.
pub(crate) fn end_the_process() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !IS_EXPECTED.get() {
            print(info);
            std::process::abort();
        }
    }));
}

/// Does something that catches its own panics: they are neither printed nor the end.
pub(crate) fn expected<T>(act: impl FnOnce() -> T) -> T {
    IS_EXPECTED.set(true);
    let done = act();
    IS_EXPECTED.set(false);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_expected_only_while_it_is() {
        assert!(!IS_EXPECTED.get());
        assert!(expected(|| IS_EXPECTED.get()));
        assert!(!IS_EXPECTED.get());
    }
}
