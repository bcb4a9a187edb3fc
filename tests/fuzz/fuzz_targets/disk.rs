//! `disk` under libFuzzer: what it promises stands in `tests/src/fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lockstep_tests::fuzz::disk::run(bytes));
