//! What the process asks of the kernel before it holds a secret: no core dumps, and as many open files as it may have.

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use super::exit::Failure;

/// Turns core dumps off unless `core_dumps`, and raises the limit of open files to the most that the process may have.
/// Errors: the kernel refuses to turn core dumps off.
pub(super) fn prepare(core_dumps: bool) -> Result<(), Failure> {
    if !core_dumps {
        forbid_core_dumps().map_err(|error| {
            Failure::unavailable(format!(
                "cannot turn core dumps off ({error}): allow them with node.core_dumps = true"
            ))
        })?;
    }
    let files = getrlimit(Resource::Nofile);
    // Many systems start processes with 1,024, far below the connections of a port. Without the rest the node runs, and closes
    // idle connections earlier.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    Ok(())
}

/// Both are needed: a kernel that pipes dumps into a program ignores a limit of zero, and children inherit only the limit.
fn forbid_core_dumps() -> rustix::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}
