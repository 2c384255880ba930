//! A script's text: commands in blocks, each with its transcript behind it.
//!
//! Knows what stands where, and how a script reads with another transcript. Plays nothing.

use super::Failure;
use super::command::{self, Command};

/// Between a block's commands and its transcript.
const RULE: &str = "----";

/// A line that is not transcript.
#[derive(Clone, Debug)]
pub(super) enum Line<'s> {
    Comment(&'s str),
    Command {
        /// From 1, as editors count.
        number: usize,
        text: &'s str,
        command: Command,
    },
    /// The end of a block.
    End,
}

/// Reads a script, without its transcript. `Err`: the first line that is no command.
pub(super) fn read(script: &str) -> Result<Vec<Line<'_>>, Failure> {
    let mut lines = Vec::new();
    let mut is_transcript = false;
    for (at, text) in script.lines().enumerate() {
        let number = at + 1;
        match text {
            "" => {
                lines.push(Line::End);
                is_transcript = false;
            }
            RULE => is_transcript = true,
            _ if is_transcript => {}
            _ if text.starts_with('#') => lines.push(Line::Comment(text)),
            _ => {
                let read = command::read(text);
                let command = read.map_err(|cause| Failure {
                    line: number,
                    cause: format!("{text}: {cause}"),
                    told: String::new(),
                })?;
                lines.push(Line::Command {
                    number,
                    text,
                    command,
                });
            }
        }
    }
    lines.push(Line::End);
    Ok(lines)
}

/// A script being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    text: String,
    /// The present block has a line.
    is_open: bool,
}

impl Writer {
    pub(super) fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.is_open = true;
    }

    /// Ends a block with what its commands caused.
    pub(super) fn end(&mut self, transcript: &str) {
        if !transcript.is_empty() {
            self.line(RULE);
            self.text.push_str(transcript);
        }
        if std::mem::take(&mut self.is_open) {
            self.text.push('\n');
        }
    }

    pub(super) fn finish(self) -> String {
        self.text.trim_end().to_owned() + "\n"
    }
}
