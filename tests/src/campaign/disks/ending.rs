//! The end of a round with a disk: both sides are stopped, one after the other, and their images
//! are compared; then the guest begins from the newest image, and its file is read back.
//!
//! Where nobody was left of the machine, it begins first, gets a backup, and is stopped then.

use super::images::{Held, identity};
use super::judge::{self, Kept};
use crate::campaign::clients::{self, Account};
use crate::campaign::healing::Course;
use crate::campaign::history::Record;
use crate::campaign::web::{Starting, Web};
use crate::harness::process::run;
use crate::harness::{Client, Reply, lockstep, wait_until};
use std::fs;
use std::path::{Path, PathBuf};

/// The switch of a machine that begins again.
const SECOND_SWITCH: usize = 1;

/// A round at its end.
pub struct Ending<'a> {
    /// Everything that the sides share.
    pub web: &'a mut Web,
    /// Observations.
    pub course: &'a mut Course,
    /// Number of clients.
    pub clients: usize,
    /// What they were told.
    pub accounts: &'a [Account],
    /// What the file must have of that, if nobody was left of the machine.
    pub kept: Kept,
}

/// Ends the machine that side `holder` held, and begins it again from its disk. Gives the reads of
/// that, where the file must have everything.
pub fn end(mut ending: Ending<'_>, holder: usize) -> Vec<Record> {
    let web = &mut *ending.web;
    for number in web.running() {
        web.go_on_after(number, 0);
    }
    web.look_at_the_time();
    if !ending.course.failures.is_empty() {
        for number in web.running() {
            web.kill(number);
        }
        return Vec::new();
    }
    let image = if ending.course.gone {
        let last = ending.web.claims().pop().map(|claim| claim.generation);
        ending.course.last_generation = ending.course.last_generation.or(last);
        ending.image_of_the_last()
    } else {
        let last = ending.stop_both(holder, 0);
        ending.web.sides[last].image.clone()
    };
    let (again, records) = ending.begin_again(image);
    if ending.course.gone {
        let newcomer = ending.web.start(&on_second_switch());
        ending.web.sides[newcomer].replica.wait_for("armed");
        ending.web.sides[again].replica.wait_for("armed");
        ending.stop_both(again, SECOND_SWITCH);
    } else {
        ending.stop(again);
    }
    ending.expect_others_to_have_lost();
    records
}

fn on_second_switch() -> Starting {
    Starting {
        switch: SECOND_SWITCH,
        ..Starting::replica(None)
    }
}

impl Ending<'_> {
    /// Stops the holder, and then the side that takes over from it: both have written everything.
    /// Gives the side that was stopped last.
    fn stop_both(&mut self, holder: usize, switch: usize) -> usize {
        wait_until_written(&mut Client::connect(self.web.addresses()[switch]));
        let backup = self.web.running().into_iter().find(|side| *side != holder);
        let live = backup.map_or(0, |backup| self.web.count(backup, "live"));
        self.stop(holder);
        let Some(backup) = backup else {
            self.course
                .failures
                .push("the machine had no backup at its end".to_owned());
            return holder;
        };
        wait_until(
            || (self.web.count(backup, "live") > live).then_some(()),
            || {
                format!(
                    "the backup goes live: {}",
                    self.web.sides[backup].replica.account()
                )
            },
        );
        if self.course.last_generation.is_none() {
            self.course.last_generation = self.web.claims().pop().map(|claim| claim.generation);
        }
        self.stop(backup);
        self.compare(holder, backup);
        backup
    }

    fn stop(&mut self, number: usize) {
        let side = &mut self.web.sides[number];
        let ended = side.replica.stop();
        if ended.code() != Some(0) {
            let why = format!("{} ended with {}, not 0", side.name, ended.status);
            self.course.failures.push(why);
        }
        side.stopped = true;
    }

    /// Two images are equal, byte for byte and by the command.
    fn compare(&mut self, left: usize, right: usize) {
        let is_mirrored = self
            .web
            .images
            .as_ref()
            .is_some_and(|images| images.held == Held::Mirrored);
        let image = |number: usize| self.web.sides[number].image.clone().unwrap_or_default();
        let (left, right) = (image(left), image(right));
        if !is_mirrored {
            return;
        }
        let mut command = lockstep();
        let compared = run(command.args(["disk", "compare"]).arg(&left).arg(&right));
        if compared.code() != Some(0) || read(&left) != read(&right) {
            let why = format!("the images of both sides differ at the end: {compared}");
            self.course.failures.push(why);
        }
    }

    /// The image of the side that has acted last. A claim that came to nothing makes it unknown
    /// which image is the newest: what is beside the image is removed, as its operator would.
    fn image_of_the_last(&self) -> Option<PathBuf> {
        let claims = self.web.claims();
        let acted = claims.iter().rev().find_map(|claim| {
            let is_it = |number: &usize| self.web.sides[*number].replica.process.id() == claim.process;
            let number = (0..self.web.sides.len()).find(is_it)?;
            let acts = claim.generation == 1 || self.web.acts(number, claim.generation);
            acts.then_some((number, claim.generation))
        });
        let (number, generation) = acted.expect("the first side has begun the machine");
        let image = self.web.sides[number].image.clone();
        if claims.last().is_some_and(|last| last.generation > generation) {
            let path = identity(image.as_deref().unwrap_or(Path::new("")));
            // A side that is killed may not have written it yet.
            let _ = fs::remove_file(path);
        }
        image
    }

    /// Begins the machine from `image`, and holds what it has against what clients were told.
    /// Gives its side, and the reads.
    fn begin_again(&mut self, image: Option<PathBuf>) -> (usize, Vec<Record>) {
        let again = self.web.start_on(&on_second_switch(), image);
        self.web.sides[again].replica.wait_for("begun");
        let address = self.web.addresses()[SECOND_SWITCH];
        let (held, records) = clients::read_all(address, self.clients)
            .unwrap_or_else(|why| panic!("the machine that has begun again is not read: {why}"));
        let accounts = self.accounts.iter();
        let history: Vec<Record> = accounts.flat_map(|account| &account.history).cloned().collect();
        let kept = if self.course.gone { self.kept } else { Kept::All };
        let complaints = judge::complaints(&history, &held, kept);
        self.course.failures.extend(complaints);
        let records = if kept == Kept::All { records } else { Vec::new() };
        (again, records)
    }

    /// Every side that was neither killed nor stopped here has been fenced.
    fn expect_others_to_have_lost(&mut self) {
        for number in 0..self.web.sides.len() {
            if self.web.sides[number].stopped {
                continue;
            }
            let ended = self.web.sides[number].replica.process.wait();
            // Finds out that its stop point has killed it.
            self.web.is_running(number);
            let side = &self.web.sides[number];
            if !side.killed && ended.code() != Some(41) {
                let why = format!("{} ended with {}, not 41", side.name, ended.status);
                self.course.failures.push(why);
            }
        }
    }
}

/// Waits until nothing of the guest's file waits to be written.
fn wait_until_written(client: &mut Client) {
    let mut ask = || {
        let reply = client.call(&["INFO", "persistence"]);
        let Reply::Bulk(Some(text)) = reply else {
            panic!("INFO was answered {reply:?}");
        };
        String::from_utf8_lossy(&text).into_owned()
    };
    wait_until(
        || ask().contains("aof_buffer_length:0\r\n").then_some(()),
        || "the guest's file is written".to_owned(),
    );
}

fn read(image: &Path) -> Vec<u8> {
    fs::read(image).unwrap_or_else(|why| panic!("{}: {why}", image.display()))
}
