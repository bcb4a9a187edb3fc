//! Keys that go when their time is up.

use super::Server;

#[test]
fn a_key_is_gone_when_its_time_is_up() {
    let mut server = Server::new();
    assert_eq!(server.line("set k v px 1500"), "+OK");
    assert_eq!(server.line("ttl k"), ":2");
    server.clock.pass_ms(1_499);
    assert_eq!(server.line("pttl k"), ":1");
    assert_eq!(server.line("get k"), "$1|v");
    server.clock.pass_ms(1);
    assert_eq!(server.line("get k"), "$-1");
    assert_eq!(server.line("ttl k"), ":-2");
    assert_eq!(server.line("dbsize"), ":0");
    assert_eq!(server.database.used_bytes(), 0);
}

#[test]
fn dates_are_those_of_the_wall_clock() {
    let mut server = Server::new();
    let in_ten_seconds = server.clock.wall_ns / 1_000_000_000 + 10;
    server.line(&format!("set k v exat {in_ten_seconds}"));
    // The wall clock is 123 ms into its second.
    assert_eq!(server.line("pttl k"), ":9877");
    assert_eq!(
        server.line(&format!("pexpireat k {}000", in_ten_seconds + 10)),
        ":1"
    );
    assert_eq!(server.line("pttl k"), ":19877");
    assert_eq!(server.line("expireat k 1"), ":1");
    assert_eq!(server.line("exists k"), ":0");
    assert_eq!(server.line("set k v exat 1"), "+OK");
    assert_eq!(server.line("exists k"), ":0");
}

#[test]
fn what_expired_is_removed_without_being_asked_for() {
    let mut server = Server::new();
    for key in 0..100 {
        server.line(&format!("set key{key} v ex 1"));
    }
    server.line("set other v");
    server.clock.pass_ms(1_000);
    assert_eq!(server.line("keys *"), "*1|$5|other");
    for _ in 0..7 {
        server.line("ping");
    }
    assert_eq!(server.line("dbsize"), ":1");
    assert!(server.line("info stats").contains("expired_keys:100|"));
}

#[test]
fn the_clock_is_asked_only_when_the_time_matters() {
    let mut server = Server::new();
    for line in ["set a b", "get a", "incr n", "rpush l x", "ttl a", "keys *"] {
        server.line(line);
    }
    assert_eq!(server.clock.asked, 0);
    server.line("set a b ex 1");
    assert_eq!(server.clock.asked, 1);
    server.send(b"get a\r\nget a\r\nget a\r\n");
    assert_eq!(server.clock.asked, 2);
}
