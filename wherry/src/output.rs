//! The output for people. Everything that the command line prints leaves through [`line()`], [`lines`], [`json`] or
//! [`error`], which escape what a terminal would not show as it is.

#[cfg(feature = "service")]
mod tables;

use std::fmt::Display;

use domain::printable;

#[cfg(feature = "service")]
pub(crate) use tables::{bytes, duration, fields, sectors, table, text};

/// Prints one line.
#[expect(clippy::print_stdout, reason = "the place that prints")]
pub(crate) fn line(text: impl Display) {
    println!("{}", printable(&text.to_string()));
}

/// Prints lines. Line breaks within them stay: [`table`], [`fields`] and [`text`] have escaped those of
/// foreign text.
#[cfg(feature = "service")]
#[expect(clippy::print_stdout, reason = "the place that prints")]
pub(crate) fn lines(text: &str) {
    for line in text.lines() {
        println!("{}", printable(line));
    }
}

/// Prints JSON for scripts, as it came.
#[cfg(feature = "service")]
#[expect(clippy::print_stdout, reason = "the place that prints")]
pub(crate) fn json(text: impl Display) {
    println!("{text}");
}

/// Prints what should be known before it costs time.
#[expect(clippy::print_stderr, reason = "the place that prints")]
pub(crate) fn warning(text: &str) {
    eprintln!("warning: {}", printable(text));
}

/// Prints why the command failed.
#[expect(clippy::print_stderr, reason = "the place that prints")]
pub(crate) fn error(text: &str) {
    eprintln!("error: {}", printable(text));
}
