//! Which failpoint is armed. Debug builds only.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::Point;

/// What the environment says of failpoints.
#[derive(Debug, Default)]
pub(super) struct Armed {
    /// Where the process is to die, and at which time of coming there.
    pub(super) at: Option<(Point, u32)>,
    /// Where each point leaves a file when it is reached.
    traces: Option<PathBuf>,
    left: Mutex<HashSet<Point>>,
}

impl Armed {
    pub(super) fn from_environment() -> Self {
        let at = std::env::var("POSTHASTE_FAILPOINT").ok();
        let at = at.as_deref().filter(|text| !text.is_empty()).map(|text| {
            let found = parse(text);
            if found.is_none() {
                // A test that arms nothing would pass.
                tracing::error!(failpoint = text, "there is no such failpoint");
                std::process::exit(2);
            }
            found
        });
        Self {
            at: at.flatten(),
            traces: std::env::var_os("POSTHASTE_FAILPOINTS_REACHED").map(PathBuf::from),
            left: Mutex::default(),
        }
    }

    /// Leaves a file of the point's name, the first time.
    pub(super) fn leave_a_trace(&self, point: Point) {
        let Some(folder) = &self.traces else { return };
        if self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(point)
            && let Err(error) = std::fs::File::create(folder.join(point.name()))
        {
            tracing::error!(%error, point = point.name(), "a failpoint cannot leave its trace");
        }
    }
}

fn parse(text: &str) -> Option<(Point, u32)> {
    let (name, time) = text.split_once('@').unwrap_or((text, "1"));
    Some((Point::parse(name)?, time.parse().ok().filter(|time| *time > 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_armed_for_some_time_of_coming_there() {
        assert_eq!(parse("dispatcher::made"), Some((Point::AttemptMade, 1)));
        assert_eq!(parse("dispatcher::made@3"), Some((Point::AttemptMade, 3)));
        for wrong in ["", "dispatcher::made@0", "dispatcher::made@x", "dispatcher"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
