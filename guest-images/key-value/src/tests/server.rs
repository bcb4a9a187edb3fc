//! What clients ask about the server.

use super::Server;
use crate::Next;

#[test]
fn a_session_has_a_number_and_a_name() {
    let mut server = Server::new();
    assert_eq!(server.line("client id"), ":7");
    assert_eq!(server.line("client setname worker"), "+OK");
    assert_eq!(server.line("client getname"), "$6|worker");
    assert_eq!(server.line("client setinfo lib-name x"), "+OK");
    assert!(server.line("client list").contains("id=7 name=worker db=0"));
    assert_eq!(server.line("reset"), "+RESET");
    assert_eq!(server.line("client getname"), "$-1");
}

#[test]
fn hello_is_answered_in_the_protocol_there_is() {
    let mut server = Server::new();
    let expected = "*14|$6|server|$5|redis|$7|version|$5|7.0.0|$5|proto|:2|$2|id|:7|$4|mode|$10|standalone|$4|role\
                    |$6|master|$7|modules|*0";
    assert_eq!(server.line("hello"), expected);
    assert_eq!(server.line("hello 2 auth default x setname me"), expected);
    assert_eq!(server.line("client getname"), "$2|me");
}

#[test]
fn the_time_is_that_of_the_wall_clock() {
    assert_eq!(Server::new().line("time"), "*2|$10|1700000000|$6|123456");
}

#[test]
fn settings_are_what_benchmarks_ask_for() {
    let mut server = Server::new();
    assert_eq!(server.line("config get save"), "*2|$4|save|$0");
    assert_eq!(server.line("config get APPENDONLY"), "*2|$10|appendonly|$2|no");
    assert_eq!(server.line("config get maxmemory"), "*2|$9|maxmemory|$8|67108864");
    assert_eq!(server.line("config get nothing"), "*0");
}

#[test]
fn information_comes_in_sections() {
    let mut server = Server::new();
    server.database.client_connected();
    server.line("set a b ex 10");
    let all = server.line("info");
    for expected in [
        "# Server|redis_version:7.0.0|",
        "||# Clients|connected_clients:1|",
        "||# Replication|role:master|",
        "||# Keyspace|db0:keys=1,expires=1,avg_ttl=0",
    ] {
        assert!(all.contains(expected), "{expected} in {all}");
    }
    let one = server.line("info memory");
    assert!(
        one.contains("# Memory|used_memory:") && !one.contains("# Server"),
        "{one}"
    );
}

#[test]
fn the_table_of_commands_is_told() {
    let mut server = Server::new();
    let count = server.line("command count").trim_start_matches(':').to_owned();
    assert!(server.line("command").starts_with(&format!("*{count}|*10|")));
    assert!(
        server
            .line("command list")
            .starts_with(&format!("*{count}|$6|append"))
    );
    assert_eq!(server.line("command docs get"), "*0");
    assert_eq!(
        server.line("command info get nothing"),
        "*2|*10|$3|get|:2|*2|+readonly|+fast|:1|:1|:1|*0|*0|*0|*0|*-1"
    );
}

#[test]
fn quit_ends_the_connection() {
    assert_eq!(
        Server::new().send(b"quit\r\n"),
        (b"+OK\r\n".to_vec(), Next::Close)
    );
}

#[test]
fn members_are_popped_in_the_order_of_their_bytes() {
    let mut server = Server::new();
    server.line("sadd s c a d b");
    assert_eq!(server.line("spop s"), "$1|a");
    assert_eq!(server.line("spop s 2"), "*2|$1|b|$1|c");
}
