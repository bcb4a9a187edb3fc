use super::*;
use std::net::TcpListener;

const WAIT: Duration = Duration::from_secs(30);

fn witness(port: u16) -> WitnessAddress {
    WitnessAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

/// The first answer of a witness at this port.
fn first_answer(port: u16) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut witnesses = Witnesses::open(&[witness(port)], &Config::default())
            .await
            .unwrap();
        match timeout(WAIT, witnesses.due()).await.unwrap() {
            Due::Answer(answer) => answer,
            Due::Probes(_) => panic!("nobody is asked by ARP"),
        }
    })
}

#[test]
fn a_witness_that_accepts_has_answered_and_is_left_with_a_reset() {
    let before_ns = role_ns();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = first_answer(listener.local_addr().unwrap().port());
    assert_eq!(answer.witness, 0);
    assert!((before_ns..=role_ns()).contains(&answer.asked_at_ns));
    let (mut stream, _) = listener.accept().unwrap();
    let end = std::io::Read::read(&mut stream, &mut [0]);
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_witness_that_refuses_has_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert_eq!(first_answer(port).witness, 0);
}

#[test]
fn a_witness_without_an_address_is_refused_by_name() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let missing = WitnessAddress::Tcp {
        host: "no.such.host.invalid".to_owned(),
        port: 9,
    };
    let outcome = runtime.block_on(Witnesses::open(&[missing], &Config::default()));
    let why = outcome.err().unwrap().to_string();
    assert!(why.contains("witness: tcp:no.such.host.invalid:9"), "{why}");
}
