//! What a command answers when it cannot be done, in Redis's words.

use crate::arguments::Arguments;
use crate::number::Decimal;
use crate::reply::{REPLY_BYTES_MAX, Reply};
use alloc::vec::Vec;

/// Bytes an unknown command's name, and its arguments together, are quoted with (`processCommand` in Redis 7.0).
const QUOTED_BYTES_MAX: usize = 128;

/// Why a command was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Too few or too many arguments.
    Arity,
    /// No such command.
    UnknownCommand,
    /// No such subcommand of a command that has some.
    UnknownSubcommand,
    /// An option that `EXPIRE` does not have, by its argument's index.
    UnsupportedOption(usize),
    /// `CONFIG SET` of something that exists, by its argument's index.
    Immutable(usize),
    /// `CONFIG SET` of something that does not, by its argument's index.
    UnknownOption(usize),
    /// `HELLO` with an option it does not know, by its argument's index.
    HelloOption(usize),
    /// A time to live that is negative, zero or beyond what the clock can say.
    ExpireTime,
    /// The keyspace is full.
    OutOfMemory,
    /// The reply would be longer than replies may be.
    ReplyTooLong,
    /// One whose text is always the same: code and text.
    Fixed(&'static str),
}

impl Failure {
    /// The key holds another type.
    pub(crate) const TYPE: Self =
        Self::Fixed("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// Options that do not exist, or not together.
    pub(crate) const SYNTAX: Self = Self::Fixed("ERR syntax error");
    /// Not a canonical 64-bit integer.
    pub(crate) const INTEGER: Self = Self::Fixed("ERR value is not an integer or out of range");
    /// The append-only file has no room.
    pub(crate) const FILE_FULL: Self =
        Self::Fixed("MISCONF Errors writing to the AOF file: No space left on device");
    /// A count below zero.
    pub(crate) const POSITIVE: Self = Self::Fixed("ERR value is out of range, must be positive");
    /// A string longer than `proto-max-bulk-len`.
    pub(crate) const STRING_BYTES: Self =
        Self::Fixed("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

    /// Writes the error. `name` is the command's, as the table has it.
    pub(crate) fn write(self, reply: &mut Reply<'_>, name: &str, arguments: &Arguments<'_>) {
        let name = name.as_bytes();
        match self {
            Self::Fixed(text) => reply.error(&[text.as_bytes()]),
            Self::Arity => reply.error(&[b"ERR wrong number of arguments for '", name, b"' command"]),
            Self::ExpireTime => reply.error(&[b"ERR invalid expire time in '", name, b"' command"]),
            Self::OutOfMemory => {
                reply.error(&[b"OOM command not allowed when used memory > 'maxmemory'."]);
            }
            Self::UnknownCommand => write_unknown(reply, arguments),
            Self::UnknownSubcommand => reply.error(&[
                b"ERR unknown subcommand '",
                quoted(arguments.at(1), QUOTED_BYTES_MAX),
                b"'. Try ",
                &name.to_ascii_uppercase(),
                b" HELP.",
            ]),
            Self::UnsupportedOption(index) => {
                reply.error(&[b"ERR Unsupported option ", arguments.at(index)]);
            }
            Self::Immutable(index) => reply.error(&[
                b"ERR CONFIG SET failed (possibly related to argument '",
                arguments.at(index),
                b"') - can't set immutable config",
            ]),
            Self::UnknownOption(index) => reply.error(&[
                b"ERR Unknown option or number of arguments for CONFIG SET - '",
                arguments.at(index),
                b"'",
            ]),
            Self::HelloOption(index) => {
                reply.error(&[b"ERR Syntax error in HELLO option '", arguments.at(index), b"'"]);
            }
            Self::ReplyTooLong => reply.error(&[
                b"ERR reply is longer than ",
                Decimal::unsigned(REPLY_BYTES_MAX as u64).as_bytes(),
                b" bytes",
            ]),
        }
    }
}

fn write_unknown(reply: &mut Reply<'_>, arguments: &Arguments<'_>) {
    let mut quotes = Vec::new();
    for argument in arguments.from(1) {
        if quotes.len() >= QUOTED_BYTES_MAX {
            break;
        }
        let shown = quoted(argument, QUOTED_BYTES_MAX - quotes.len());
        quotes.push(b'\'');
        quotes.extend_from_slice(shown);
        quotes.extend_from_slice(b"' ");
    }
    let name = quoted(arguments.at(0), QUOTED_BYTES_MAX);
    reply.error(&[
        b"ERR unknown command '",
        name,
        b"', with args beginning with: ",
        &quotes,
    ]);
}

/// The start of an argument, up to a zero byte.
fn quoted(argument: &[u8], bytes_max: usize) -> &[u8] {
    let shown = argument.get(..bytes_max).unwrap_or(argument);
    shown.split(|byte| *byte == 0).next().unwrap_or_default()
}
