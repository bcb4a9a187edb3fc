//! The configuration: text of files and flags. Whatever it says: no panic; what is understood is
//! the same when it is written and read again, and what holds in the end is what was said.

use lockstep::settings::Settings;
use lockstep_host::configuration::Configuration;
use lockstep_logging_channel::transport::Address;
use lockstep_network::Attachment;
use lockstep_switch::{Forward, HostAddress, SwitchArguments};
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// Lines of a text that are tried as the value of a flag.
const FLAGS_MAX: usize = 16;

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    settings(&text);
    switch_arguments(&text);
    for line in text.lines().take(FLAGS_MAX) {
        comes_back::<Attachment>(line);
        comes_back::<Address>(line);
        comes_back::<Forward>(line);
        comes_back::<HostAddress>(line);
        let flag = Settings {
            mac: Some(line.to_owned()),
            network: Some(line.to_owned()),
            ..Settings::default()
        };
        resolve(&flag);
        resolve(&Settings {
            network: None,
            ..flag
        });
    }
}

fn settings(text: &str) {
    match toml::from_str::<Settings>(text) {
        Ok(settings) => {
            let written = settings.to_toml().unwrap();
            assert_eq!(toml::from_str::<Settings>(&written).unwrap(), settings);
            assert_eq!(settings.clone().over(Settings::default()), settings);
            assert_eq!(Settings::default().over(settings.clone()), settings);
            resolve(&settings);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn switch_arguments(text: &str) {
    if let Ok(arguments) = toml::from_str::<SwitchArguments>(text) {
        let written = toml::to_string(&arguments).unwrap();
        assert_eq!(toml::from_str::<SwitchArguments>(&written).unwrap(), arguments);
    }
}

fn resolve(settings: &Settings) {
    let resolved = settings.clone().resolve();
    let over_defaults = settings.clone().over(Settings::defaults()).resolve();
    match (resolved, over_defaults) {
        (Ok(holds), Ok(same)) => {
            assert_eq!(holds, same);
            holds_what_was_said(&holds, settings);
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        (one, other) => panic!("{one:?} without, {other:?} with the defaults written out"),
    }
}

fn holds_what_was_said(holds: &Configuration, said: &Settings) {
    if let Some(mib) = said.memory_mib {
        assert_eq!(holds.memory_bytes, mib << 20);
    }
    if let Some(mac) = &said.mac {
        let bytes = holds.mac.map(|byte| format!("{byte:02x}"));
        assert_eq!(bytes.join(":"), mac.to_ascii_lowercase());
        assert_eq!(holds.mac[0] & 1, 0, "{mac} names several stations");
    }
    if let Some(network) = &said.network {
        assert_eq!(&holds.network.to_string(), network);
    }
    if let Some(text) = &said.command_line {
        assert_eq!(&holds.command_line, text);
    }
    let (pair, spacing) = (&holds.pair, holds.digest_interval_exits);
    let numbers = [spacing, pair.timeout_ms, pair.window_bytes, pair.lag_ms_max];
    let wanted = [
        said.digest_interval_exits,
        said.timeout_ms,
        said.window_mib.map(|mib| mib << 20),
        said.lag_ms_max,
    ];
    assert!(
        numbers
            .iter()
            .zip(wanted)
            .all(|(holds, said)| said.is_none_or(|said| said == *holds))
    );
}

/// A value that `text` names is named by its own text too.
fn comes_back<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            let again = shown
                .parse::<T>()
                .unwrap_or_else(|error| panic!("`{shown}`: {error}"));
            assert_eq!(again, value);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
