//! The server's clock.

use super::{Args, Ctx, Done};

const NS_PER_US: u64 = 1_000;
const US_PER_SECOND: u64 = 1_000_000;

/// `TIME`: seconds since 1970, and microseconds of this second.
pub(crate) fn time(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    let now_us = context.moment.wall_ns() / NS_PER_US;
    context.reply.array(2);
    context.reply.bulk_number(now_us / US_PER_SECOND);
    context.reply.bulk_number(now_us % US_PER_SECOND);
    Ok(())
}
