//! What the commands do, one file for each family.

pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod counters;
pub(crate) mod expiry;
pub(crate) mod hashes;
pub(crate) mod info;
pub(crate) mod introspection;
pub(crate) mod keys;
pub(crate) mod lists;
pub(crate) mod server;
pub(crate) mod sets;
pub(crate) mod strings;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::failure::Failure;
use crate::number::parse_i64;

type Ctx<'a, 'clock> = Context<'a, 'clock>;
type Args<'a> = Arguments<'a>;
type Done = Result<(), Failure>;

/// An argument that is an integer.
fn integer(arguments: &Args<'_>, index: usize) -> Result<i64, Failure> {
    parse_i64(arguments.at(index)).ok_or(Failure::INTEGER)
}

/// An argument that is a count.
fn count(arguments: &Args<'_>, index: usize) -> Result<usize, Failure> {
    let value = parse_i64(arguments.at(index)).ok_or(Failure::POSITIVE)?;
    usize::try_from(value).map_err(|_| Failure::POSITIVE)
}
