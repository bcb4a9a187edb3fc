//! `INFO`.

use super::{Args, Ctx, Done};
use alloc::string::String;
use core::fmt::{Result, Write};

/// The version of Redis whose commands and errors these are.
pub(super) const VERSION: &str = "7.0.0";

const MS_PER_SECOND: u64 = 1_000;

type Section = (&'static str, fn(&mut Ctx<'_, '_>, &mut String) -> Result);

const SECTIONS: [Section; 7] = [
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Keyspace", keyspace),
];

/// `INFO [section ...]`
pub(crate) fn info(context: &mut Ctx<'_, '_>, arguments: &Args<'_>) -> Done {
    let mut text = String::new();
    for (name, write) in SECTIONS {
        if !is_asked(arguments, name) {
            continue;
        }
        let separator = if text.is_empty() { "" } else { "\r\n" };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}# {name}\r\n");
        let _ = write(context, &mut text);
    }
    context.reply.bulk(text.as_bytes());
    Ok(())
}

fn is_asked(arguments: &Args<'_>, name: &str) -> bool {
    let all = ["all", "default", "everything", name];
    arguments.len() == 1 || (1..arguments.len()).any(|index| all.iter().any(|word| arguments.is(index, word)))
}

fn server(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let up_ms = context
        .moment
        .monotonic_ms()
        .saturating_sub(context.database.started_ms);
    let uptime_seconds = up_ms / MS_PER_SECOND;
    write!(
        text,
        "redis_version:{VERSION}\r\nredis_mode:standalone\r\nserver_name:lockstep\r\n"
    )?;
    write!(
        text,
        "arch_bits:{}\r\nuptime_in_seconds:{uptime_seconds}\r\n",
        usize::BITS
    )
}

fn clients(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let database = &context.database;
    write!(text, "connected_clients:{}\r\n", database.clients_connected)?;
    write!(
        text,
        "maxclients:{}\r\nblocked_clients:0\r\n",
        database.limits.clients_max
    )
}

fn memory(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let database = &context.database;
    let (used, most) = (database.used_bytes(), database.limits.memory_bytes_max);
    write!(
        text,
        "used_memory:{used}\r\nmaxmemory:{most}\r\nmaxmemory_policy:noeviction\r\n"
    )
}

fn persistence(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let enabled = u8::from(context.database.append_only.is_some());
    write!(text, "loading:0\r\naof_enabled:{enabled}\r\n")?;
    write!(text, "aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0\r\n")?;
    let Some(file) = &context.database.append_only else {
        return Ok(());
    };
    let word = |is_well| if is_well { "ok" } else { "err" };
    write!(
        text,
        "aof_last_bgrewrite_status:{}\r\n",
        word(file.too_large_at.is_none())
    )?;
    write!(text, "aof_last_write_status:{}\r\n", word(file.failed.is_none()))?;
    write!(
        text,
        "aof_rewrites:{}\r\naof_current_size:{}\r\naof_base_size:{}\r\naof_buffer_length:{}\r\n",
        file.rewrites,
        file.used_bytes(),
        file.base_bytes,
        file.pending.len()
    )
}

fn stats(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let database = &context.database;
    write!(
        text,
        "total_connections_received:{}\r\n",
        database.connections_received
    )?;
    write!(
        text,
        "total_commands_processed:{}\r\n",
        database.commands_processed
    )?;
    write!(
        text,
        "expired_keys:{}\r\nevicted_keys:0\r\n",
        database.keyspace.expired()
    )
}

fn replication(_: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    write!(text, "role:master\r\nconnected_slaves:0\r\n")
}

fn keyspace(context: &mut Ctx<'_, '_>, text: &mut String) -> Result {
    let keyspace = &context.database.keyspace;
    match keyspace.len() {
        0 => Ok(()),
        keys => write!(
            text,
            "db0:keys={keys},expires={},avg_ttl=0\r\n",
            keyspace.deadlines()
        ),
    }
}
