//! What is in a service's memory stays there.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

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
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    // It waits for a NATS that does not come.
    command
        .args(["ingest", "--listen", "127.0.0.1:0"])
        .env("NATS_URL", "nats://127.0.0.1:1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Of a root's process the kernel says the same either way.
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    let service = Service(command.spawn().unwrap());
    let process = format!("/proc/{}/environ", service.0.id());
    // What belongs to a process that may not be dumped is root's.
    until("memory that is nobody's to look at", || {
        std::fs::metadata(&process).unwrap().uid() == 0
    });
}
