//! The server's clock, and its append-only file.

use super::{Args, Ctx, Done};
use crate::failure::Failure;

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

/// `BGREWRITEAOF`. It is done when the reply leaves.
pub(crate) fn bgrewriteaof(context: &mut Ctx<'_, '_>, _: &Args<'_>) -> Done {
    let now_ms = context.moment.monotonic_ms();
    let database = &mut *context.database;
    database.keyspace.advance(now_ms);
    let Some(file) = &mut database.append_only else {
        return Err(Failure::Fixed(
            "ERR the machine was started without an append-only file",
        ));
    };
    if !file.rewrite(&database.keyspace, now_ms) {
        let text = "ERR Can't execute an AOF background rewriting. Please check the server logs for more \
                    information.";
        return Err(Failure::Fixed(text));
    }
    context
        .reply
        .status("Background append only file rewriting started");
    Ok(())
}
