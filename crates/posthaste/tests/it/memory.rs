//! What is in a service's memory stays there.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use posthaste::local::Folder;

use crate::support::until;

/// Ended with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_leaves_no_core_dump_and_nobody_of_its_account_may_look_into_it() {
    let folder = Folder::temporary().unwrap();
    let log = folder.path().join("log");
    let file = File::create(&log).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    // It waits for a NATS that does not come.
    command
        .args(["ingest", "--listen", "127.0.0.1:0"])
        .env("NATS_URL", "nats://127.0.0.1:1")
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file);
    // Of a root's process the kernel says the same either way.
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let service = Service(command.spawn().unwrap());
    // Before that, a process is nobody's to look at for as long as it takes to become another program.
    until("it starts", || fs::read_to_string(&log).unwrap().contains("starting"));
    // What belongs to a process that may not be dumped is root's.
    let process = format!("/proc/{}/environ", service.0.id());
    assert_eq!(fs::metadata(process).unwrap().uid(), 0);
}
