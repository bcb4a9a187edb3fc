//! The commands: name, arity, flags, keys, function.

use crate::command::{
    ADMIN, ALL_KEYS, Action, Command, DENY_OOM, FAST, NO_KEYS, ONE_KEY, PAIRS, READ, WRITE,
};
use crate::commands::{
    client, config, connection, counters, expiry, hashes, info, introspection, keys, lists, server, sets,
    strings,
};

/// A command that may add to the keyspace.
const GROW: u8 = WRITE | DENY_OOM;

const CLIENT: &[Command] = &[
    Command::new("client|getname", 2, FAST, NO_KEYS, client::getname),
    Command::new("client|id", 2, FAST, NO_KEYS, client::id),
    Command::new("client|list", -2, ADMIN, NO_KEYS, client::list),
    Command::new("client|setinfo", 4, FAST, NO_KEYS, client::setinfo),
    Command::new("client|setname", 3, FAST, NO_KEYS, client::setname),
];

const COMMAND: &[Command] = &[
    Command::new("command|count", 2, 0, NO_KEYS, introspection::count),
    Command::new("command|docs", -2, 0, NO_KEYS, introspection::docs),
    Command::new("command|info", -2, 0, NO_KEYS, introspection::info),
    Command::new("command|list", -2, 0, NO_KEYS, introspection::list),
];

const CONFIG: &[Command] = &[
    Command::new("config|get", -3, ADMIN, NO_KEYS, config::get),
    Command::new("config|resetstat", 2, ADMIN, NO_KEYS, config::resetstat),
    Command::new("config|set", -4, ADMIN, NO_KEYS, config::set),
];

const fn group(name: &'static str, arity: i8, action: Action) -> Command {
    Command {
        name,
        arity,
        flags: 0,
        keys: NO_KEYS,
        action,
    }
}

/// All commands, sorted by name.
pub(crate) static COMMANDS: [Command; 61] = [
    Command::new("append", 3, GROW | FAST, ONE_KEY, strings::append),
    Command::new("bgrewriteaof", 1, ADMIN, NO_KEYS, server::bgrewriteaof),
    group("client", -2, Action::Group(None, CLIENT)),
    group("command", -1, Action::Group(Some(introspection::all), COMMAND)),
    group("config", -2, Action::Group(None, CONFIG)),
    Command::new("dbsize", 1, READ | FAST, NO_KEYS, keys::dbsize),
    Command::new("decr", 2, GROW | FAST, ONE_KEY, counters::decr),
    Command::new("decrby", 3, GROW | FAST, ONE_KEY, counters::decrby),
    Command::new("del", -2, WRITE, ALL_KEYS, keys::del),
    Command::new("echo", 2, FAST, NO_KEYS, connection::echo),
    Command::new("exists", -2, READ | FAST, ALL_KEYS, keys::exists),
    Command::new("expire", -3, WRITE | FAST, ONE_KEY, expiry::expire),
    Command::new("expireat", -3, WRITE | FAST, ONE_KEY, expiry::expireat),
    Command::new("flushall", -1, WRITE, NO_KEYS, keys::flush),
    Command::new("flushdb", -1, WRITE, NO_KEYS, keys::flush),
    Command::new("get", 2, READ | FAST, ONE_KEY, strings::get),
    Command::new("getset", 3, GROW | FAST, ONE_KEY, strings::getset),
    Command::new("hdel", -3, WRITE | FAST, ONE_KEY, hashes::hdel),
    Command::new("hello", -1, FAST, NO_KEYS, connection::hello),
    Command::new("hexists", 3, READ | FAST, ONE_KEY, hashes::hexists),
    Command::new("hget", 3, READ | FAST, ONE_KEY, hashes::hget),
    Command::new("hgetall", 2, READ, ONE_KEY, hashes::hgetall),
    Command::new("hlen", 2, READ | FAST, ONE_KEY, hashes::hlen),
    Command::new("hset", -4, GROW | FAST, ONE_KEY, hashes::hset),
    Command::new("incr", 2, GROW | FAST, ONE_KEY, counters::incr),
    Command::new("incrby", 3, GROW | FAST, ONE_KEY, counters::incrby),
    Command::new("info", -1, 0, NO_KEYS, info::info),
    Command::new("keys", 2, READ, NO_KEYS, keys::keys),
    Command::new("lindex", 3, READ, ONE_KEY, lists::lindex),
    Command::new("llen", 2, READ | FAST, ONE_KEY, lists::llen),
    Command::new("lpop", -2, WRITE | FAST, ONE_KEY, lists::lpop),
    Command::new("lpush", -3, GROW | FAST, ONE_KEY, lists::lpush),
    Command::new("lrange", 4, READ, ONE_KEY, lists::lrange),
    Command::new("mget", -2, READ | FAST, ALL_KEYS, strings::mget),
    Command::new("mset", -3, GROW, PAIRS, strings::mset),
    Command::new("persist", 2, WRITE | FAST, ONE_KEY, expiry::persist),
    Command::new("pexpire", -3, WRITE | FAST, ONE_KEY, expiry::pexpire),
    Command::new("pexpireat", -3, WRITE | FAST, ONE_KEY, expiry::pexpireat),
    Command::new("ping", -1, FAST, NO_KEYS, connection::ping),
    Command::new("psetex", 4, GROW, ONE_KEY, strings::psetex),
    Command::new("pttl", 2, READ | FAST, ONE_KEY, expiry::pttl),
    Command::new("quit", -1, FAST, NO_KEYS, connection::quit),
    Command::new("reset", 1, FAST, NO_KEYS, connection::reset),
    Command::new("rpop", -2, WRITE | FAST, ONE_KEY, lists::rpop),
    Command::new("rpush", -3, GROW | FAST, ONE_KEY, lists::rpush),
    Command::new("sadd", -3, GROW | FAST, ONE_KEY, sets::sadd),
    Command::new("scan", -2, READ, NO_KEYS, keys::scan),
    Command::new("scard", 2, READ | FAST, ONE_KEY, sets::scard),
    Command::new("select", 2, FAST, NO_KEYS, connection::select),
    Command::new("set", -3, GROW, ONE_KEY, strings::set),
    Command::new("setex", 4, GROW, ONE_KEY, strings::setex),
    Command::new("setnx", 3, GROW | FAST, ONE_KEY, strings::setnx),
    Command::new("sismember", 3, READ | FAST, ONE_KEY, sets::sismember),
    Command::new("smembers", 2, READ, ONE_KEY, sets::smembers),
    Command::new("spop", -2, WRITE | FAST, ONE_KEY, sets::spop),
    Command::new("srem", -3, WRITE | FAST, ONE_KEY, sets::srem),
    Command::new("strlen", 2, READ | FAST, ONE_KEY, strings::strlen),
    Command::new("time", 1, FAST, NO_KEYS, server::time),
    Command::new("ttl", 2, READ | FAST, ONE_KEY, expiry::ttl),
    Command::new("type", 2, READ | FAST, ONE_KEY, keys::type_of),
    Command::new("unlink", -2, WRITE | FAST, ALL_KEYS, keys::del),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_found() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name));
        for command in &COMMANDS {
            let upper = command.name.to_ascii_uppercase();
            let found = crate::command::find(upper.as_bytes()).map(|found| found.name);
            assert_eq!(found, Some(command.name));
        }
    }
}
